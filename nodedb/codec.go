package nodedb

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
)

// A stored record is
//
//	1 byte   recordFormat
//	8 bytes  a number, big endian: a node's tag, a discovery's place in lists
//	         (larger is newer)
//	text     a line "name=value" for each field that differs from its default
//	         and is not part of the key
//
// The number stands in front so that lists need not read the text.
const (
	recordFormat = 1
	recordHeader = 9
)

var errRecordFormat = errors.New("record has an unknown format")

// encodeRecord returns the stored form of r without the fields named in skip.
func encodeRecord(r *record, number int64, skip ...string) []byte {
	b := make([]byte, 0, 512)
	b = append(b, recordFormat)
	b = binary.BigEndian.AppendUint64(b, uint64(number))
	line := func(name, value string) {
		b = append(b, name...)
		b = append(b, '=')
		b = append(b, value...)
		b = append(b, '\n')
	}
	for i := range r.t.fields {
		f := &r.t.fields[i]
		if r.vals[i] != f.Default && !slices.Contains(skip, f.Name) {
			line(f.Name, r.vals[i])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.extra)) {
		line(name, r.extra[name])
	}
	return b
}

// recordNumber returns the number in front of a stored record.
func recordNumber(b []byte) (int64, bool) {
	if len(b) < recordHeader || b[0] != recordFormat {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b[1:])), true
}

// decodeRecord fills r, which has the defaults, from its stored form. Values
// that this version does not know are kept as they are, so that a record is
// not lost to an older program; whoever uses such a value must not trust it.
// Nothing of b is kept.
func decodeRecord(r *record, b []byte) (number int64, err error) {
	number, ok := recordNumber(b)
	if !ok {
		return 0, errRecordFormat
	}
	for line := range strings.Lines(string(b[recordHeader:])) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			return 0, errRecordFormat
		}
		if _, _, err := r.load(name, value); err != nil {
			if r.t.lookup(name) == nil || checkText(value) != "" {
				return 0, err
			}
			r.put(name, value)
		}
	}
	return number, nil
}
