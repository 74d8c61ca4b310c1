package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestManualPage holds iscsi-iname(8) against the table of options.
func TestManualPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "man", "iscsi-iname.8"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\.It Fl (\w) , Fl Fl ([\w-]+)( Ar .*)?$`).FindAllStringSubmatch(string(page), -1) {
		o, _ := options.Long(m[2])
		if o == nil || string(o.Short) != m[1] || (o.Arg == "") != (m[3] == "") {
			t.Errorf("the page has %q, which is no option", strings.TrimSpace(m[0]))
		}
		documented[m[2]] = true
	}
	for _, o := range options {
		if !documented[o.Long] {
			t.Errorf("the page does not have --%s", o.Long)
		}
	}
}
