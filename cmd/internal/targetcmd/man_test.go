package targetcmd_test

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/targetcmd"
)

func TestManualHasEveryOption(t *testing.T) {
	page, err := os.ReadFile("../../../docs/man/iscsi-target.8")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range targetcmd.New(io.Discard, io.Discard).Flags {
		if name := f.Names()[0]; !strings.Contains(string(page), "Fl "+name+" ") && !strings.Contains(string(page), "Fl "+name+"\n") {
			t.Errorf("option -%s is not in the manual", name)
		}
	}
}
