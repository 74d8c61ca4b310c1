package nodedb

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// The texts of the errors about fields and records in use are open-iscsi's,
// letter for letter: iscsiadm prints them as they are.

// Liner is implemented by errors that open-iscsi reports in several lines.
type Liner interface {
	error
	// Lines returns the lines to print, without the program's name.
	Lines() []string
}

// Lines returns the lines that tell a user about err: those of the first Liner
// in its tree, else its text. Of several errors in one it returns the lines of
// each.
func Lines(err error) []string {
	var many interface{ WrappedErrors() []error } // multierror.Error
	if errors.As(err, &many) {
		var lines []string
		for _, e := range many.WrappedErrors() {
			lines = append(lines, Lines(e)...)
		}
		return lines
	}
	var l Liner
	if errors.As(err, &l) {
		return l.Lines()
	}
	return []string{err.Error()}
}

// An UnknownFieldError names a field that the record does not have.
type UnknownFieldError struct{ Name string }

// Error implements error with open-iscsi's text.
func (e *UnknownFieldError) Error() string {
	return fmt.Sprintf("Cannot modify %s. Invalid param name.", printable(e.Name))
}

// ISCSICode returns the code for invalid parameters.
func (e *UnknownFieldError) ISCSICode() errcode.Code { return errcode.Inval }

// A ReadOnlyFieldError names a field that this operation may not change.
type ReadOnlyFieldError struct {
	Name string // of the field
	// Text is the message; it says where the field can be changed, if
	// anywhere.
	Text string
}

// Error implements error with open-iscsi's text.
func (e *ReadOnlyFieldError) Error() string { return e.Text }

// ISCSICode returns the code for invalid parameters.
func (e *ReadOnlyFieldError) ISCSICode() errcode.Code { return errcode.Inval }

// A ValueError says that a field does not take a value.
type ValueError struct {
	Name  string // of the field
	Value string // masked for secrets
	// Reason says more where open-iscsi would have taken the value, else it
	// is empty.
	Reason string
}

// Error implements error with open-iscsi's text.
func (e *ValueError) Error() string {
	s := fmt.Sprintf("unknown value format '%s' for parameter name '%s'", printable(e.Value), e.Name)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Lines implements Liner: open-iscsi adds a second line.
func (e *ValueError) Lines() []string {
	return []string{e.Error(), "Unknown parameter " + e.Name + "."}
}

// ISCSICode returns the code for invalid parameters.
func (e *ValueError) ISCSICode() errcode.Code { return errcode.Inval }

// A NameError refuses a target, address or interface name that must not be
// stored, printed or made part of a path.
type NameError struct {
	What   string // "target name", "address", "interface name"
	Name   string // as given
	Reason string // what is wrong with it
}

// Error implements error.
func (e *NameError) Error() string {
	return fmt.Sprintf("invalid %s %q: %s", e.What, e.Name, e.Reason)
}

// ISCSICode returns the code for invalid parameters.
func (e *NameError) ISCSICode() errcode.Code { return errcode.Inval }

// A NotFoundError says that there is no record for a key.
type NotFoundError struct {
	What string // "node", "discovery record", "interface"
	Key  string // of the record
}

// Error implements error.
func (e *NotFoundError) Error() string { return fmt.Sprintf("no %s %s", e.What, e.Key) }

// Is makes errors.Is(err, fs.ErrNotExist) hold.
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// ISCSICode returns the code for missing records.
func (e *NotFoundError) ISCSICode() errcode.Code { return errcode.NoObjsFound }

// An InUseError refuses to remove a node record that a session is using.
type InUseError struct{ Key NodeKey }

// Error implements error with open-iscsi's text.
func (e *InUseError) Error() string {
	return fmt.Sprintf("This command will remove the record [iface: %s, target: %s, portal: %s,%d], but a session is using it. "+
		"Logout session then rerun command to remove record.", e.Key.Iface, e.Key.Target, e.Key.Address, e.Key.Port)
}

// ISCSICode returns the code for sessions that exist.
func (e *InUseError) ISCSICode() errcode.Code { return errcode.SessExists }

// A BuiltinIfaceError refuses to change or delete an interface that is built
// in.
type BuiltinIfaceError struct {
	Name string // of the interface
	// Op is "modified" or "deleted".
	Op string
}

// Error implements error with open-iscsi's text.
func (e *BuiltinIfaceError) Error() string {
	return fmt.Sprintf("iface %s is a special interface and cannot be %s.", e.Name, e.Op)
}

// ISCSICode returns the code for invalid parameters.
func (e *BuiltinIfaceError) ISCSICode() errcode.Code { return errcode.Inval }

// A DBError says that the database could not be read or written. Err is the
// cause; errors.Is finds ErrCorrupt, ErrNewerSchema, ErrLocked and the
// operating system's errors in it.
type DBError struct {
	Op   string // "open", "read", "write", "lock"
	Path string // of the database
	Err  error
}

// Causes of a DBError.
var (
	// ErrCorrupt: the file is not a database, or a damaged one.
	ErrCorrupt = errors.New("not a valid node database")
	// ErrNewerSchema: a newer version of this program wrote the file.
	ErrNewerSchema = errors.New("database was written by a newer version")
	// ErrLocked: another process held the lock for too long.
	ErrLocked = errors.New("database is locked by another process")
)

// ErrReadOnly says that a transaction of View tried to write.
var ErrReadOnly = errors.New("transaction cannot write")

// Error implements error.
func (e *DBError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err) }

// Unwrap returns the cause.
func (e *DBError) Unwrap() error { return e.Err }

// ISCSICode returns the code for database failures.
func (e *DBError) ISCSICode() errcode.Code { return errcode.IDBM }

// printable returns s with everything replaced that could forge a line or
// move the cursor of a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, s)
}
