package manager

import (
	"context"

	"github.com/goiscsi/goiscsi/initiator"
)

// A Manager gives programs the disks of iSCSI targets as devices of this
// machine. A Client leaves the work to iscsid, a Local does it in this process; the
// interface is small so that tests can have one of their own.
//
// Methods may be called from any goroutine, and by several programs at a time:
// logins to one target do not get in each other's way.
type Manager interface {
	// Connect logs in to a target unless that is done, and returns its disk when
	// it can be used. Connecting to what is connected returns the same disk.
	// ErrNoLUN says that the target has no such disk.
	Connect(ctx context.Context, t initiator.Target) (*Disk, error)

	// Disconnect undoes Connect. A target that is not connected is no error. A
	// disk in use is left as it is: ErrInUse.
	Disconnect(ctx context.Context, t initiator.Target) error

	// Sessions returns the sessions ordered by SID, with their disks.
	Sessions(ctx context.Context, q SessionQuery) ([]Session, error)

	// Rescan looks for changes of the logical units of a session.
	// ErrNotFound says that there is no such session.
	Rescan(ctx context.Context, sid int) (*RescanResult, error)
}

// A Disk is a device that Connect has made.
type Disk struct {
	Device
	SID    int    // of the session
	Target string // name of the target
}
