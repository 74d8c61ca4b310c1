package iname_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/iname"
)

func TestGenerate(t *testing.T) {
	for _, tc := range []struct{ prefix, want string }{
		{"", `^iqn\.2016-04\.com\.open-iscsi:[0-9a-f]{12}$`},
		{"iqn.2026-11.test", `^iqn\.2026-11\.test:[0-9a-f]{12}$`},
		{strings.Repeat("x", iname.MaxPrefixLen), `^x{210}:[0-9a-f]{12}$`},
	} {
		got, err := iname.Generate(tc.prefix)
		if err != nil || !regexp.MustCompile(tc.want).MatchString(got) {
			t.Errorf("Generate(%q) = %q, %v", tc.prefix, got, err)
		}
	}
}

func TestGenerateIsRandom(t *testing.T) {
	a, _ := iname.Generate("")
	b, _ := iname.Generate("")
	if a == b {
		t.Errorf("two names are equal: %s", a)
	}
}

func TestGenerateRefusesLongPrefix(t *testing.T) {
	_, err := iname.Generate(strings.Repeat("x", iname.MaxPrefixLen+1))
	var pe *iname.PrefixError
	if !errors.As(err, &pe) {
		t.Errorf("error %v, want a *PrefixError", err)
	}
}

func TestGenerateRefusesWhatNoNameBeginsWith(t *testing.T) {
	for _, prefix := range []string{"iqn.2026-11.test two", "-iqn", "iqn.2026-11.test\n", "iqn/x", "\xff"} {
		if got, err := iname.Generate(prefix); err == nil {
			t.Errorf("Generate(%q) = %q", prefix, got)
		}
	}
}
