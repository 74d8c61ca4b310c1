// Package iname makes up names for iSCSI initiators.
package iname

import (
	"crypto/rand"
	"fmt"

	"github.com/goiscsi/goiscsi/pdu"
)

const (
	// DefaultPrefix is what names begin with unless something else is asked
	// for. It is open-iscsi's, so that names look as administrators know
	// them.
	DefaultPrefix = "iqn.2016-04.com.open-iscsi"
	// MaxPrefixLen leaves room in the 223 bytes of a name (RFC 7143 section
	// 4.2.7.1) for the colon and twelve digits.
	MaxPrefixLen = 210
)

// A PrefixError refuses a prefix that is too long.
type PrefixError struct{ Len int }

// Error implements error with open-iscsi's text.
func (e *PrefixError) Error() string { return "prefix too long" }

// Generate returns prefix, a colon and twelve random hexadecimal digits; an
// empty prefix is DefaultPrefix. The error is a *PrefixError, or that of
// pdu.ValidateName for a prefix that no name can begin with.
func Generate(prefix string) (string, error) {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if len(prefix) > MaxPrefixLen {
		return "", &PrefixError{Len: len(prefix)}
	}
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	name := fmt.Sprintf("%s:%x", prefix, b[:])
	if err := pdu.ValidateName(name); err != nil {
		return "", err
	}
	return name, nil
}
