package compatsysfs

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"syscall"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// Daemon is what the view needs of iscsid; *control.Client is one.
type Daemon interface {
	Sessions(ctx context.Context, q control.SessionQuery) ([]control.Session, error)
	Session(ctx context.Context, sid int, q control.SessionQuery) (*control.Session, error)
	Rescan(ctx context.Context, sid int) (*control.RescanResult, error)
	RescanLUN(ctx context.Context, sid int, lun uint64) (*control.RescanResult, error)
	RemoveLUN(ctx context.Context, sid int, lun uint64, safe bool) error
}

// A verb is what writing to a file does.
type verb uint8

const (
	verbNone   verb = iota
	verbScan        // scan of a SCSI host
	verbDelete      // delete of a SCSI device
	verbRescan      // rescan of a SCSI device
	// The text is kept and shown, and has no effect.
	verbState   // state of a SCSI device
	verbTimeout // timeout of a SCSI device, in seconds
)

// An action is what writing to a file does, and to what.
type action struct {
	verb verb
	sid  int
	lun  uint64
}

// do does what writing text to the file asks for. kept is what the file shows
// from now on, "" where it shows nothing of it.
func (a action) do(ctx context.Context, d Daemon, text string) (kept string, err error) {
	text = strings.TrimSpace(text)
	switch a.verb {
	case verbScan:
		lun, all, ours, err := parseScan(text)
		switch {
		case err != nil || !ours:
			return "", err
		case all:
			_, err = d.Rescan(ctx, a.sid)
		default:
			_, err = d.RescanLUN(ctx, a.sid, lun)
		}
		return "", err
	case verbDelete:
		return "", d.RemoveLUN(ctx, a.sid, a.lun, false)
	case verbRescan:
		_, err := d.RescanLUN(ctx, a.sid, a.lun)
		return "", err
	case verbState:
		if text != "running" && text != "offline" {
			return "", syscall.EINVAL
		}
		return text + "\n", nil
	case verbTimeout:
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return "", syscall.EINVAL
		}
		return strconv.FormatUint(n, 10) + "\n", nil
	}
	return "", syscall.EACCES
}

// parseScan understands what is written to the scan file of a SCSI host:
// channel, target and LUN, with "-" for all of them. A session has one
// target, number 0 of channel 0; ours is false for another one, which the
// kernel has nothing to say about either.
func parseScan(text string) (lun uint64, all, ours bool, err error) {
	f := strings.Fields(text)
	if len(f) != 3 {
		return 0, false, false, syscall.EINVAL
	}
	ours = true
	for _, s := range f[:2] {
		if s == "-" {
			continue
		}
		n, err := strconv.ParseUint(s, 0, 32)
		if err != nil {
			return 0, false, false, syscall.EINVAL
		}
		ours = ours && n == 0
	}
	if f[2] == "-" {
		return 0, true, ours, nil
	}
	if lun, err = strconv.ParseUint(f[2], 0, 64); err != nil {
		return 0, false, false, syscall.EINVAL
	}
	return lun, false, ours, nil
}

// errnoOf is the errno that a program gets for what iscsid, or the real file
// system, has refused.
func errnoOf(err error) syscall.Errno {
	var (
		errno syscall.Errno
		conn  *control.ConnError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &conn): // not the errno of its socket
		return syscall.EIO
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	}
	switch errcode.Of(err) {
	case errcode.SessNotFound, errcode.NoObjsFound, errcode.HostNotFound:
		return syscall.ENODEV
	case errcode.SessionNotConnected:
		return syscall.ENOTCONN
	case errcode.Busy:
		return syscall.EBUSY
	case errcode.Access:
		return syscall.EACCES
	case errcode.Inval:
		return syscall.EINVAL
	case errcode.TransTimeout, errcode.PDUTimeout, errcode.ReqTimedOut:
		return syscall.ETIMEDOUT
	}
	return syscall.EIO
}

// A secret is a text that only a look at the session with its secrets has.
type secret struct {
	name string // "", "password" or "password_in"
	sid  int
}

// text asks for the secret and returns it as the kernel shows it.
func (s secret) text(ctx context.Context, d Daemon) (string, error) {
	sess, err := d.Session(ctx, s.sid, control.SessionQuery{Secrets: true})
	if err != nil {
		return "", err
	}
	v := ""
	if c := sess.CHAP; c != nil {
		switch s.name {
		case "password":
			v = c.Password
		case "password_in":
			v = c.PasswordIn
		}
	}
	return orNull(v) + "\n", nil
}

// orNull is how the kernel prints a string that may not be set.
func orNull(s string) string {
	if s == "" {
		return "(null)"
	}
	return s
}
