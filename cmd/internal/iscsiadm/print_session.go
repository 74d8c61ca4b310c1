package iscsiadm

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/portal"
)

// sortAsListed orders sessions as open-iscsi lists them: by the names of
// their directories in sysfs, session1, session10, session2.
func sortAsListed(l []control.Session) {
	slices.SortFunc(l, func(a, b control.Session) int {
		return cmp.Compare(strconv.Itoa(a.SID), strconv.Itoa(b.SID))
	})
}

// printSessions prints the flat list.
func (c *command) printSessions(l []control.Session) {
	for i := range l {
		s := &l[i]
		c.printf("%s: [%d] %s %s (non-flash)\n", orEmpty(s.Iface.Transport), s.SID,
			listPortal(s.Persistent.Address, s.Persistent.Port, s.TPGT), s.Target)
	}
}

// treeParts are the sections of a session tree.
type treeParts struct {
	timeouts   bool // timeouts and CHAP
	negotiated bool
	devices    bool
	host       bool // the line with the host's number among the devices
	secrets    bool // real passwords
	indent     string
}

// sessionLevel returns the parts of `-m session -P level`.
func sessionLevel(level int, secrets bool) treeParts {
	return treeParts{timeouts: level >= 2, negotiated: level >= 2, devices: level >= 3, host: true, secrets: secrets}
}

// hostLevel returns the parts of the sessions in `-m host -P level`.
func hostLevel(level int) treeParts {
	return treeParts{negotiated: level >= 3, devices: level >= 4, indent: "\t"}
}

// printSessionTree prints sessions under their targets. A session that
// follows another one of the same target has no line for the target, and an
// empty one for the portals if these are the same, too.
func (c *command) printSessionTree(l []control.Session, parts treeParts) {
	var prev *control.Session
	for i := range l {
		s := &l[i]
		if prev == nil || prev.Target != s.Target {
			c.printf("%sTarget: %s (non-flash)\n", parts.indent, s.Target)
			prev = nil
		}
		if prev != nil && prev.Portal == s.Portal {
			c.printf("\n")
		} else {
			c.printf("%s\tCurrent Portal: %s\n", parts.indent, listPortal(s.Portal.Address, s.Portal.Port, s.TPGT))
			c.printf("%s\tPersistent Portal: %s\n", parts.indent, listPortal(s.Persistent.Address, s.Persistent.Port, s.TPGT))
		}
		prev = s
		c.printSessionInterface(s, parts)
		if parts.timeouts {
			c.printTimeouts(s, parts)
			c.printCHAP(s, parts)
		}
		if parts.negotiated {
			c.printNegotiated(s, parts)
		}
		if parts.devices {
			c.printDevices(s, parts)
			c.printRecovery(s, parts)
		}
	}
}

// section prints a title between lines of stars.
func (c *command) section(title string, stars int, parts treeParts) {
	const all = "************************"
	c.printf("%s\t\t%s\n%[1]s\t\t%[3]s\n%[1]s\t\t%[2]s\n", parts.indent, all[:stars], title)
}

// field prints one line of a section.
func (c *command) field(parts treeParts, name string, value any) {
	c.printf("%s\t\t%s: %v\n", parts.indent, name, value)
}

func (c *command) printSessionInterface(s *control.Session, parts treeParts) {
	c.section("Interface:", 10, parts)
	c.field(parts, "Iface Name", orEmpty(s.Iface.Name))
	c.field(parts, "Iface Transport", orEmpty(s.Iface.Transport))
	c.field(parts, "Iface Initiatorname", orEmpty(s.Iface.InitiatorName))
	c.field(parts, "Iface IPaddress", listAddress(s.LocalAddress))
	c.field(parts, "Iface HWaddress", orDefault(s.Iface.HWAddress))
	c.field(parts, "Iface Netdev", orDefault(s.Iface.NetIface))
	c.field(parts, "SID", s.SID)
	c.field(parts, "iSCSI Connection State", orUnknown(s.ConnState))
	c.field(parts, "iSCSI Session State", orUnknown(s.SessionState))
	c.field(parts, "Internal iscsid Session State", orUnknown(s.InternalState))
}

// listAddress returns an address in brackets if it is an IPv6 address.
func listAddress(a string) string {
	if a == "" {
		return "<empty>"
	}
	return portal.ListHost(a)
}

func orUnknown(s string) string {
	if s == "" {
		return "Unknown"
	}
	return s
}

func (c *command) printTimeouts(s *control.Session, parts treeParts) {
	c.section("Timeouts:", 9, parts)
	c.field(parts, "Recovery Timeout", s.Timeouts.Recovery)
	c.field(parts, "Target Reset Timeout", s.Timeouts.TargetReset)
	c.field(parts, "LUN Reset Timeout", s.Timeouts.LUNReset)
	c.field(parts, "Abort Timeout", s.Timeouts.Abort)
}

