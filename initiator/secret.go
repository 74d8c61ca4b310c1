package initiator

import (
	"fmt"
	"io"
	"log/slog"
)

// hidden is what stands for a secret wherever one is printed; open-iscsi
// prints the same.
const hidden = "********"

// A Secret is a password. No formatting verb, no logger and no encoder of text
// or JSON shows it; Reveal does.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns asterisks, or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return `initiator.Secret("` + s.String() + `")` }

// Format implements fmt.Formatter for every verb, so that %x and %q hide the
// secret too.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		io.WriteString(f, s.GoString()) //nolint:errcheck // fmt keeps no errors
		return
	}
	io.WriteString(f, s.String()) //nolint:errcheck // fmt keeps no errors
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler and hides the secret; code
// that must store it uses Reveal.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
