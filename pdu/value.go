package pdu

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
)

// ParseNumber parses a numerical-value: a decimal-constant, or a hex-constant
// that begins with 0x or 0X (RFC 7143 section 6.1).
func ParseNumber(s string) (uint64, error) {
	base := 10
	digits := s
	if hasPrefixFold(s, "0x") {
		base, digits = 16, s[2:]
	} else if len(s) > 1 && s[0] == '0' {
		return 0, textErr("number", "decimal with a leading zero")
	}
	for i := range len(digits) { // ParseUint would accept a sign or _
		if !isDigit(digits[i], base) {
			return 0, textErr("number", "not a digit")
		}
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return 0, textErr("number", "empty or too great")
	}
	return n, nil
}

// FormatNumber returns n as a decimal-constant.
func FormatNumber(n uint64) string { return strconv.FormatUint(n, 10) }

func isDigit(c byte, base int) bool {
	return '0' <= c && c <= '9' || base == 16 && ('a' <= c && c <= 'f' || 'A' <= c && c <= 'F')
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// ParseBinary parses a binary-value: a hex-constant behind 0x, a
// base64-constant behind 0b, or a decimal-constant, which stands for at most
// 64 bits and yields the fewest bytes that hold the number, most significant
// first (RFC 7143 section 6.1). A hex-constant with an odd number of digits
// begins with half a byte. A result longer than limit bytes is an error;
// nothing is allocated for it.
func ParseBinary(s string, limit int) ([]byte, error) {
	switch {
	case hasPrefixFold(s, "0x"):
		return parseHex(s[2:], limit)
	case hasPrefixFold(s, "0b"):
		return parseBase64(s[2:], limit)
	}
	n, err := ParseNumber(s)
	if err != nil {
		return nil, err
	}
	var b []byte
	for shift := 56; shift >= 0; shift -= 8 {
		if c := byte(n >> shift); c != 0 || len(b) > 0 || shift == 0 {
			b = append(b, c)
		}
	}
	if len(b) > limit {
		return nil, textErr("binary value", "too long")
	}
	return b, nil
}

func parseHex(s string, limit int) ([]byte, error) {
	switch {
	case s == "":
		return nil, textErr("binary value", "no digits")
	case (len(s)+1)/2 > limit:
		return nil, textErr("binary value", "too long")
	case len(s)%2 != 0:
		s = "0" + s
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, textErr("binary value", "not a hexadecimal digit")
	}
	return b, nil
}

func parseBase64(s string, limit int) ([]byte, error) {
	s = strings.TrimRight(s, "=") // padding is required, but not always sent
	switch n := base64.RawStdEncoding.DecodedLen(len(s)); {
	case s == "":
		return nil, textErr("binary value", "no digits")
	case n > limit:
		return nil, textErr("binary value", "too long")
	case strings.ContainsAny(s, "\r\n"): // which the decoder skips
		return nil, textErr("binary value", "not a base64 digit")
	}
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return nil, textErr("binary value", "not base64")
	}
	return b, nil
}

// FormatHex returns b as a hex-constant in lower case.
func FormatHex(b []byte) string { return "0x" + hex.EncodeToString(b) }

// FormatBase64 returns b as a base64-constant with padding.
func FormatBase64(b []byte) string { return "0b" + base64.StdEncoding.EncodeToString(b) }

// ParseBool parses a boolean-value, "Yes" or "No".
func ParseBool(s string) (bool, error) {
	switch s {
	case ValueYes:
		return true, nil
	case ValueNo:
		return false, nil
	}
	return false, textErr("boolean", "neither Yes nor No")
}

// FormatBool returns "Yes" or "No".
func FormatBool(b bool) string {
	if b {
		return ValueYes
	}
	return ValueNo
}

// maxListLength is more than any list key of the RFC could have.
const maxListLength = 64

// ParseList parses a list-of-values: text-values separated by commas, in
// order of preference. None may be empty, and more than 64 are an error.
func ParseList(s string) ([]string, error) {
	if strings.Count(s, ",") >= maxListLength {
		return nil, textErr("list", "too long")
	}
	list := strings.Split(s, ",")
	for _, v := range list {
		if v == "" {
			return nil, textErr("list", "empty element")
		}
	}
	return list, nil
}

// FormatList joins values with commas.
func FormatList(values ...string) string { return strings.Join(values, ",") }

// ParseRange parses a numerical-range "low~high".
func ParseRange(s string) (low, high uint64, err error) {
	l, h, ok := strings.Cut(s, "~")
	if !ok {
		return 0, 0, textErr("range", "no tilde")
	}
	if low, err = ParseNumber(l); err != nil {
		return 0, 0, err
	}
	if high, err = ParseNumber(h); err != nil {
		return 0, 0, err
	}
	if high < low {
		return 0, 0, textErr("range", "upper bound is below the lower one")
	}
	return low, high, nil
}

// FormatRange returns "low~high".
func FormatRange(low, high uint64) string { return FormatNumber(low) + "~" + FormatNumber(high) }