// printCHAP prints asterisks for the passwords, be there one or not, unless
// secrets are wanted.
func (c *command) printCHAP(s *control.Session, parts treeParts) {
	chap := control.CHAP{}
	if s.CHAP != nil {
		chap = *s.CHAP
	}
	password, passwordIn := "********", "********"
	if parts.secrets {
		password, passwordIn = orEmpty(chap.Password), orEmpty(chap.PasswordIn)
	}
	c.section("CHAP:", 5, parts)
	c.field(parts, "username", orEmpty(chap.Username))
	c.field(parts, "password", password)
	c.field(parts, "username_in", orEmpty(chap.UsernameIn))
	c.field(parts, "password_in", passwordIn)
}

// printNegotiated leaves out what is not known.
func (c *command) printNegotiated(s *control.Session, parts treeParts) {
	c.section("Negotiated iSCSI params:", 24, parts)
	n := s.Negotiated
	if n == nil {
		return
	}
	text := func(name, v string) {
		if v != "" {
			c.field(parts, name, v)
		}
	}
	size := func(name string, v int) {
		if v > 0 {
			c.field(parts, name, v)
		}
	}
	text("HeaderDigest", n.HeaderDigest)
	text("DataDigest", n.DataDigest)
	size("MaxRecvDataSegmentLength", n.MaxRecvDataSegmentLength)
	size("MaxXmitDataSegmentLength", n.MaxXmitDataSegmentLength)
	size("FirstBurstLength", n.FirstBurstLength)
	size("MaxBurstLength", n.MaxBurstLength)
	c.field(parts, "ImmediateData", yesNo(n.ImmediateData))
	c.field(parts, "InitialR2T", yesNo(n.InitialR2T))
	size("MaxOutstandingR2T", n.MaxOutstandingR2T)
}

// printDevices prints the logical units by number. A block device stands
// where open-iscsi has its SCSI disk; field 4 of the line is its name.
func (c *command) printDevices(s *control.Session, parts treeParts) {
	c.section("Attached SCSI devices:", 24, parts)
	if parts.host {
		c.printf("%s\t\tHost Number: %d\tState: %s\n", parts.indent, s.Host, hostState(s))
	}
	devices := slices.Clone(s.Devices)
	slices.SortFunc(devices, func(a, b control.Device) int { return cmp.Compare(a.LUN, b.LUN) })
	for _, d := range devices {
		c.printf("%s\t\tscsi%d Channel 00 Id 0 Lun: %d\n", parts.indent, s.Host, d.LUN)
		switch {
		case d.Name != "":
			c.printf("%s\t\t\tAttached scsi disk %s\t\tState: %s\n", parts.indent, d.Name, orUnknown(d.State))
		case d.Attach == control.AttachSocket:
			c.printf("%s\t\t\tAttached nbd socket %s\t\tState: %s\n", parts.indent, d.Path, orUnknown(d.State))
		}
	}
}

// printRecovery tells of the outages of a session, which open-iscsi does not do.
// One that never had any has no such section: its tree is open-iscsi's.
func (c *command) printRecovery(s *control.Session, parts treeParts) {
	if s.Recoveries == 0 && s.ConnRecoveries == 0 && s.LastError == "" && s.InternalState != "REOPEN" {
		return
	}
	c.section("Recovery:", 9, parts)
	c.field(parts, "Recoveries", s.Recoveries)
	if s.ConnRecoveries > 0 {
		c.field(parts, "Connection Recoveries", s.ConnRecoveries)
	}
	last := "none"
	if !s.LastRecovery.IsZero() {
		last = s.LastRecovery.Local().Format(time.RFC3339)
	}
	c.field(parts, "Last Recovery", last)
	c.field(parts, "Last Error", orEmpty(s.LastError))
	which := "Last Outage"
	if s.InternalState == "REOPEN" {
		which = "Present Outage"
		c.field(parts, "Failed Logins", s.FailedLogins)
	}
	outage := time.Duration(s.Outage * float64(time.Second))
	c.field(parts, which, outage.Round(time.Millisecond))
}

// hostState returns the state of the SCSI host that the session stands for.
func hostState(s *control.Session) string {
	if s.HostState == "" {
		return "running"
	}
	return s.HostState
}

// sessionText is the form in which messages name a session.
func sessionText(s *control.Session) string {
	return "[sid: " + strconv.Itoa(s.SID) + ", target: " + s.Target + ", portal: " + s.Persistent.Address + "," + strconv.Itoa(s.Persistent.Port) + "]"
}
