// Package targets starts real iSCSI targets for tests and stops them again:
// tgt's daemon (StartTGT), the kernel's LIO through configfs (StartLIO, only
// where the test is root on a kernel that may be changed, as in a guest), and
// this project's own iscsi-target (StartOwn).
//
// Several tests and several people may run targets on one machine at the same
// time: every target here has portals on free loopback ports, unless the
// caller names them, and control channels of its own, and only processes that
// it started are ended, by their process id.
package targets

import "fmt"

// A LUN is one logical unit of a target.
type LUN struct {
	Number   int
	Path     string // backing file or device, must exist
	Memory   int64  // bytes of memory instead; iscsi-target alone can do that
	ReadOnly bool
	// BlockSize in bytes; 0 means 512.
	BlockSize int
}

// CHAP names an account. For mutual authentication a target has a second one
// with which it answers for itself.
type CHAP struct{ Username, Password string }

// A Target is what is created on a target's server.
type Target struct {
	Name     string
	LUNs     []LUN
	Incoming *CHAP // what the initiator must show; nil asks for nothing
	Outgoing *CHAP // what the target shows in turn; nil for nothing
}

// A PortalAddr is where a target listens.
type PortalAddr struct {
	Host string // without brackets
	Port int
}

// String returns the portal in the notation of iscsiadm -p.
func (p PortalAddr) String() string {
	if isV6(p.Host) {
		return fmt.Sprintf("[%s]:%d", p.Host, p.Port)
	}
	return fmt.Sprintf("%s:%d", p.Host, p.Port)
}

func isV6(host string) bool {
	for i := range len(host) {
		if host[i] == ':' {
			return true
		}
	}
	return false
}
