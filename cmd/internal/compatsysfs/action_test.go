package compatsysfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// calls is a Daemon that writes down what it is asked for.
type calls struct {
	got      string
	sessions []control.Session
	err      error
}

func (c *calls) Sessions(context.Context, control.SessionQuery) ([]control.Session, error) {
	return c.sessions, c.err
}

func (c *calls) Session(_ context.Context, sid int, q control.SessionQuery) (*control.Session, error) {
	c.got += fmt.Sprintf("session %d %v;", sid, q.Secrets)
	return &control.Session{CHAP: &control.CHAP{Password: "hush"}}, c.err
}

func (c *calls) Rescan(_ context.Context, sid int) (*control.RescanResult, error) {
	c.got += fmt.Sprintf("rescan %d;", sid)
	return nil, c.err
}

func (c *calls) RescanLUN(_ context.Context, sid int, lun uint64) (*control.RescanResult, error) {
	c.got += fmt.Sprintf("rescan %d %d;", sid, lun)
	return nil, c.err
}

func (c *calls) RemoveLUN(_ context.Context, sid int, lun uint64, safe bool) error {
	c.got += fmt.Sprintf("remove %d %d %v;", sid, lun, safe)
	return c.err
}

func TestWhatWritingDoes(t *testing.T) {
	for _, tc := range []struct {
		verb  verb
		text  string
		asks  string
		kept  string
		errno syscall.Errno
	}{
		{verbScan, "- - -\n", "rescan 3;", "", 0},
		{verbScan, "0 0 7\n", "rescan 3 7;", "", 0},
		{verbScan, "- 0 16640", "rescan 3 16640;", "", 0},
		{verbScan, "0 0 0x10", "rescan 3 16;", "", 0},
		{verbScan, "1 0 7", "", "", 0}, // another channel has nothing, which is no error
		{verbScan, "- 5 -", "", "", 0},
		{verbScan, "0 0", "", "", syscall.EINVAL},
		{verbScan, "0 0 1 1", "", "", syscall.EINVAL},
		{verbScan, "a - -", "", "", syscall.EINVAL},
		{verbScan, "0 0 -1", "", "", syscall.EINVAL},
		{verbScan, "", "", "", syscall.EINVAL},
		{verbDelete, "1\n", "remove 3 9 false;", "", 0},
		{verbRescan, "1\n", "rescan 3 9;", "", 0},
		{verbState, "offline\n", "", "offline\n", 0},
		{verbState, "broken\n", "", "", syscall.EINVAL},
		{verbTimeout, " 60\n", "", "60\n", 0},
		{verbTimeout, "-1\n", "", "", syscall.EINVAL},
		{verbNone, "x", "", "", syscall.EACCES},
	} {
		d := new(calls)
		kept, err := action{tc.verb, 3, 9}.do(t.Context(), d, tc.text)
		if d.got != tc.asks || kept != tc.kept || errnoOf(err) != tc.errno {
			t.Errorf("verb %d, %q: asks %q, keeps %q, %v", tc.verb, tc.text, d.got, kept, err)
		}
	}
}

func TestErrnoOfARefusal(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{control.NewError(errcode.SessNotFound, ""), syscall.ENODEV},
		{control.NewError(errcode.NoObjsFound, ""), syscall.ENODEV},
		{control.NewError(errcode.SessionNotConnected, ""), syscall.ENOTCONN},
		{control.NewError(errcode.Busy, ""), syscall.EBUSY},
		{control.NewError(errcode.Access, ""), syscall.EACCES},
		{control.NewError(errcode.Inval, ""), syscall.EINVAL},
		{control.NewError(errcode.PDUTimeout, ""), syscall.ETIMEDOUT},
		{control.NewError(errcode.Internal, ""), syscall.EIO},
		{&control.ConnError{Code: errcode.ISCSIDNotConn, Err: syscall.ECONNREFUSED}, syscall.EIO},
		{&fs.PathError{Op: "open", Err: syscall.ENOENT}, syscall.ENOENT},
		{fmt.Errorf("rescan: %w", context.Canceled), syscall.EINTR},
		{errors.New("anything"), syscall.EIO},
	} {
		if got := errnoOf(tc.err); got != tc.want {
			t.Errorf("errnoOf(%v) = %v, want %v", tc.err, got, tc.want)
		}
	}
}

func TestSecretsAreAskedForWhenRead(t *testing.T) {
	d := new(calls)
	if got, err := (secret{"password", 3}).text(t.Context(), d); got != "hush\n" || err != nil || d.got != "session 3 true;" {
		t.Errorf("password %q, %v, asked %q", got, err, d.got)
	}
	if got, err := (secret{"password_in", 3}).text(t.Context(), d); got != "(null)\n" || err != nil {
		t.Errorf("no password: %q, %v", got, err)
	}
}
