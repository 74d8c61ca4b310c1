package nodedb_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/nodedb"
)

const confPage = "../docs/man/iscsid.conf.5"

// TestManualPageHasTheFields holds iscsid.conf(5) against the tables of fields.
// To write its list anew: go test ./nodedb -run ManualPage -update-docs
func TestManualPageHasTheFields(t *testing.T) {
	page, err := os.ReadFile(confPage)
	if err != nil {
		t.Fatal(err)
	}
	part := regexp.MustCompile(`(?s)(\.\\" begin fields[^\n]*\n).*(\.\\" end fields\n)`)
	if !part.Match(page) {
		t.Fatal("the page has no marks for the list of fields")
	}
	list := pageFields(t)
	want := part.ReplaceAllFunc(page, func(m []byte) []byte {
		p := part.FindSubmatch(m)
		return bytes.Join([][]byte{p[1], []byte(list), p[2]}, nil)
	})
	if *updateDocs {
		if err := os.WriteFile(confPage, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(page), string(want)); diff != "" {
		t.Errorf("run with -update-docs (-page +code):\n%s", diff)
	}
}

// pageFields returns the list of all fields that the file can set, each once.
func pageFields(t *testing.T) string {
	t.Helper()
	shipped, err := nodedb.ParseConfig(bytes.NewReader(nodedb.ShippedConfig()))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	seen := map[string]bool{}
	fields := allFields()
	for _, kind := range []string{"node", "sendtargets", "isns"} {
		for _, f := range fields[kind] {
			if f.ReadOnly || f.Doc == "" || strings.HasPrefix(f.Name, "iface.") || seen[f.Name] {
				continue
			}
			seen[f.Name] = true
			fmt.Fprintf(&b, ".It Va %s\n%s.\n", f.Name, strings.ToUpper(f.Doc[:1])+f.Doc[1:])
			switch f.Kind {
			case nodedb.KindSecret:
			case nodedb.KindBool, nodedb.KindEnum:
				fmt.Fprintf(&b, "One of %s.\n", strings.Join(f.Values, ", "))
			case nodedb.KindList:
				fmt.Fprintf(&b, "A list of %s.\n", strings.Join(f.Values, ", "))
			case nodedb.KindString:
			default:
				b.WriteString("A number.\n")
			}
			if f.Default != "" {
				fmt.Fprintf(&b, "Default: %s.\n", f.Default)
			}
			if conf, ok := shipped.Lookup(f.Name); ok && conf != f.Default {
				fmt.Fprintf(&b, "Shipped: %s.\n", conf)
			}
			if f.Own {
				b.WriteString("Open-iscsi does not have this field.\n")
			}
		}
	}
	return b.String()
}

// TestManualPageHasTheKeys looks for the keys of the programs.
func TestManualPageHasTheKeys(t *testing.T) {
	page, err := os.ReadFile(confPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		nodedb.ConfStartup, nodedb.ConfSafeLogout, nodedb.ConfIPCAuthUID, nodedb.ConfControlGroup, nodedb.ConfMirror, nodedb.ConfKeepNodeSettings,
	} {
		if !bytes.Contains(page, []byte("\n.It Va "+key+"\n")) {
			t.Errorf("the page does not have %s", key)
		}
	}
}
