package iscsiadm

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// hostMode shows SCSI hosts. Each session has a host number of its own, so
// the hosts are the sessions in another order; what only adapters have is
// empty, as it is with the kernel's software initiator.
func (c *command) hostMode() error {
	switch c.req.submode {
	case "":
	case "chap", "flashnode", "stats":
		if c.req.submode == "chap" && (c.req.host == "" || c.req.op == 0) {
			return c.fail(errcode.Inval, "CHAP mode requires host no and valid operation")
		}
		if c.req.host == "" {
			return c.fail(errcode.Inval, "%s mode requires host no", strings.ToUpper(c.req.submode))
		}
		return c.fail(errcode.OpNotSupp, "submode %s is for adapters that do iSCSI in hardware", c.req.submode)
	default:
		return c.fail(errcode.Inval, "Invalid submode %s", oneLine(c.req.submode))
	}
	if c.req.level > 4 {
		return c.fail(errcode.Inval, "Invalid info level %d. Try 0 - 4.", c.req.level)
	}
	l, err := c.sessions(control.SessionQuery{})
	if err != nil {
		return err
	}
	if c.req.host != "" {
		on, err := c.onHost(l, c.req.host)
		if err != nil {
			return err
		}
		if c.req.level > 0 { // the flat list is of all hosts, as in open-iscsi
			l = on
		}
	}
	slices.SortFunc(l, func(a, b control.Session) int { return cmp.Compare(a.Host, b.Host) })
	if c.req.json && len(l) > 0 {
		return c.printJSON(jsonHosts(l))
	}
	if c.req.level == 4 {
		c.printVersions()
	}
	if len(l) == 0 {
		return c.fail(errcode.NoObjsFound, "No iSCSI hosts.")
	}
	if c.req.level <= 0 {
		c.printHosts(l)
	} else {
		c.printHostTree(l, c.req.level)
	}
	return nil
}

// onHost returns the sessions of the host that text names by its number or by
// the MAC address that its sessions are bound to.
func (c *command) onHost(l []control.Session, text string) ([]control.Session, error) {
	match := func(s control.Session) bool { return strconv.Itoa(s.Host) == text }
	mac := strings.Contains(text, ":")
	if mac {
		match = func(s control.Session) bool { return strings.EqualFold(s.Iface.HWAddress, text) }
	} else if n, err := strconv.Atoi(text); err != nil || n < 0 {
		return nil, c.fail(errcode.Inval, "Invalid host %s. Must be a number or a MAC address.", oneLine(text))
	}
	var out []control.Session
	for _, s := range l {
		if match(s) {
			out = append(out, s)
		}
	}
	if len(out) == 0 && mac {
		return nil, c.fail(errcode.Inval, "Could not match MAC to host.")
	}
	return out, nil
}

func (c *command) printHosts(l []control.Session) {
	for i := range l {
		s := &l[i]
		c.printf("%s: [%d] %s,[<empty>],<empty> <empty>\n", orEmpty(s.Iface.Transport), s.Host, listAddress(s.LocalAddress))
	}
}

func (c *command) printHostTree(l []control.Session, level int) {
	for i := range l {
		s := &l[i]
		c.printf("Host Number: %d\n\tState: %s\n\tTransport: %s\n", s.Host, hostState(s), orEmpty(s.Iface.Transport))
		c.printf("\tInitiatorname: <empty>\n\tIPaddress: %s\n\tHWaddress: <empty>\n\tNetdev: <empty>\n", listAddress(s.LocalAddress))
		if level >= 2 {
			c.printf("\t*********\n\tSessions:\n\t*********\n")
			c.printSessionTree(l[i:i+1], hostLevel(level))
		}
	}
}

// jsonHost is a host in JSON output.
type jsonHost struct {
	Host      int             `json:"host"`
	State     string          `json:"state"`
	Transport string          `json:"transport"`
	IPAddress string          `json:"ipaddress,omitempty"`
	Session   control.Session `json:"session"`
}

func jsonHosts(l []control.Session) []jsonHost {
	out := make([]jsonHost, len(l))
	for i, s := range l {
		out[i] = jsonHost{Host: s.Host, State: hostState(&s), Transport: s.Iface.Transport, IPAddress: s.LocalAddress, Session: s}
	}
	return out
}
