package iscsiadm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/goiscsi/goiscsi/cmd/internal/getopt"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// ErrInterrupted is the cause with which the context of a command ends when
// the user pressed ^C.
var ErrInterrupted = errors.New("caught SIGINT")

// ErrTerminated is the cause for SIGTERM.
var ErrTerminated = errors.New("caught SIGTERM")

// An exitError ends the command with a code; what there is to say has been
// printed.
type exitError struct{ code errcode.Code }

func (e *exitError) Error() string           { return e.code.String() }
func (e *exitError) ISCSICode() errcode.Code { return e.code }

// exit returns the error that ends the command with code, nil for Success.
func exit(code errcode.Code) error {
	if code == errcode.Success {
		return nil
	}
	return &exitError{code}
}

// errorf prints a line to standard error behind what has been printed to
// standard output so far.
func (c *command) errorf(format string, a ...any) {
	_ = c.out.Flush()
	fmt.Fprintf(c.Stderr, program+": "+format+"\n", a...)
}

// hintf prints what to try next.
func (c *command) hintf(format string, a ...any) { c.errorf("hint: "+format, a...) }

// debugf prints a line to standard error at debug level n and above.
func (c *command) debugf(n int, format string, a ...any) {
	if c.req.debug >= n {
		c.errorf(format, a...)
	}
}

// fail prints a line and returns the error that ends the command with code.
func (c *command) fail(code errcode.Code, format string, a ...any) error {
	c.errorf(format, a...)
	return exit(code)
}

// usageError prints a line, unless it is empty, and where to find help.
func (c *command) usageError(format string, a ...any) error {
	if format != "" {
		c.errorf(format, a...)
	}
	_ = c.out.Flush()
	fmt.Fprintf(c.Stderr, "Try `%s --help' for more information.\n", program)
	return exit(errcode.Inval)
}

// unrecognized reports a break of the grammar outside of any mode.
func (c *command) unrecognized(e *getopt.Error) error {
	c.grammar(e)
	return c.fail(errcode.Inval, "unrecognized character '%s'", getopt.Printable(string(rune(e.Letter))))
}

// grammar prints what the C library prints for a break of the grammar, which
// uses the name that the program was called as.
func (c *command) grammar(e *getopt.Error) {
	_ = c.out.Flush()
	name := program
	if len(c.args) > 0 && c.args[0] != "" {
		name = c.args[0]
	}
	fmt.Fprintf(c.Stderr, "%s: %s\n", name, e.Message)
}

// report prints err unless that has been done, and returns its code.
func (c *command) report(err error) errcode.Code {
	var done *exitError
	switch {
	case err == nil, errors.Is(err, errDone):
		return errcode.Success
	case errors.As(err, &done):
		return done.code
	case c.ctx.Err() != nil:
		c.errorf("%v, exiting...", context.Cause(c.ctx))
		return errcode.Err
	}
	for _, line := range nodedb.Lines(err) {
		c.errorf("%s", oneLine(line))
	}
	code := errcode.Of(err)
	if errors.Is(err, fs.ErrPermission) {
		c.hintf("run the command as root")
		if code == errcode.Err {
			code = errcode.IDBM // as open-iscsi ends where it may not read its files
		}
	}
	return code
}

// oneLine replaces what could forge a line or move a terminal's cursor in a
// text that may come from somewhere else.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, s)
}
