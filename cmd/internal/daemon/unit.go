package daemon

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// A unit is a logical unit of a session, with what offers it. It belongs to
// the supervisor's goroutine.
type unit struct {
	lun   pdu.LUN
	info  unitInfo
	vol   volume     // nil unless it is a disk that could be opened
	geo   geometry   // of vol when last looked at
	told  int64      // size that the last login or rescan has told of; 0 before
	kind  attachKind // how it is offered; attachNone for what is not a disk
	att   attachment // nil while it is not offered
	link  string     // name of the by-path link, "" where there is none
	err   error      // why it is not offered, although it should be
	state unitState  // as on file
	// inherited says that the device is an earlier daemon's and not taken up
	// yet; of info, only what the file says is known.
	inherited bool
	// reattached is when the connection of the device was last made anew.
	reattached time.Time
}

// running reports whether users can reach the unit.
func (u *unit) running() bool { return u.att != nil }

// is reports whether the unit can be the one that info describes.
func (u *unit) is(info unitInfo) bool {
	if u.inherited {
		return info.disk && u.state.WWID == info.identity()
	}
	return u.info.same(info)
}

func (u *unit) identity() string {
	if u.inherited {
		return u.state.WWID
	}
	return u.info.identity()
}

// device is the unit as listings show it.
func (u *unit) device(m *machine) control.Device {
	d := control.Device{
		LUN: kernelLUN(u.lun), Type: u.info.kind, Vendor: u.info.vendor, Model: u.info.model, Revision: u.info.revision,
		WWID: u.info.wwid, Serial: u.info.serial, Size: u.geo.size, BlockSize: u.geo.blockSize, ReadOnly: u.geo.readOnly,
		State: "running", Attach: control.AttachNone,
	}
	if u.att != nil {
		d.Name, d.Path = u.att.name(), u.att.path()
		d.Attach = string(u.kind)
		switch {
		case u.link == "":
		case d.Name != "":
			d.ByPath = filepath.Join(m.byPath, u.link)
		default:
			d.ByPath = filepath.Join(m.lunDir, socketLink(u.link))
		}
	}
	if u.err != nil {
		d.Error = u.err.Error()
		d.State = "offline"
	}
	if u.inherited {
		d.State = "blocked"
		d.Attach = string(u.kind)
	}
	return d
}

// shownState turns a device's own state into the one its session leaves it:
// the words of the kernel's SCSI layer.
func shownState(own string, s initiator.SessionState) string {
	if own != "running" {
		return own
	}
	switch s {
	case initiator.StateLoggedIn:
		return "running"
	case initiator.StateFailed:
		return "transport-offline"
	case initiator.StateReconnecting, initiator.StateLoggingIn:
		return "blocked"
	}
	return "cancel"
}

// spec says how the unit is to be offered.
func (s *supervisor) spec(u *unit) attachSpec {
	label := u.link
	if label == "" {
		label = fmt.Sprintf("session-%d-lun-%d", s.sid, kernelLUN(u.lun))
	}
	return attachSpec{
		sid: s.sid, lun: kernelLUN(u.lun), label: label, backend: u.state.Backend, geo: u.geo, known: u.state.Size, vol: u.vol,
		deadConn: deadConnTimeout(s.set.recoveryTimeout),
		lost:     func() { s.notify(eventLost) },
	}
}

// deadConnTimeout is how long the kernel keeps requests for a device whose
// daemon is gone: as long as the session would wait for its target, and at
// least a minute, which is more than a restart takes. A session that never
// gives up gets the longest time that the kernel's seconds in an int of jiffies hold safely.
func deadConnTimeout(recovery int) time.Duration {
	const least, most = 60, 24 * 3600
	if recovery < 0 || recovery > most {
		return most * time.Second
	}
	return time.Duration(max(recovery, least)) * time.Second
}

// backendID names a new kernel device of ours. It says which daemon's (the
// instance of the run directory), session's and unit's it is. A device that was
// disconnected while in use can outlive its attachment, so each has a mark of
// its own, too.
func (s *supervisor) backendID(lun pdu.LUN) string {
	return fmt.Sprintf("%s%d:%016x:%s", backendPrefix(s.m.instance), s.sid, uint64(lun), randomMark(3))
}

// backendPrefix is what begins the identifier of each device of an instance.
func backendPrefix(instance string) string { return "iscsid:" + instance + ":" }

// ourBackend reports whether an identifier is one of the instance's.
func ourBackend(instance, id string) bool { return strings.HasPrefix(id, backendPrefix(instance)) }
