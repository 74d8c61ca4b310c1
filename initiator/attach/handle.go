//go:build linux

package attach

import (
	"github.com/goiscsi/goiscsi/initiator"
)

// A Handle is what a new process needs to take up a kernel device that an earlier
// one left, or left behind when it died. It holds no secret; store it as JSON.
type Handle struct {
	Index     int    `json:"index"`   // N of /dev/nbdN
	BackendID string `json:"backend"` // what the kernel knows the device by
	Size      int64  `json:"size"`    // bytes

	InitiatorName string             `json:"initiator_name"` // our name in the session
	TargetName    string             `json:"target"`         // name of the target
	Portal        string             `json:"portal"`         // "192.0.2.1:3260"
	LUN           uint64             `json:"lun"`            // number of the logical unit
	ISID          string             `json:"isid"`           // of the session, so that the new one takes its place
	Identity      initiator.Identity `json:"identity"`
}

// Target returns what Connect needs to reach the disk of the handle again: the
// same session, from the target's point of view, and the same disk, or ErrIdentity.
// Credentials and everything else about the session are the caller's to set.
func (h Handle) Target() (initiator.Target, error) {
	portal, err := initiator.ParsePortal(h.Portal)
	if err != nil {
		return initiator.Target{}, err
	}
	isid, err := initiator.ParseISID(h.ISID)
	if err != nil {
		return initiator.Target{}, err
	}
	return initiator.Target{
		Name: h.TargetName, Portals: []initiator.Portal{portal}, LUN: h.LUN, InitiatorName: h.InitiatorName,
		Session: initiator.Config{ISID: isid},
		Volume:  initiator.VolumeOptions{Identity: h.Identity},
	}, nil
}

// Handle returns what Reattach needs. It changes with the size of the disk.
func (d *Device) Handle() Handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.handle
}

// newHandle describes a volume that has no device yet.
func newHandle(v *initiator.Volume) Handle {
	i := v.Session().Info()
	lun, ok := v.LUN().Number()
	if !ok {
		lun = uint64(v.LUN()) // as pdu.LUNFromNumber takes it
	}
	return Handle{
		Index: -1, InitiatorName: i.InitiatorName, TargetName: i.Target, Portal: i.Persistent.Address(),
		LUN: lun, ISID: i.ISID.String(), Identity: v.Identity(), Size: v.Size(),
	}
}
