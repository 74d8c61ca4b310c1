package iscsiadm

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// traceEnd is how long after ^C the end of a trace is waited for.
const traceEnd = 10 * time.Second

// checkLook refuses combinations of --trace, --watch and what belongs to them
// that mean nothing.
func (c *command) checkLook() error {
	r := &c.req
	switch {
	case r.trace != "" && r.sid == 0:
		return c.fail(errcode.Inval, "--trace needs a session: -r SID")
	case r.trace != "" && (r.login || r.logout || r.rescan || r.stats || r.op != 0 || r.json || r.watch || r.level > 0):
		return c.fail(errcode.Inval, "--trace goes with -r and --duration only")
	case r.duration > 0 && r.trace == "":
		return c.fail(errcode.Inval, "--duration is for --trace")
	case r.watch && !r.stats:
		return c.fail(errcode.Inval, "--watch is for statistics: -s")
	case r.watch && r.json:
		return c.fail(errcode.Inval, "--watch does not print JSON")
	}
	return nil
}

// traceSession writes the PDUs of a session to a file, or to standard output
// for "-". ^C ends the trace and is no failure.
func (c *command) traceSession(s *control.Session) error {
	out := io.Writer(c.Stdout)
	name := "standard output"
	if c.req.trace != "-" {
		name = c.req.trace
		f := &traceFile{name: name}
		defer f.close()
		out = f
	}
	_ = c.out.Flush()

	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	defer cancel()
	// ^C asks the daemon for the end of the trace, so that the file gets one.
	stop := context.AfterFunc(c.ctx, func() {
		bound, free := context.WithTimeout(ctx, traceEnd)
		defer free()
		if c.daemon().EndTrace(bound, s.SID) != nil {
			cancel()
			return
		}
		<-bound.Done() // the trace has ended, or it is too late
		cancel()
	})
	o := control.TraceOptions{Duration: time.Duration(c.req.duration) * time.Second}
	res, err := c.daemon().Trace(ctx, s.SID, o, out)
	stop()
	if err != nil {
		if c.ctx.Err() != nil && ctx.Err() != nil {
			return context.Cause(c.ctx) // the end did not come
		}
		return err
	}
	text := fmt.Sprintf("%d PDUs of session %d written to %s", res.PDUs, s.SID, name)
	if res.Dropped > 0 {
		text += fmt.Sprintf(", %d dropped because they came too fast", res.Dropped)
	}
	if c.req.trace == "-" {
		c.errorf("%s", text)
		return nil
	}
	c.printf("%s\n", oneLine(text))
	return nil
}

// A traceFile is made when the first bytes of a trace come, so that a trace that is
// refused leaves the file of the last one alone.
type traceFile struct {
	name string
	f    *os.File
}

// Write implements io.Writer.
func (t *traceFile) Write(p []byte) (int, error) {
	if t.f == nil {
		f, err := createTrace(t.name)
		if err != nil {
			return 0, err
		}
		t.f = f
	}
	return t.f.Write(p)
}

func (t *traceFile) close() {
	if t.f != nil {
		t.f.Close()
	}
}

// createTrace makes the file, for its owner only: what is in it can be the
// contents of a disk. One that is there is written over. A pipe or
// another device stays as it is.
func createTrace(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		if err := f.Chmod(0o600); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}
