package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// help is what open-iscsi 2.1.8 prints.
const help = `Usage: iscsi-iname [OPTIONS]
Where OPTIONS are from:
    -p/--prefix <prefix>          -- set IQN prefix [iqn.2016-04.com.open-iscsi]
    -g/--generate-iname-prefix    -- generate the InitiatorName= prefix
where <prefix> has max length of 210
`

func TestRun(t *testing.T) {
	hex := `[0-9a-f]{12}\n$`
	for _, tc := range []struct {
		name string
		args []string
		out  string // regular expression
		err  string
		code int
	}{
		{"default", nil, `^iqn\.2016-04\.com\.open-iscsi:` + hex, "", 0},
		{"prefix", []string{"-p", "iqn.2026-11.test"}, `^iqn\.2026-11\.test:` + hex, "", 0},
		{"attached prefix", []string{"-piqn.2026-11.test"}, `^iqn\.2026-11\.test:` + hex, "", 0},
		{"long prefix option", []string{"--pre=iqn.2026-11.test"}, `^iqn\.2026-11\.test:` + hex, "", 0},
		{"as a line of the name file", []string{"-g"}, `^InitiatorName=iqn\.2016-04\.com\.open-iscsi:` + hex, "", 0},
		{"both in a bundle", []string{"-gp", "x"}, `^InitiatorName=x:` + hex, "", 0},
		{"help", []string{"-h"}, `^$`, help, 0},
		{"unknown option", []string{"-x"}, `^$`, "iscsi-iname: invalid option -- 'x'\n" + help, 1},
		{"missing prefix", []string{"-p"}, `^$`, "iscsi-iname: option requires an argument -- 'p'\n" + help, 1},
		{"prefix too long", []string{"-p", strings.Repeat("x", 211)}, `^$`, "iscsi-iname: prefix too long\n" + help, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(append([]string{"iscsi-iname"}, tc.args...), &stdout, &stderr)
			if code != tc.code || !regexp.MustCompile(tc.out).MatchString(stdout.String()) || stderr.String() != tc.err {
				t.Errorf("code %d, stdout %q, stderr %q; want %d, %s, %q", code, stdout.String(), stderr.String(), tc.code, tc.out, tc.err)
			}
		})
	}
}
