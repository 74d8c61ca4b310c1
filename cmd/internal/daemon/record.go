package daemon

import (
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// A record reads the fields of a node record. It is tolerant, as records
// come from hand-edited files and older versions: a field that is absent or
// cannot be read has its default, the latter with a line in the log.
type record struct {
	m   map[string]string
	log *slog.Logger
}

func (r record) str(name string) string { return r.m[name] }

// int reads a number as open-iscsi does: decimal, and what does not parse is
// the default here rather than 0.
func (r record) int(name string, def int) int {
	v := strings.TrimSpace(r.m[name])
	if v == "" {
		return def
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		r.log.Warn("Invalid value in record, the default is used", "name", name, "value", v, "default", def)
		return def
	}
	return int(n)
}

// bool reads Yes or No, case-sensitively.
func (r record) bool(name string, def bool) bool {
	switch v := r.m[name]; v {
	case "Yes":
		return true
	case "No":
		return false
	case "":
		return def
	default:
		r.log.Warn("Invalid value in record, the default is used", "name", name, "value", v, "default", def)
		return def
	}
}

// seconds reads a number of seconds; def is in seconds, too.
func (r record) seconds(name string, def int) time.Duration {
	return time.Duration(r.int(name, def)) * time.Second
}

// The range of every length that is negotiated (RFC 7143 section 13).
const (
	minLength = 512
	maxLength = 1<<24 - 1
)

// length reads a negotiated length. Out of range, it is reset to its default with
// the line that open-iscsi's daemon logs; within, it is rounded down to a
// multiple of four, as PDUs are padded to that.
func (r record) length(name, key string, def int) int {
	n := r.int(name, def)
	if n < minLength || n > maxLength {
		r.log.Warn("Invalid iscsi." + key + " of " + strconv.Itoa(n) + ". Must be within " + strconv.Itoa(minLength) +
			" and " + strconv.Itoa(maxLength) + ". Setting to " + strconv.Itoa(def))
		n = def
	}
	return n &^ 3
}

// clamp reads a number and brings it into a range with a log line.
func (r record) clamp(name string, def, lo, hi int) int {
	n := r.int(name, def)
	if c := min(max(n, lo), hi); c != n {
		r.log.Warn("Invalid value in record, the nearest is used", "name", name, "value", n, "used", c)
		return c
	}
	return n
}

// list reads a list separated by commas, blanks or new lines. What accept
// does not know, and what comes twice, is left out with open-iscsi's warning.
func (r record) list(name string, accept func(string) bool) []string {
	var out []string
	seen := make(map[string]bool)
	for _, v := range strings.FieldsFunc(r.m[name], func(c rune) bool { return c == ',' || c == ' ' || c == '\n' }) {
		switch {
		case !accept(v):
			r.log.Warn("Ignoring unknown value '" + v + "' for '" + name + "'")
		case seen[v]:
			r.log.Warn("Ignoring repeated value '" + v + "' for '" + name + "'")
		default:
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}
