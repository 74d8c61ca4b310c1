package daemon

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompatSysfsArguments(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "iscsid: compat-sysfs: give it one directory to mount on"},
		{[]string{"a", "b"}, "iscsid: compat-sysfs: give it one directory to mount on"},
		{[]string{"--no-such-option", "a"}, "iscsid: flag provided but not defined: -no-such-option"},
	} {
		var out, errs bytes.Buffer
		code := Main(append([]string{"iscsid", "compat-sysfs"}, tc.args...), &out, &errs, nil)
		if code != 7 || errs.String() != tc.want+" (iscsid --help shows the options)\n" {
			t.Errorf("%q: exit status %d, %q, want %q", tc.args, code, &errs, tc.want)
		}
	}
}

// In the background, too, whoever starts it learns why it could not mount.
func TestCompatSysfsSaysWhatIsWrong(t *testing.T) {
	for _, flags := range [][]string{nil, {"-b"}} {
		dir := filepath.Join(t.TempDir(), "none")
		cmd := exec.Command(os.Args[0], append(append([]string{"compat-sysfs"}, flags...), dir)...)
		cmd.Env = append(os.Environ(), testAsDaemon+"=1", "ISCSI_ROOT="+t.TempDir(), "SYSFS_PATH="+t.TempDir())
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "mount on "+dir+": ") {
			t.Errorf("%v: %v, %q", flags, err, out)
		}
	}
}

// The file system is for iscsid alone: iscsiadm is to stay small.
func TestOnlyIscsidHasTheFileSystem(t *testing.T) {
	for command, want := range map[string]bool{"iscsid": true, "iscsiadm": false} {
		out, err := exec.Command("go", "list", "-deps", "github.com/goiscsi/goiscsi/cmd/"+command).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(out), "github.com/hanwen/go-fuse/"); got != want {
			t.Errorf("%s contains go-fuse: %v, want %v", command, got, want)
		}
	}
}
