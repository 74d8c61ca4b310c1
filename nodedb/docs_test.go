package nodedb_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/nodedb"
)

var updateDocs = flag.Bool("update-docs", false, "write the tables of fields into docs/records.md")

const recordsDoc = "../docs/records.md"

// The tables in docs/records.md are made from those in the code. To write them
// anew: go test ./nodedb -run RecordsDoc -update-docs
func TestRecordsDocHasTheFields(t *testing.T) {
	doc, err := os.ReadFile(recordsDoc)
	if err != nil {
		t.Fatal(err)
	}
	tables := regexp.MustCompile(`(?s)(<!-- fields (\w+) -->\n).*?(<!-- end -->)`)
	n := 0
	want := tables.ReplaceAllFunc(doc, func(m []byte) []byte {
		n++
		parts := tables.FindSubmatch(m)
		return bytes.Join([][]byte{parts[1], []byte(fieldTable(t, string(parts[2]))), parts[3]}, nil)
	})
	if n != len(allFields()) {
		t.Errorf("%d tables, want %d", n, len(allFields()))
	}
	if *updateDocs {
		if err := os.WriteFile(recordsDoc, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(doc), string(want)); diff != "" {
		t.Errorf("run with -update-docs (-document +code):\n%s", diff)
	}
}

// fieldTable returns the table of one kind of record: of nodes without the
// interface, of interfaces what has an effect here.
func fieldTable(t *testing.T, kind string) string {
	t.Helper()
	shipped, err := nodedb.ParseConfig(bytes.NewReader(nodedb.ShippedConfig()))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| field | values | built-in | shipped | |\n|---|---|---|---|---|\n")
	for _, f := range allFields()[kind] {
		if f.Doc == "" || kind == "node" && strings.HasPrefix(f.Name, "iface.") {
			continue
		}
		doc := f.Doc
		for _, flag := range []struct {
			on   bool
			text string
		}{{f.ReadOnly, "*fixed*"}, {f.Own, "*own*"}, {f.Quiet, "*quiet*"}} {
			if flag.on {
				doc = flag.text + ", " + doc
			}
		}
		conf, ok := shipped.Lookup(f.Name)
		if !ok || conf == f.Default {
			conf = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.Name, kindText(f), f.Default, conf, doc)
	}
	return b.String()
}

func kindText(f nodedb.Field) string {
	switch f.Kind {
	case nodedb.KindSecret:
		return "secret"
	case nodedb.KindBool, nodedb.KindEnum:
		return "`" + strings.Join(f.Values, "` `") + "`"
	case nodedb.KindList:
		return "list of `" + strings.Join(f.Values, "` `") + "`"
	case nodedb.KindString:
		return "text"
	}
	return "number"
}

// Every field but those of cards says what it is for.
func TestFieldsAreDocumented(t *testing.T) {
	for kind, fields := range allFields() {
		for _, f := range fields {
			if f.Doc == "" && !strings.HasPrefix(f.Name, "iface.") {
				t.Errorf("%s: %s has no description", kind, f.Name)
			}
			if strings.Contains(f.Doc, "|") {
				t.Errorf("%s: the description would break the table", f.Name)
			}
		}
	}
}
