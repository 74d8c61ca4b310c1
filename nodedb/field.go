package nodedb

import (
	"slices"
	"strconv"
	"strings"
)

// A Kind says what values a field takes and how they are read.
type Kind uint8

// The kinds of fields. Numbers are read with C's strtoul in base 10 and cut to
// their width, as open-iscsi does: what is not a number is 0.
const (
	KindString Kind = iota // any text of up to MaxValueLen bytes without control characters
	KindSecret             // the same, masked when printed
	KindInt                // signed number of 32 bits
	KindUint8              // unsigned number of 8 bits
	KindUint16             // unsigned number of 16 bits
	KindUint32             // unsigned number of 32 bits
	KindBool               // exactly Yes or No
	KindEnum               // exactly one of Field.Values
	KindList               // some of Field.Values, by preference, separated by comma or blank
)

// Limits on names and values. Open-iscsi cuts longer values off; here they are
// refused, because half a password is of no use to anybody.
const (
	MaxNameLen  = 127
	MaxValueLen = 255
)

// family restricts an iface field to interfaces of one address family.
type family uint8

const (
	anyFamily family = iota
	ipv4Only         // printed unless the interface's address is IPv6
	ipv6Only         // printed when the interface's address is IPv6
)

// A Field describes one key of a record. The tables of fields never change
// while the program runs.
type Field struct {
	// Name is the key as users write it, such as "node.startup".
	Name string
	// Kind says which values the field takes.
	Kind Kind
	// Default is the value that a record has which does not say otherwise.
	// Stored records leave out fields that have their default, so a default
	// is part of the storage format and does not change once released; the
	// values that new records get are those of iscsid.conf.
	Default string
	// Values are the words that KindEnum and KindList accept.
	Values []string
	// ReadOnly marks what identifies the record and is not to be changed.
	ReadOnly bool
	// Quiet fields are printed only when they differ from their default:
	// fields of our own, and those that open-iscsi got after 2.1.8, whose
	// dump scripts know.
	Quiet bool
	// Own marks fields that open-iscsi does not have. In its files they
	// stand in a comment, because it rejects files with unknown keys.
	Own bool
	// Doc is one line on what the field does.
	Doc string

	family family
}

// Number reports whether the field holds a number.
func (f *Field) Number() bool { return f.Kind >= KindInt && f.Kind <= KindUint32 }

// Secret reports whether the field's value must not be shown or logged.
func (f *Field) Secret() bool { return f.Kind == KindSecret }

// Normalize checks a value that a user gave for the field and returns it in
// the form in which it is kept. Warnings are texts for the user about parts
// that were ignored. The error is a *ValueError.
func (f *Field) Normalize(value string) (norm string, warnings []string, err error) {
	switch {
	case f.Number():
		return f.number(value), nil, nil
	case f.Kind == KindList:
		norm, warnings = f.list(value)
		return norm, warnings, nil
	case f.Kind == KindBool || f.Kind == KindEnum:
		if slices.Contains(f.Values, value) {
			return value, nil, nil
		}
		return "", nil, &ValueError{Name: f.Name, Value: value}
	}
	if reason := checkText(value); reason != "" {
		if f.Secret() {
			value = mask
		}
		return "", nil, &ValueError{Name: f.Name, Value: value, Reason: reason}
	}
	return value, nil, nil
}

// number returns the text of the number that open-iscsi makes of value.
func (f *Field) number(value string) string {
	n := strtoul(value)
	switch f.Kind {
	case KindUint8:
		return strconv.FormatUint(uint64(uint8(n)), 10)
	case KindUint16:
		return strconv.FormatUint(uint64(uint16(n)), 10)
	case KindUint32:
		return strconv.FormatUint(uint64(uint32(n)), 10)
	default:
		return strconv.FormatInt(int64(int32(n)), 10)
	}
}

// list keeps the known words of value, each once, in the order given.
func (f *Field) list(value string) (norm string, warnings []string) {
	var words []string
	for _, w := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		switch {
		case slices.Contains(words, w):
			warnings = append(warnings, "Ignoring repeated value '"+printable(w)+"' for '"+f.Name+"'")
		case !slices.Contains(f.Values, w):
			warnings = append(warnings, "Ignoring unknown value '"+printable(w)+"' for '"+f.Name+"'")
		default:
			words = append(words, w)
		}
	}
	return strings.Join(words, ","), warnings
}

// strtoul is C's function of that name in base 10 on a 64-bit machine: leading
// white space and a sign are skipped, digits are read as far as they go, a
// value that is too large becomes the largest, and a minus sign negates.
func strtoul(s string) uint64 {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	neg := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	if i == 0 {
		return 0
	}
	n, err := strconv.ParseUint(s[:i], 10, 64)
	if err != nil { // out of range: ParseUint gives the largest value, as C does
		return n
	}
	if neg {
		return -n
	}
	return n
}

// checkText says what keeps s from being a value, or nothing. A control
// character in a value would become a line of its own in a record file.
func checkText(s string) string {
	if len(s) > MaxValueLen {
		return "longer than " + strconv.Itoa(MaxValueLen) + " bytes"
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return "control character"
		}
	}
	return ""
}

// A table is the list of fields of one kind of record, in print order.
type table struct {
	fields   []Field
	index    map[string]int
	defaults []string
}

func newTable(groups ...[]Field) *table {
	t := &table{index: make(map[string]int)}
	for _, g := range groups {
		t.fields = append(t.fields, g...)
	}
	for i := range t.fields {
		f := &t.fields[i]
		if f.Kind == KindBool {
			f.Values = []string{"No", "Yes"}
		}
		if f.Number() && f.Default == "" {
			f.Default = "0"
		}
		t.index[f.Name] = i
		t.defaults = append(t.defaults, f.Default)
	}
	return t
}

// lookup returns the field called name, or nil.
func (t *table) lookup(name string) *Field {
	if i, ok := t.index[name]; ok {
		return &t.fields[i]
	}
	return nil
}

// NodeFields returns a copy of the fields of a node record in print order.
func NodeFields() []Field { return slices.Clone(nodeTable.fields) }

// IfaceFields returns a copy of the fields of an interface record in print
// order. An interface prints those of its address family only.
func IfaceFields() []Field { return slices.Clone(ifaceTable.fields) }

// DiscoveryFields returns a copy of the fields of a discovery record in print
// order, or nil for types that have no record (static, fw).
func DiscoveryFields(t DiscoveryType) []Field {
	if tab := discoveryTable(t); tab != nil {
		return slices.Clone(tab.fields)
	}
	return nil
}
