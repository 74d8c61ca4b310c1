package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/goiscsi/goiscsi/initiator/attach"
)

// An attachSpec says what is to be offered and how.
type attachSpec struct {
	sid      int
	lun      uint64 // the kernel's number
	label    string // ip-…-iscsi-…-lun-N, or lun-N of the sid where that cannot be a name
	backend  string // identifier that stays with a kernel device
	geo      geometry
	known    int64 // size in bytes that a device to be adopted has
	vol      attach.Submitter
	deadConn time.Duration // how long the kernel waits for a new daemon
	// lost is called, from any goroutine, when the service has ended without
	// detach or park.
	lost func()
}

// An attacher offers volumes to the machine's users in one way.
type attacher interface {
	// attach offers the volume. ctx bounds the making; the attachment
	// lives until detach or park. created, if not nil, is called as soon
	// as there is something that outlives the process, with its number.
	attach(ctx context.Context, spec attachSpec, created func(index int) error) (attachment, error)
	// adopt takes over what an earlier daemon, or a connection that was lost,
	// left under the number. An error that wraps errNoDevice says that it is
	// not there any more.
	adopt(ctx context.Context, spec attachSpec, index int) (attachment, error)
	// discard removes what an earlier daemon left of a session's unit; nothing
	// there is no error.
	discard(ctx context.Context, sid int, st unitState) error
}

// An attachment is one volume being offered. It is used by one goroutine.
type attachment interface {
	name() string // "nbd0", or "" where there is no block device
	path() string // device node or socket
	index() int   // N of nbdN, or -1
	// resize tells users of a new size in bytes.
	resize(ctx context.Context, size int64) error
	// detach removes the device for good. With flush, dirty pages are
	// written first. before is called at the beginning: an exclusive open of
	// the device has to end by then, as the device goes with its last user.
	// It returns when the device is gone or ctx has ended.
	detach(ctx context.Context, flush bool, before func()) error
	// park ends the service but leaves what another daemon can adopt. With
	// drain, requests in flight are finished first, as long as ctx lasts;
	// what is left then is given up without an answer.
	park(ctx context.Context, drain bool)
	// ended reports whether the service has ended.
	ended() bool
	// wait returns when nothing of the service is left. A request that the
	// session has not finished keeps it, so it comes after the session's end.
	wait()
}

// errNoDevice says that a kernel device is gone or has become another's.
var errNoDevice = errors.New("the device is gone")
