// Package controltest has an in-memory iscsid for tests of what talks to one.
package controltest

import (
	"context"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// Daemon is a control.Service that keeps sessions in memory and behaves as
// the contract of that interface says: session ids are taken when a login
// starts, the check for an existing session is atomic and counts logins in
// progress, a login that has succeeded gets the lowest free host number.
//
// The exported fields are set before use.
type Daemon struct {
	// Connect plays the target: it fills in s, which has everything that the
	// record says, or refuses. It may wait for ctx. nil accepts everything.
	Connect func(ctx context.Context, s *control.Session, record map[string]string) error
	// Disconnect is called by Logout. nil accepts.
	Disconnect func(ctx context.Context, sid int) error
	// SID chooses the id of a new session. nil counts up from 1.
	SID func(record map[string]string) int
	// Counters answers Stats. nil has all counters 0.
	Counters func(s *control.Session) control.Stats
	// Scan plays the target at a rescan: it changes s.Devices. lun is the only
	// unit that was asked for, or -1. nil changes nothing.
	Scan func(s *control.Session, lun int64) error
	// Name is the initiator's name.
	Name string
	// PDUs is what Trace writes.
	PDUs string

	mu       sync.Mutex // protects what follows
	last     int
	sessions map[int]*entry
	stop     bool
	level    string
	tracing  chan struct{}  // not nil: a trace goes on; closed to end it
	wg       sync.WaitGroup // logins that nobody waits for
}

type entry struct {
	s      control.Session
	key    string
	cancel context.CancelFunc
	gone   chan struct{} // closed when a pending login has ended
}

var _ control.Service = (*Daemon)(nil)

func key(r map[string]string) string {
	return r["node.name"] + "\x00" + r["node.conn[0].address"] + "\x00" + r["node.conn[0].port"] + "\x00" + r["iface.iscsi_ifacename"]
}

func number(s string, def int) int {
	if n, err := strconv.Atoi(s); err == nil {
		return n
	}
	return def
}

// host returns the lowest free host number. d.mu is held.
func (d *Daemon) host() int {
	for n := 0; ; n++ {
		if !slices.ContainsFunc(slices.Collect(maps.Values(d.sessions)), func(e *entry) bool { return e.s.Host == n }) {
			return n
		}
	}
}

// Login implements control.Service.
func (d *Daemon) Login(ctx context.Context, req *control.LoginRequest) (*control.Session, error) {
	r := req.Record
	d.mu.Lock()
	same := 0
	for _, e := range d.sessions {
		if e.key == key(r) {
			same++
		}
	}
	if same > 0 && !req.Multiple || req.Limit > 0 && same >= req.Limit {
		d.mu.Unlock()
		return nil, control.NewError(errcode.SessExists, "")
	}
	d.last++
	sid := d.last
	if d.SID != nil {
		sid = d.SID(r)
		d.last = max(d.last-1, sid)
	}
	addr := control.Portal{Address: r["node.conn[0].address"], Port: number(r["node.conn[0].port"], 3260)}
	e := &entry{key: key(r), gone: make(chan struct{}), s: control.Session{
		SID: sid, Host: -1, Target: r["node.name"], TPGT: number(r["node.tpgt"], -1), Portal: addr, Persistent: addr,
		Iface: control.Iface{
			Name: r["iface.iscsi_ifacename"], Transport: "tcp", InitiatorName: d.Name,
			NetIface: r["iface.net_ifacename"], HWAddress: r["iface.hwaddress"],
		},
		ConnState: "IN LOGIN", SessionState: "FREE", InternalState: control.InternalNoChange, Pending: true,
		Timeouts: control.Timeouts{
			Recovery:    number(r["node.session.timeo.replacement_timeout"], 120),
			TargetReset: number(r["node.session.err_timeo.tgt_reset_timeout"], 30),
			LUNReset:    number(r["node.session.err_timeo.lu_reset_timeout"], 30),
			Abort:       number(r["node.session.err_timeo.abort_timeout"], 15),
		},
		CHAP: &control.CHAP{
			Username: r["node.session.auth.username"], Password: r["node.session.auth.password"],
			PasswordSet: r["node.session.auth.password"] != "",
			UsernameIn:  r["node.session.auth.username_in"], PasswordIn: r["node.session.auth.password_in"],
			PasswordInSet: r["node.session.auth.password_in"] != "",
		},
		Record: maps.Clone(r), Created: time.Unix(1700000000, 0).UTC(),
	}}
	if d.sessions == nil {
		d.sessions = make(map[int]*entry)
	}
	d.sessions[sid] = e
	if req.NoWait {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, e.cancel = context.WithCancel(ctx)
	pending := e.s
	d.mu.Unlock()
	if req.NoWait {
		d.wg.Add(1)
		go func() { // ended by Connect or by Logout's cancel; Close waits
			defer d.wg.Done()
			_, _ = d.finish(ctx, e)
		}()
		return &pending, nil
	}
	return d.finish(ctx, e)
}

// finish runs Connect and makes the session a proper one.
func (d *Daemon) finish(ctx context.Context, e *entry) (*control.Session, error) {
	defer e.cancel()
	d.mu.Lock()
	s := e.s
	d.mu.Unlock()
	var err error
	if d.Connect != nil {
		err = d.Connect(ctx, &s, s.Record)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(e.gone)
	if err != nil {
		delete(d.sessions, s.SID)
		return nil, err
	}
	s.Host = d.host()
	s.Pending, s.ConnState, s.SessionState = false, control.ConnLoggedIn, control.SessionLoggedIn
	e.s = s
	return &s, nil
}

// Sessions implements control.Service.
func (d *Daemon) Sessions(context.Context, control.SessionQuery) ([]control.Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []control.Session
	for _, e := range d.sessions {
		out = append(out, e.s)
	}
	return out, nil
}

func (d *Daemon) find(sid int) (*entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.sessions[sid]
	if e == nil {
		return nil, control.Errorf(errcode.SessNotFound, "no session %d", sid)
	}
	return e, nil
}

// Session implements control.Service.
func (d *Daemon) Session(_ context.Context, sid int, _ control.SessionQuery) (*control.Session, error) {
	e, err := d.find(sid)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := e.s
	return &s, nil
}

// Update changes the session sid in place, as a redirect or an error would.
func (d *Daemon) Update(sid int, change func(*control.Session)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.sessions[sid]; e != nil {
		change(&e.s)
	}
}

// Logout implements control.Service.
func (d *Daemon) Logout(ctx context.Context, sid int, _ bool) error {
	e, err := d.find(sid)
	if err != nil {
		return err
	}
	d.mu.Lock()
	pending := e.s.Pending
	d.mu.Unlock()
	if pending {
		e.cancel()
		<-e.gone
		return nil
	}
	if d.Disconnect != nil {
		if err := d.Disconnect(ctx, sid); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, sid)
	return nil
}

// Rescan implements control.Service.
func (d *Daemon) Rescan(_ context.Context, sid int) (*control.RescanResult, error) {
	return d.scan(sid, -1)
}

// RescanLUN implements control.Service.
func (d *Daemon) RescanLUN(_ context.Context, sid int, lun uint64) (*control.RescanResult, error) {
	return d.scan(sid, int64(lun))
}

func (d *Daemon) scan(sid int, lun int64) (*control.RescanResult, error) {
	e, err := d.find(sid)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Scan != nil {
		if err := d.Scan(&e.s, lun); err != nil {
			return nil, err
		}
	}
	return &control.RescanResult{Devices: slices.Clone(e.s.Devices)}, nil
}

// RemoveLUN implements control.Service.
func (d *Daemon) RemoveLUN(_ context.Context, sid int, lun uint64, _ bool) error {
	e, err := d.find(sid)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(e.s.Devices, func(dev control.Device) bool { return dev.LUN == lun })
	if i < 0 {
		return control.Errorf(errcode.NoObjsFound, "session %d has no logical unit %d", sid, lun)
	}
	e.s.Devices = slices.Delete(slices.Clone(e.s.Devices), i, i+1) // answers share the old ones
	return nil
}

// Stats implements control.Service.
func (d *Daemon) Stats(_ context.Context, sid int) (*control.Stats, error) {
	e, err := d.find(sid)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	s := e.s
	d.mu.Unlock()
	var st control.Stats
	if d.Counters != nil {
		st = d.Counters(&s)
	}
	return &st, nil
}

// Trace implements control.Service: what is traced is PDUs, and then it waits for
// EndTrace or the duration.
func (d *Daemon) Trace(ctx context.Context, sid int, o control.TraceOptions, w io.Writer) (*control.TraceResult, error) {
	if _, err := d.find(sid); err != nil {
		return nil, err
	}
	d.mu.Lock()
	if d.tracing != nil {
		d.mu.Unlock()
		return nil, control.NewError(errcode.Busy, "the session is being traced already")
	}
	end := make(chan struct{})
	d.tracing = end
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.tracing = nil
	}()
	if _, err := w.Write([]byte(d.PDUs)); err != nil {
		return nil, err
	}
	var over <-chan time.Time
	if o.Duration > 0 {
		over = time.After(o.Duration)
	}
	select {
	case <-end:
	case <-over:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return &control.TraceResult{PDUs: uint64(len(d.PDUs)), Dropped: 3}, nil
}

// EndTrace implements control.Service.
func (d *Daemon) EndTrace(context.Context, int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tracing != nil {
		close(d.tracing)
		d.tracing = make(chan struct{})
	}
	return nil
}

// LogLevel implements control.Service.
func (d *Daemon) LogLevel(context.Context) (*control.LogLevel, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.level == "" {
		return &control.LogLevel{Level: "info"}, nil
	}
	return &control.LogLevel{Level: d.level}, nil
}

// SetLogLevel implements control.Service; it knows "info" and "debug".
func (d *Daemon) SetLogLevel(_ context.Context, l control.LogLevel) error {
	if l.Level != "info" && l.Level != "debug" {
		return control.Errorf(errcode.Inval, "no log level %q", l.Level)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.level = l.Level
	return nil
}

// Initiator implements control.Service.
func (d *Daemon) Initiator(context.Context) (*control.Initiator, error) {
	return &control.Initiator{Name: d.Name}, nil
}

// Shutdown implements control.Service.
func (d *Daemon) Shutdown(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop = true
	return nil
}

// Stopped reports whether Shutdown has been called.
func (d *Daemon) Stopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stop
}

// Serve serves svc on a unix socket of its own until the test ends, and
// returns the socket's path.
func Serve(t testing.TB, svc control.Service, o control.Options) string {
	t.Helper()
	// A test's own TempDir can be longer than the 108 bytes that a socket
	// address holds.
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "control.sock")
	ServeAt(t, path, svc, o)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return path
}

// ServeAt is Serve on a path of the caller's choice.
func ServeAt(t testing.TB, path string, svc control.Service, o control.Options) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.NewServer(svc, o).Serve(ctx, l) }() // ended by cancel
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("control server: %v", err)
		}
		if d, ok := svc.(*Daemon); ok {
			d.wg.Wait()
		}
	})
}
