package nodedb

import (
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"
)

// A Param is one assignment that a user asks for.
type Param struct{ Name, Value string }

// record is what all kinds of records are made of: a value for each field of a
// table, and what was read under names that the table does not have.
type record struct {
	t    *table
	vals []string
	// extra keeps keys that another version of this program or of open-iscsi
	// wrote, so that reading and writing a record loses nothing.
	extra map[string]string
}

// maxExtra bounds what hostile input can make a record hold.
const maxExtra = 64

func newRecord(t *table) record {
	return record{t: t, vals: slices.Clone(t.defaults)}
}

func (r *record) clone() record {
	return record{t: r.t, vals: slices.Clone(r.vals), extra: maps.Clone(r.extra)}
}

// get returns the value of a field that the table is known to have.
func (r *record) get(name string) string {
	if i, ok := r.t.index[name]; ok {
		return r.vals[i]
	}
	return ""
}

// put stores a value that is known to be good.
func (r *record) put(name, value string) {
	if i, ok := r.t.index[name]; ok {
		r.vals[i] = value
	}
}

// load stores a value from a file or message, read-only fields included.
// Unknown names are kept aside; known reports which.
func (r *record) load(name, value string) (known bool, warnings []string, err error) {
	f := r.t.lookup(name)
	if f == nil {
		if len(r.extra) >= maxExtra || !isFieldName(name) || checkText(value) != "" {
			return false, nil, &UnknownFieldError{Name: name}
		}
		if r.extra == nil {
			r.extra = make(map[string]string)
		}
		r.extra[name] = value
		return false, nil, nil
	}
	norm, warnings, err := f.Normalize(value)
	if err != nil {
		return true, nil, err
	}
	r.put(name, norm)
	return true, warnings, nil
}

// isFieldName reports whether name could be a field's.
func isFieldName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '_', c == '-', c == '[', c == ']':
		default:
			return false
		}
	}
	return name != "" && len(name) <= MaxNameLen
}

// Get returns the value of a field; an *UnknownFieldError if there is no such
// field. Secrets are returned as they are.
func (r *record) Get(name string) (string, error) {
	i, ok := r.t.index[name]
	if !ok {
		return "", &UnknownFieldError{Name: name}
	}
	return r.vals[i], nil
}

// Int returns the value of a field that holds a number, else 0.
func (r *record) Int(name string) int {
	n, err := strconv.ParseInt(r.get(name), 10, 64)
	if err != nil {
		return 0
	}
	return int(n)
}

// Bool reports whether a field is Yes.
func (r *record) Bool(name string) bool { return r.get(name) == "Yes" }

// Seconds returns the value of a field that holds a number of seconds.
func (r *record) Seconds(name string) time.Duration {
	return time.Duration(r.Int(name)) * time.Second
}

// Text returns the value of a field, or the empty string if there is no such
// field.
func (r *record) Text(name string) string { return r.get(name) }

// Fields iterates over the fields that are printed and their values, in print
// order: those of the address family of the record's interface, and quiet
// ones only where they differ from their default. Secrets are given as they
// are.
func (r *record) Fields() iter.Seq2[*Field, string] {
	v6 := isIPv6(r.get(FieldIfaceAddress))
	return func(yield func(*Field, string) bool) {
		for i := range r.t.fields {
			f := &r.t.fields[i]
			switch {
			case f.family == ipv4Only && v6, f.family == ipv6Only && !v6:
			case f.Quiet && r.vals[i] == f.Default:
			case !yield(f, r.vals[i]):
				return
			}
		}
	}
}

// Map returns all fields and their values, secrets included, and what was kept
// of unknown fields.
func (r *record) Map() map[string]string {
	m := make(map[string]string, len(r.vals)+len(r.extra))
	maps.Copy(m, r.extra)
	for i := range r.t.fields {
		m[r.t.fields[i].Name] = r.vals[i]
	}
	return m
}

// apply checks all names by verify and then stores all values in order. On an
// error r is as it was.
func (r *record) apply(params []Param, verify func(name string) error) (warnings []string, err error) {
	for _, p := range params {
		if err := verify(p.Name); err != nil {
			return nil, err
		}
	}
	next := r.clone()
	for _, p := range params {
		f := next.t.lookup(p.Name)
		if f == nil {
			continue // verify let a name pass that has no effect
		}
		norm, warns, err := f.Normalize(p.Value)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, warns...)
		next.put(p.Name, norm)
	}
	*r = next
	return warnings, nil
}

// verify is the check of names that all kinds of records share.
func (r *record) verify(name string) error {
	f := r.t.lookup(name)
	switch {
	case f == nil && isPasswordLength(name):
		return nil
	case f == nil:
		return &UnknownFieldError{Name: name}
	case f.ReadOnly:
		return &ReadOnlyFieldError{Name: name, Text: "Cannot modify " + name + ". It is used to look up the record and cannot be changed."}
	}
	return nil
}

// isPasswordLength knows the keys in which open-iscsi keeps the length of a
// password. They are accepted and have no effect.
func isPasswordLength(name string) bool {
	switch name {
	case FieldPassword + "_length", FieldPasswordIn + "_length", FieldDiscPassword + "_length", FieldDiscPasswordIn + "_length":
		return true
	}
	return false
}

// loadMap is load for every entry of m. Order does not matter to it, except
// that the first error in the order of names is the one returned.
func (r *record) loadMap(m map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if isPasswordLength(name) {
			continue
		}
		if _, _, err := r.load(name, m[name]); err != nil {
			return err
		}
	}
	return nil
}

func itoa(n int) string { return strconv.Itoa(n) }
