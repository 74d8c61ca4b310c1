package nodedb

import (
	"bufio"
	"io"

	"github.com/goiscsi/goiscsi/internal/version"
)

const (
	emptyValue = "<empty>"
	mask       = "********"
)

// PrintOptions say how a record is printed.
type PrintOptions struct {
	// ShowSecrets prints passwords instead of asterisks.
	ShowSecrets bool
	// Version stands in the first line; empty is this program's.
	Version string
}

// Print writes the record in the form that open-iscsi's "-o show" has:
//
//	# BEGIN RECORD 3.0.0
//	node.name = iqn.2016-01.com.example:disk1
//	...
//	# END RECORD
//
// Empty values are printed as <empty>, secrets as asterisks. The error is the
// writer's.
func (r *record) Print(w io.Writer, o PrintOptions) error {
	if o.Version == "" {
		o.Version = version.Version
	}
	b := bufio.NewWriter(w)
	b.WriteString("# BEGIN RECORD " + o.Version + "\n")
	for f, v := range r.Fields() {
		b.WriteString(f.Name + " = " + f.Display(v, o.ShowSecrets) + "\n")
	}
	b.WriteString("# END RECORD\n")
	return b.Flush()
}

// Display returns a value of the field as it is shown to people.
func (f *Field) Display(value string, showSecrets bool) string {
	switch {
	case value == "":
		return emptyValue
	case f.Secret() && !showSecrets:
		return mask
	}
	return value
}
