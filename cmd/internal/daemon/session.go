package daemon

import (
	"context"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/attach"
	"github.com/goiscsi/goiscsi/pdu"
)

// A session is what a supervisor needs of an initiator.Session; its methods
// mean the same. realSession is the one in use, tests have their own.
type session interface {
	info() initiator.Info
	stats() initiator.Stats
	trace() (*initiator.Trace, error)
	luns(ctx context.Context) ([]pdu.LUN, error)
	inquire(ctx context.Context, lun pdu.LUN) (unitInfo, error)
	// open opens the disk that info describes, or with no identity in it whatever
	// disk is there. event is called, from any goroutine, with what its sense data
	// ask for.
	open(ctx context.Context, lun pdu.LUN, info unitInfo, event func(uint32)) (volume, error)
	logout(ctx context.Context) error
	close() error
	done() <-chan struct{}
	err() error
}

// A unitInfo is what a logical unit says of itself.
type unitInfo struct {
	present  bool   // there is something
	kind     string // "disk", "controller", …
	disk     bool   // direct access block device
	vendor   string
	model    string
	revision string
	serial   string // VPD page 80h
	wwid     string // designator of VPD page 83h
	id       initiator.Identity
}

// identity is what tells the unit from any other one. It is empty where the
// unit has nothing that does.
func (i unitInfo) identity() string {
	switch {
	case i.wwid != "":
		return i.wwid
	case i.serial != "":
		return "serial." + i.vendor + "." + i.model + "." + i.serial
	}
	return ""
}

// same reports whether the unit can be the one described by other. Where one of the two
// has an identity, that decides; else vendor and model do, as there is nothing better.
func (i unitInfo) same(other unitInfo) bool {
	a, b := i.identity(), other.identity()
	if a != "" || b != "" {
		return a == b && i.disk == other.disk
	}
	return i.kind == other.kind && i.vendor == other.vendor && i.model == other.model
}

// A geometry is what a volume is like at one moment.
type geometry struct {
	size       int64 // bytes
	blockSize  int   // bytes
	readOnly   bool
	flush      bool // it has a volatile cache, so flushes mean something
	fua        bool
	trim       bool
	zeroes     bool
	rotational bool
}

// A volume is a disk that requests can be sent to.
type volume interface {
	attach.Submitter
	geometry() geometry
	stats() initiator.VolumeStats
	// info is what the unit said of itself when it was opened.
	info() unitInfo
	// refresh asks the target for size and write protection anew.
	refresh(ctx context.Context) error
	// close gives the volume up; it waits for what the unit is doing.
	close()
}

// A dialFunc logs in to a target.
type dialFunc func(context.Context, initiator.Config) (session, error)
