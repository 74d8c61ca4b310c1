package nodedb_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/goiscsi/goiscsi/nodedb"
)

func TestParseInitiatorName(t *testing.T) {
	for _, tc := range []struct {
		name, text, want, alias string
	}{
		{"plain", "InitiatorName=iqn.a:b\n", "iqn.a:b", ""},
		{"blanks", "  InitiatorName = iqn.a:b \r\n", "iqn.a:b", ""},
		{"no newline", "InitiatorName=iqn.a:b", "iqn.a:b", ""},
		{"comments", "# InitiatorName=iqn.no\n## x\nInitiatorName=iqn.a:b\n", "iqn.a:b", ""},
		{"first counts", "InitiatorName=iqn.a:b\nInitiatorName=iqn.c\n", "iqn.a:b", ""},
		{"in the middle of a line", "export InitiatorName=iqn.a:b\n", "iqn.a:b", ""},
		{"alias", "InitiatorAlias=my host\nInitiatorName=iqn.a:b\n", "iqn.a:b", "my host"},
		{"equals sign in the name", "InitiatorName=iqn.a=b\n", "iqn.a=b", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in, err := nodedb.ParseInitiatorName(strings.NewReader(tc.text))
			if err != nil || in.Name != tc.want || in.Alias != tc.alias {
				t.Errorf("got %+v, %v; want %q %q", in, err, tc.want, tc.alias)
			}
		})
	}
}

func TestParseInitiatorNameRefuses(t *testing.T) {
	for _, text := range []string{"", "# InitiatorName=iqn.a\n", "GenerateName=yes\n", "InitiatorName=\n", "InitiatorName"} {
		if _, err := nodedb.ParseInitiatorName(strings.NewReader(text)); !errors.Is(err, nodedb.ErrNoInitiatorName) {
			t.Errorf("%q: error %v, want ErrNoInitiatorName", text, err)
		}
	}
	for _, name := range []string{"iqn.a b", "iqn/a", "iqn.\x1b", strings.Repeat("x", 224)} {
		var ne *nodedb.NameError
		if _, err := nodedb.ParseInitiatorName(strings.NewReader("InitiatorName=" + name + "\n")); !errors.As(err, &ne) {
			t.Errorf("%q: error %v, want a *NameError", name, err)
		}
	}
}

func TestEnsureInitiatorNameMakesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "iscsi", "initiatorname.iscsi")
	if _, err := nodedb.LoadInitiatorName(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error %v, want fs.ErrNotExist", err)
	}
	in, err := nodedb.EnsureInitiatorName(context.Background(), path)
	if err != nil || !regexp.MustCompile(`^iqn\.2016-04\.com\.open-iscsi:[0-9a-f]{12}$`).MatchString(in.Name) {
		t.Fatalf("got %+v, %v", in, err)
	}
	again, err := nodedb.EnsureInitiatorName(context.Background(), path)
	if err != nil || again != in {
		t.Errorf("the second time %+v, %v; want %+v", again, err, in)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestEnsureInitiatorNameReplacesGenerateName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "initiatorname.iscsi")
	if err := os.WriteFile(path, []byte("## keep this\nGenerateName=yes\nInitiatorAlias=x"), 0o644); err != nil {
		t.Fatal(err)
	}
	in, err := nodedb.EnsureInitiatorName(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "## keep this\nInitiatorAlias=x\nInitiatorName=" + in.Name + "\n"; string(text) != want {
		t.Errorf("file is %q, want %q", text, want)
	}
}

func TestEnsureInitiatorNameLeavesABadFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "initiatorname.iscsi")
	const bad = "InitiatorName=iqn.a b\n"
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := nodedb.EnsureInitiatorName(context.Background(), path); err == nil {
		t.Error("no error")
	}
	if text, _ := os.ReadFile(path); string(text) != bad {
		t.Errorf("file is now %q", text)
	}
}

func TestEnsureInitiatorNameIsTheSameForAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "initiatorname.iscsi")
	names := make([]string, 16)
	var wg sync.WaitGroup
	for i := range names {
		wg.Go(func() {
			in, err := nodedb.EnsureInitiatorName(context.Background(), path)
			if err != nil {
				t.Error(err)
			}
			names[i] = in.Name
		})
	}
	wg.Wait()
	for _, n := range names {
		if n != names[0] {
			t.Fatalf("several names: %q", names)
		}
	}
}
