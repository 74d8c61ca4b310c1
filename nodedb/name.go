package nodedb

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goiscsi/goiscsi/internal/portal"
)

// Limits on the names that make up keys.
const (
	MaxTargetLen = 223 // RFC 7143 section 4.2.7.1
	MaxIfaceLen  = 64
)

// ValidateTarget checks a target name, wherever it came from. It must not be
// longer than 223 bytes and have nothing in it that could leave a directory,
// forge a line or garble a terminal: slashes, blanks, control and invisible
// characters. It need not be well-formed, because names in use are not: the
// error is a *NameError.
func ValidateTarget(name string) error {
	if reason := checkName(name, MaxTargetLen); reason != "" {
		return &NameError{What: "target name", Name: name, Reason: reason}
	}
	return nil
}

// ValidateAddress checks a host name or address, an IPv6 address being without
// brackets and possibly with a zone. The error is a *NameError.
func ValidateAddress(addr string) error {
	if reason := portal.CheckHost(addr); reason != "" {
		return &NameError{What: "address", Name: addr, Reason: reason}
	}
	return nil
}

// ValidateIface checks the name of an interface record. The error is a
// *NameError.
func ValidateIface(name string) error {
	reason := checkName(name, MaxIfaceLen)
	if reason == "" && strings.ContainsRune(name, ',') {
		reason = "comma"
	}
	if reason != "" {
		return &NameError{What: "interface name", Name: name, Reason: reason}
	}
	return nil
}

func validatePort(port int) error {
	if port < 1 || port > 65535 {
		return &NameError{What: "port", Name: itoa(port), Reason: "not from 1 to 65535"}
	}
	return nil
}

func checkName(name string, limit int) string {
	switch {
	case name == "":
		return "empty"
	case len(name) > limit:
		return "longer than " + itoa(limit) + " bytes"
	case name == "." || name == "..":
		return "not a name"
	case !utf8.ValidString(name):
		return "not UTF-8"
	}
	for _, r := range name {
		switch {
		case r == '/' || r == '\\':
			return "slash"
		case r > ' ' && r < 0x7f: // nearly all there is
		case unicode.IsSpace(r):
			return "white space"
		case !unicode.IsGraphic(r):
			return "control character"
		}
	}
	return ""
}
