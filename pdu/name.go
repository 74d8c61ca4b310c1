package pdu

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxNameLength is the greatest length of an iSCSI name in bytes (RFC 7143
// section 4.2.7.2).
const MaxNameLength = 223

// ValidateName checks an iSCSI name that came from a peer. It refuses what
// could do harm in a record, a path or a terminal: an empty or overlong name,
// bytes that are no UTF-8, control and blank characters, slashes, and a first
// character other than a letter or digit. It does not ask for one of the
// types iqn., eui. and naa., nor for their inner structure: targets with
// names like iqn.2016-01-com.example.tg1 are in use. The error is a
// *FormatError.
func ValidateName(name string) error {
	switch {
	case name == "":
		return textErr("name", "is empty")
	case len(name) > MaxNameLength:
		return textErr("name", "is longer than 223 bytes")
	case !utf8.ValidString(name):
		return textErr("name", "is not utf-8")
	}
	for i, r := range name {
		if i == 0 && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return textErr("name", "does not begin with a letter or digit")
		}
		if !nameRune(r) {
			return textErr("name", "has a character that names must not have")
		}
	}
	return nil
}

// nameRune reports whether r may stand in a name. Of ASCII those are letters,
// digits, dot, dash and colon by RFC 3722; the underscore and a few more are
// tolerated, since targets use them.
func nameRune(r rune) bool {
	if r >= utf8.RuneSelf {
		return unicode.IsPrint(r) // no space separators but U+0020
	}
	return r > ' ' && r < 0x7f && !strings.ContainsRune(`/\,;"'`+"`$&|<>*?(){}[]!^~#%=", r)
}

// NormalizeName returns a name that a person typed in the form in which names
// are compared: in lower case, as the stringprep profile of RFC 3722 maps it,
// and without blanks around it.
func NormalizeName(name string) string { return strings.ToLower(strings.TrimSpace(name)) }
