package pdu

import "strings"

// A KeyValue is one key=value pair of a login or text negotiation (RFC 7143
// section 6.1).
type KeyValue struct {
	Key, Value string
}

// Values that an answer may have instead of a proper one (RFC 7143 section
// 6.2), and such as several keys have.
const (
	ValueNotUnderstood = "NotUnderstood"
	ValueIrrelevant    = "Irrelevant"
	ValueReject        = "Reject"
	ValueNone          = "None"
	ValueYes           = "Yes"
	ValueNo            = "No"
	ValueCRC32C        = "CRC32C"
)

// MaxKeyLength is the greatest length of a key-name in bytes.
const MaxKeyLength = 63

// TextLimits bounds what ParseText accepts.
type TextLimits struct {
	// MaxPairs is the greatest number of pairs; 0 means 1024.
	MaxPairs int
	// MaxValueLength is the greatest length of a value in bytes; 0 means
	// 8192. The RFC allows 255 bytes of a simple value, before encoding,
	// but lists and authentication items are longer.
	MaxValueLength int
	// Strict refuses what peers in the field get wrong harmlessly: a
	// missing null behind the last pair, superfluous nulls, and a key-name
	// that does not begin with a capital letter.
	Strict bool
}

const (
	defaultMaxPairs       = 1024
	defaultMaxValueLength = 8192
)

// ParseText parses a logical text data segment: key=value pairs, each
// followed by a null byte. Pairs keep their order, and a key may occur more
// than once, as it does in the answer to SendTargets. The strings do not
// alias data. The error is a *FormatError.
func ParseText(data []byte, lim TextLimits) ([]KeyValue, error) {
	if lim.MaxPairs == 0 {
		lim.MaxPairs = defaultMaxPairs
	}
	if lim.MaxValueLength == 0 {
		lim.MaxValueLength = defaultMaxValueLength
	}
	if lim.Strict && len(data) > 0 && data[len(data)-1] != 0 {
		return nil, textErr("text", "no null behind the last pair")
	}
	var kvs []KeyValue
	for rest := string(data); rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "\x00")
		if pair == "" {
			if lim.Strict {
				return nil, textErr("text", "empty pair")
			}
			continue
		}
		kv, err := parsePair(pair, lim)
		if err != nil {
			return nil, err
		}
		if len(kvs) == lim.MaxPairs {
			return nil, textErr("text", "too many pairs")
		}
		kvs = append(kvs, kv)
	}
	return kvs, nil
}

func parsePair(pair string, lim TextLimits) (KeyValue, error) {
	key, value, ok := strings.Cut(pair, "=")
	switch {
	case !ok:
		return KeyValue{}, textErr("text", "pair without =")
	case key == "" || len(key) > MaxKeyLength:
		return KeyValue{}, textErr("text", "key is empty or too long")
	case lim.Strict && (key[0] < 'A' || key[0] > 'Z'):
		return KeyValue{}, textErr("text", "key does not begin with a capital letter")
	case len(value) > lim.MaxValueLength:
		return KeyValue{}, textErr(printable(key), "value is too long")
	}
	for i := range len(key) {
		if !keyByte(key[i]) {
			return KeyValue{}, textErr("text", "key has a character that keys must not have")
		}
	}
	return KeyValue{key, value}, nil
}

// keyByte reports whether a key-name may contain c. The # is that of public
// extension keys, X#name (RFC 7143 section 6.2, last paragraph).
func keyByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte(".-+@_#", c) >= 0
}

// printable is s if it consists of key bytes, otherwise a word for it, so
// that no control characters get into error messages.
func printable(s string) string {
	for i := range len(s) {
		if !keyByte(s[i]) {
			return "text"
		}
	}
	return s
}

// AppendText appends the pairs in wire form, each followed by a null byte.
// Keys and values must not contain null bytes, keys no "=" either.
func AppendText(dst []byte, kvs ...KeyValue) []byte {
	for _, kv := range kvs {
		dst = append(dst, kv.Key...)
		dst = append(dst, '=')
		dst = append(dst, kv.Value...)
		dst = append(dst, 0)
	}
	return dst
}

// LookupText returns the value of the first pair with the key.
func LookupText(kvs []KeyValue, key string) (string, bool) {
	for _, kv := range kvs {
		if kv.Key == key {
			return kv.Value, true
		}
	}
	return "", false
}
