package initiator

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/internal/portal"
)

// DefaultPort is the TCP port of iSCSI registered with IANA.
const DefaultPort = portal.DefaultPort

// UnknownTPGT is the portal group tag of a portal whose tag is not known.
const UnknownTPGT = -1

// A Portal is the network address of a target and the portal group it
// belongs to (RFC 7143 section 4.3.1).
type Portal struct {
	// Host is an IPv4 or IPv6 address, the latter without brackets and with
	// its zone where it has one, or a host name.
	Host string

	// Port is the TCP port; zero means DefaultPort.
	Port uint16

	// TPGT is the target portal group tag, 0 to 65535, or UnknownTPGT. The
	// zero value is tag 0, not "unknown"; ParsePortal sets UnknownTPGT where the
	// text has none. A login to a portal that turns out to belong to another
	// group fails with a *PortalGroupError; tag 0 is not compared.
	TPGT int
}

// ParsePortal parses a portal as it stands in commands, records and
// TargetAddress keys: "host", "host:port", "host:port,tpgt", "[v6]",
// "[v6]:port,tpgt", and a bare IPv6 address with or without zone. Port
// defaults to DefaultPort, the portal group tag to UnknownTPGT.
func ParsePortal(s string) (Portal, error) {
	parsed, err := portal.Parse(s)
	if err != nil {
		reason := err.Error()
		if pe := (*portal.ParseError)(nil); errors.As(err, &pe) {
			reason = pe.Reason
		}
		return Portal{}, &PortalError{Text: s, Reason: reason}
	}
	reason := checkHost(parsed.Host)
	if ip, err := netip.ParseAddr(parsed.Host); strings.HasPrefix(s, "[") && (err != nil || !ip.Is6()) {
		reason = "not an IPv6 address between brackets"
	}
	if reason != "" {
		return Portal{}, &PortalError{Text: s, Reason: reason}
	}
	parsed = parsed.WithPort(DefaultPort)
	return Portal{Host: parsed.Host, Port: uint16(parsed.Port), TPGT: parsed.TPGT}, nil
}

// zoned returns p, as the portal at asked named it, for our own use: a
// link-local IPv6 address means nothing without a zone (RFC 4007 section 6), and
// the zone is ours to know, not the target's. It is that of the address that was
// asked.
func (p Portal) zoned(asked Portal) Portal {
	ip, err := netip.ParseAddr(p.Host)
	if err != nil || !ip.Is6() || !ip.IsLinkLocalUnicast() || ip.Zone() != "" {
		return p
	}
	if from, err := netip.ParseAddr(asked.Host); err == nil && from.Zone() != "" {
		p.Host = ip.WithZone(from.Zone()).String()
	}
	return p
}

// checkHost returns why host can be neither an address nor a host name, or "".
// Hosts come from the wire and end in file names and terminals.
func checkHost(host string) string {
	if reason := portal.CheckHost(host); reason != "" {
		return reason
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if z := ip.Zone(); strings.ContainsFunc(z, func(r rune) bool { return !isHostRune(r) }) {
			return "invalid character in zone"
		}
		return ""
	}
	if strings.ContainsFunc(host, func(r rune) bool { return !isHostRune(r) }) {
		return "invalid character in host name"
	}
	if strings.HasPrefix(host, "-") || strings.HasPrefix(host, ".") || strings.Contains(host, "..") {
		return "invalid host name"
	}
	return ""
}

func isHostRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
		r == '-' || r == '.' || r == '_'
}

// port returns the port with its default.
func (p Portal) port() uint16 {
	if p.Port == 0 {
		return DefaultPort
	}
	return p.Port
}

// Address returns "host:port" with brackets around an IPv6 address, as
// net.Dial takes it.
func (p Portal) Address() string {
	return net.JoinHostPort(p.Host, strconv.Itoa(int(p.port())))
}

// String returns "host:port" or "host:port,tpgt" with brackets around an IPv6
// address.
func (p Portal) String() string {
	if p.TPGT < 0 {
		return p.Address()
	}
	return p.Address() + "," + strconv.Itoa(p.TPGT)
}

// IsZero reports whether p names no host.
func (p Portal) IsZero() bool { return p.Host == "" }

// A PortalError is a text that is not a portal.
type PortalError struct {
	Text   string // as given; may hold any byte
	Reason string // what is wrong with it
}

// Error implements error.
func (e *PortalError) Error() string {
	return fmt.Sprintf("invalid portal %q: %s", e.Text, e.Reason)
}

// Is makes errors.Is find ErrInvalid.
func (e *PortalError) Is(target error) bool { return target == ErrInvalid }

// ISCSICode returns the code for an invalid parameter.
func (e *PortalError) ISCSICode() Code { return CodeInvalid }
