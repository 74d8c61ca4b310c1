//go:build linux

package manager

import (
	"cmp"
	"path/filepath"
	"slices"

	"github.com/goiscsi/goiscsi/initiator"
)

// The words that open-iscsi has for the states of a session; they are what
// iscsid's listing says.
var (
	connStates = map[initiator.ConnState]string{
		initiator.ConnFree: "FREE", initiator.ConnWait: "TRANSPORT WAIT", initiator.ConnConnecting: "TRANSPORT WAIT",
		initiator.ConnLoggingIn: "IN LOGIN", initiator.ConnLoggedIn: ConnLoggedIn,
		initiator.ConnLogoutRequested: "LOGOUT REQUESTED", initiator.ConnLoggingOut: "IN LOGOUT",
	}
	sessionStates = map[initiator.SessionState]string{
		initiator.StateLoggedIn: SessionLoggedIn, initiator.StateReconnecting: "FAILED", initiator.StateFailed: "FAILED",
	}
)

// view describes the session as it is now; false says that there is none.
func (s *localSession) view() (Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return Session{}, false
	}
	i := s.session.Info()
	v := Session{
		SID: s.sid, Host: s.sid, Target: i.Target, TPGT: i.TPGT,
		Portal: portalOf(i.Portal), Persistent: portalOf(i.Persistent),
		Iface:     Iface{Name: ifaceName(s.target), Transport: "tcp", InitiatorName: i.InitiatorName, NetIface: s.target.NetIface},
		ConnState: connStates[i.ConnState], SessionState: cmp.Or(sessionStates[i.State], "FREE"), InternalState: InternalNoChange,
		Recoveries: int(i.Recoveries), ConnRecoveries: int(i.ConnectionRecoveries), Created: i.Created,
	}
	if i.LastError != nil {
		v.LastError = i.LastError.Error()
	}
	for _, d := range s.disks {
		v.Devices = append(v.Devices, d.device())
	}
	slices.SortFunc(v.Devices, func(a, b Device) int { return cmp.Compare(a.LUN, b.LUN) })
	return v, true
}

// device describes a disk as it is now.
func (d *localDisk) device() Device {
	info := d.vol.Info()
	lun, ok := d.vol.LUN().Number()
	if !ok {
		lun = uint64(d.vol.LUN())
	}
	v := Device{
		LUN: lun, Type: info.Type.String(), Vendor: info.Vendor, Model: info.Product, Revision: info.Revision,
		WWID: info.Identity.WWID, Serial: info.Identity.Serial, Size: d.vol.Size(), BlockSize: d.vol.BlockSize(),
		ReadOnly: d.vol.ReadOnly(), State: "running", Attach: AttachNone,
	}
	if d.dev == nil {
		return v
	}
	v.Path, v.Attach = d.dev.Path(), AttachSocket
	if d.dev.Handle().Index >= 0 {
		v.Attach, v.Name = AttachNBD, filepath.Base(v.Path)
	}
	if err := d.dev.Err(); err != nil {
		v.Error = err.Error()
	}
	return v
}
