// Package portal reads and writes the notation for an iSCSI portal that
// open-iscsi has, "host[:port][,tpgt]", where an IPv6 address with a port
// stands in brackets.
package portal

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// Ports that a portal has when none is written.
const (
	DefaultPort     = 3260 // iSCSI (RFC 7143 section 4.2.7.1)
	DefaultISNSPort = 3205 // iSNS (RFC 4171)
)

// maxHostLen is the length of the longest DNS name.
const maxHostLen = 253

// A Portal is what the text says and no more: what was not written is marked
// so.
type Portal struct {
	// Host is a name or address without brackets; an IPv6 address may have a
	// zone.
	Host string
	// Port is 1 to 65535, or 0 when none was written.
	Port int
	// TPGT is the target portal group tag, 0 to 65535, or -1 when none was
	// written.
	TPGT int
}

// A ParseError says why a text is not a portal.
type ParseError struct {
	Text   string
	Reason string
}

// Error implements error.
func (e *ParseError) Error() string { return fmt.Sprintf("invalid portal %q: %s", e.Text, e.Reason) }

// ISCSICode returns the code for invalid parameters.
func (e *ParseError) ISCSICode() errcode.Code { return errcode.Inval }

// Parse reads "host", "host:port", "[v6]", "[v6]:port" and "v6", each with or
// without ",tpgt". Open-iscsi takes any text for a port; here it must be one.
// The error is a *ParseError.
func Parse(s string) (Portal, error) {
	p := Portal{TPGT: -1}
	bad := func(reason string) (Portal, error) { return Portal{}, &ParseError{Text: s, Reason: reason} }

	rest := s
	if before, tag, ok := cutLast(s, ','); ok {
		n, err := strconv.ParseUint(tag, 10, 16)
		if err != nil {
			return bad("target portal group tag is not a number from 0 to 65535")
		}
		p.TPGT, rest = int(n), before
	}

	var port string
	var hasPort bool
	switch {
	case strings.HasPrefix(rest, "["):
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			return bad("no closing bracket")
		}
		p.Host = rest[1:end]
		switch after := rest[end+1:]; {
		case after == "":
		case after[0] == ':':
			port, hasPort = after[1:], true
		default:
			return bad("only a port may follow the bracket")
		}
	case strings.Count(rest, ":") > 1:
		if _, err := netip.ParseAddr(rest); err != nil {
			return bad("not an IPv6 address")
		}
		p.Host = rest
	default:
		p.Host, port, hasPort = strings.Cut(rest, ":")
	}

	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return bad("port is not a number from 1 to 65535")
		}
		p.Port = int(n)
	}
	if reason := CheckHost(p.Host); reason != "" {
		return bad(reason)
	}
	return p, nil
}

// cutLast cuts s around the last sep.
func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// CheckHost says what keeps h from being a host name or address that may be
// stored, printed and made part of a file name, or nothing.
func CheckHost(h string) string {
	switch {
	case h == "":
		return "no host"
	case len(h) > maxHostLen:
		return "host name is too long"
	case h == "." || h == "..":
		return "not a host name"
	}
	for i := range len(h) {
		switch c := h[i]; c {
		case '/', '\\', ',', '[', ']', '"', '\'':
			return "host name has a character that is not allowed"
		default:
			if c <= ' ' || c >= 0x7f {
				return "host name has a character that is not allowed"
			}
		}
	}
	return ""
}

// WithPort returns p with port where p has none.
func (p Portal) WithPort(port int) Portal {
	if p.Port == 0 {
		p.Port = port
	}
	return p
}

// String returns the portal as Parse reads it.
func (p Portal) String() string {
	s := p.Host
	if strings.Contains(s, ":") {
		s = "[" + s + "]"
	}
	if p.Port != 0 {
		s += ":" + strconv.Itoa(p.Port)
	}
	if p.TPGT >= 0 {
		s += "," + strconv.Itoa(p.TPGT)
	}
	return s
}

// Address returns "host:port" as the net package wants it.
func (p Portal) Address() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) }

// ListHost returns h as open-iscsi prints it in lists and trees: in brackets
// when it has no dot, be it an IPv6 address or not.
func ListHost(h string) string {
	if strings.Contains(h, ".") {
		return h
	}
	return "[" + h + "]"
}

// Same reports whether a and b are the same host without asking DNS: equal
// texts, names that differ in case, or two notations of one address.
func Same(a, b string) bool {
	if a == b || !strings.Contains(a, "%") && strings.EqualFold(a, b) {
		return true
	}
	x, err := netip.ParseAddr(a)
	if err != nil {
		return false
	}
	y, err := netip.ParseAddr(b)
	return err == nil && x.Unmap() == y.Unmap()
}
