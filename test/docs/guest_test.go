//go:build guest

package docs

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/docshell"
	"github.com/goiscsi/goiscsi/test/lab"
)

// What a page takes for granted before its first command.
var setup = map[string]func(*testing.T, *lab.Host){
	"README.md": func(t *testing.T, h *lab.Host) {
		const address = "192.168.100.1"
		h.Shell("ip address add " + address + "/24 dev lo")
		t.Cleanup(func() { h.Shell("ip address del " + address + "/24 dev lo") })
		startTarget(t, h, "-p", address, "-T", "iqn.2016-01-com.example.tg1", "--controller", "--mem", "64M")
	},
	"docs/sysfs.md": func(t *testing.T, h *lab.Host) {
		h.Shell("modprobe fuse || true") // where it is not built in
		t.Cleanup(func() { h.Shell("umount /run/iscsid/sys") })
	},
	"docs/benchmarks-records.md": func(_ *testing.T, h *lab.Host) {
		h.Must("-m", "node", "-T", "iqn.2016-01.com.example:storage.disk02500", "-p", "10.0.0.1", "-o", "new")
	},
}

// startTarget starts our target; it ends with the test.
func startTarget(t *testing.T, h *lab.Host, args ...string) {
	t.Helper()
	ready, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := h.Command("iscsi-target", append([]string{"--ready-fd", "3"}, args...)...)
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if n, err := ready.Read(make([]byte, 1)); n == 0 {
		t.Fatalf("iscsi-target does not listen: %v", err)
	}
}

// TestGuestRunsTheCommandsOfTheDocs types what the pages show, page by page, each
// on a machine without records and sessions. A page that does not start iscsid
// finds it running.
func TestGuestRunsTheCommandsOfTheDocs(t *testing.T) {
	all := slices.DeleteFunc(blocks(t), func(c docshell.Command) bool {
		return exceptions[c.Text] != "" || !slices.Contains(inGuest, docshell.Program(c.Text))
	})
	t.Setenv("PATH", os.Getenv("GOISCSI_BIN")+":"+os.Getenv("PATH"))
	for len(all) > 0 {
		page := all[0].File
		n := slices.IndexFunc(all, func(c docshell.Command) bool { return c.File != page })
		if n < 0 {
			n = len(all)
		}
		t.Run(page, func(t *testing.T) { typePage(t, all[:n]) })
		all = all[n:]
	}
}

func typePage(t *testing.T, commands []docshell.Command) {
	h := lab.NewMachine(t)
	if f := setup[commands[0].File]; f != nil {
		f(t, h)
	}
	if slices.ContainsFunc(commands, func(c docshell.Command) bool { return c.Text == "iscsid" }) {
		t.Cleanup(func() {
			h.Run("iscsiadm", "-m", "node", "-U", "all")
			h.Run("iscsiadm", "-k", "0")
		})
	} else {
		h.StartDaemon()
	}
	for _, c := range commands {
		command := c.Text
		if command == "iscsiadm -m node -U all" {
			command += " || test $? = 21" // nothing is logged in here
		}
		got := strings.Split(h.Shell(command), "\n")
		t.Logf("$ %s\n%s", command, strings.Join(got, "\n"))
		if len(c.Output) == 0 {
			continue
		}
		for i := range got {
			got[i] = strings.Join(strings.Fields(got[i]), " ") // tabs are blanks in the pages
		}
		for _, line := range c.Output {
			if !slices.Contains(got, strings.Join(strings.Fields(line), " ")) {
				t.Errorf("%s: %q does not print %q but\n%s", c.File, c.Text, line, strings.Join(got, "\n"))
			}
		}
	}
}
