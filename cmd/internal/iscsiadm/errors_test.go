package iscsiadm

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"io/fs"
	"testing"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// Who may not read a file is told what to do, with the code that open-iscsi has
// for files that it cannot open.
func TestPermissionDeniedEndsWith6(t *testing.T) {
	var stderr bytes.Buffer
	c := &command{
		Env: Env{Stdout: io.Discard, Stderr: &stderr},
		ctx: context.Background(),
		out: bufio.NewWriter(io.Discard),
	}
	err := &fs.PathError{Op: "open", Path: "/etc/iscsi/iscsid.conf", Err: fs.ErrPermission}
	if code := c.report(err); code != errcode.IDBM {
		t.Errorf("ends with %d, want %d", code, errcode.IDBM)
	}
	want := "iscsiadm: open /etc/iscsi/iscsid.conf: permission denied\niscsiadm: hint: run the command as root\n"
	if got := stderr.String(); got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}
