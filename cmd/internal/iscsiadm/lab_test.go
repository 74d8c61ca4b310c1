package iscsiadm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/control/controltest"
	"github.com/goiscsi/goiscsi/cmd/internal/doctor"
	"github.com/goiscsi/goiscsi/cmd/internal/iscsiadm"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/paths"
)

// The targets of the lab.
const (
	tg1    = "iqn.2016-01-com.example.tg1"
	chap   = "iqn.2016-01.com.example:chap"
	mutual = "iqn.2016-01.com.example:mutual"
)

// labInitiator is the name of the lab's initiator.
const labInitiator = "iqn.1993-08.org.debian:01:81cc55237ed9"

// A lab is a machine with a portal on 127.0.0.1 and ::1 that has three
// targets, two of which want CHAP, and an iscsid. It is the lab that the
// transcript was made in.
type lab struct {
	t      testing.TB // the test that runs now
	env    iscsiadm.Env
	daemon *controltest.Daemon

	mu    sync.Mutex // protects what follows
	names []string   // block devices in use, by number
	taken map[string]int

	// portals is what the portal offers, by "host:port"; errors refuses.
	portals map[string][]string
	errors  map[string]error
	asked   []initiator.DiscoveryConfig
	slept   []time.Duration
}

// newLab starts a lab with a daemon.
func newLab(t testing.TB) *lab {
	l := newLabWithoutDaemon(t)
	if err := os.MkdirAll(l.env.Paths.Run, 0o700); err != nil {
		t.Fatal(err)
	}
	controltest.ServeAt(t, l.env.Paths.ControlSocket(), l.daemon, control.Options{})
	return l
}

func newLabWithoutDaemon(t testing.TB) *lab {
	// Not t.TempDir: the socket's path must fit into 108 bytes.
	root, err := os.MkdirTemp("", "iscsiadm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	l := &lab{t: t, taken: map[string]int{}}
	all := []string{tg1, chap, mutual}
	l.portals = map[string][]string{"127.0.0.1:3260": all, "[::1]:3260": all}
	l.errors = map[string]error{
		"127.0.0.1:3999":          dialError(syscall.ECONNREFUSED),
		"nosuchhost.invalid:3260": errors.Join(initiator.ErrResolve, initiator.ErrTransport, &net.DNSError{Err: "server misbehaving", Name: "nosuchhost.invalid", IsTemporary: true}),
	}
	l.daemon = &controltest.Daemon{Name: labInitiator, Connect: l.connect, Disconnect: l.disconnect, Counters: l.counters}
	p := paths.FromLookup(func(k string) string { return map[string]string{"ISCSI_ROOT": root, "SYSFS_PATH": root + "/sys"}[k] })
	write(t, p.InitiatorName, "InitiatorName="+labInitiator+"\n")
	l.env = iscsiadm.Env{
		System: doctor.Machine{},
		Stdin:  strings.NewReader(""), Paths: p,
		Getenv: func(string) string { return "" },
		Control: func(socket string) control.Service {
			c := control.NewClient(socket, control.ClientOptions{})
			l.t.Cleanup(func() { _ = c.Close() })
			return c
		},
		Discover: l.discover,
		Resolver: noDNS{},
		Sleep: func(ctx context.Context, d time.Duration) error {
			l.slept = append(l.slept, d)
			return ctx.Err()
		},
	}
	return l
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// noDNS knows no names.
type noDNS struct{}

func (noDNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// dialError is what the library returns for a connection that cannot be made.
func dialError(errno syscall.Errno) error {
	return &initiator.OpError{Op: "discover", Err: errors.Join(initiator.ErrTransport, &net.OpError{Op: "dial", Net: "tcp", Err: errno})}
}

// discover plays the portals.
func (l *lab) discover(_ context.Context, cfg initiator.DiscoveryConfig) ([]initiator.DiscoveredPortal, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, cfg)
	addr := cfg.Portal.Address()
	if err := l.errors[addr]; err != nil {
		return nil, err
	}
	var out []initiator.DiscoveredPortal
	for _, target := range l.portals[addr] {
		out = append(out, initiator.DiscoveredPortal{Target: target, Portal: initiator.Portal{Host: cfg.Portal.Host, Port: cfg.Portal.Port, TPGT: 1}})
	}
	return out, nil
}

// connect plays the targets.
func (l *lab) connect(ctx context.Context, s *control.Session, record map[string]string) error {
	if s.Portal.Port == 3999 {
		return control.NewError(errcode.TransTimeout, "connection refused")
	}
	switch s.Target {
	case tg1:
	case chap:
		if record["node.session.auth.username"] != "usuario" || record["node.session.auth.password"] != "password" {
			return control.NewError(errcode.LoginAuthFailed, "the target refused the user name or the password (login status 0x0201)")
		}
	case mutual:
		return control.NewError(errcode.LoginAuthFailed, "the target wants CHAP (login status 0x0201)")
	default:
		return control.NewError(errcode.FatalLogin, "target not found (login status 0x0203)")
	}
	s.TPGT = 1
	s.LocalAddress = s.Portal.Address
	s.Negotiated = &control.Negotiated{
		HeaderDigest: "None", DataDigest: "None",
		MaxRecvDataSegmentLength: 262144, MaxXmitDataSegmentLength: 8192,
		FirstBurstLength: 65536, MaxBurstLength: 262144, ImmediateData: true, InitialR2T: true, MaxOutstandingR2T: 1,
	}
	s.Devices = []control.Device{
		{LUN: 1, Type: "disk", Name: l.attach(s.SID), State: "running", Attach: control.AttachNBD, Size: 64 << 20, BlockSize: 512},
		{LUN: 0, Type: "controller", State: "running", Attach: control.AttachNone},
	}
	return nil
}

// attach gives a session the first free block device.
func (l *lab) attach(sid int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	owner := fmt.Sprint(sid)
	for i, n := range l.names {
		if n == "" {
			l.names[i] = owner
			return fmt.Sprintf("nbd%d", i)
		}
	}
	l.names = append(l.names, owner)
	return fmt.Sprintf("nbd%d", len(l.names)-1)
}

func (l *lab) disconnect(_ context.Context, sid int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range l.names {
		if n == fmt.Sprint(sid) {
			l.names[i] = ""
		}
	}
	return nil
}

func (l *lab) counters(s *control.Session) control.Stats {
	return control.Stats{TxDataOctets: 3804, RxDataOctets: 17240, SCSICmd: 64, SCSIRsp: 64, DataIn: uint64(s.SID)}
}

// A result is what a command did.
type result struct {
	out, err string
	code     int
}

// run runs one command.
func (l *lab) run(args ...string) result {
	l.t.Helper()
	return l.runContext(l.t.Context(), args...)
}

func (l *lab) runContext(ctx context.Context, args ...string) result {
	l.t.Helper()
	var stdout, stderr bytes.Buffer
	env := l.env
	env.Args = append([]string{"iscsiadm"}, args...)
	env.Stdout, env.Stderr = &stdout, &stderr
	code := iscsiadm.New(env).Run(ctx)
	return result{stdout.String(), stderr.String(), code}
}

// mustRun runs a command that is to succeed without a word on standard error.
func (l *lab) mustRun(args ...string) string {
	l.t.Helper()
	r := l.run(args...)
	if r.code != 0 || r.err != "" {
		l.t.Fatalf("iscsiadm %s: code %d, stderr %q", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// expect runs a command and compares everything.
func (l *lab) expect(want result, args ...string) {
	l.t.Helper()
	if got := l.run(args...); got != want {
		l.t.Errorf("iscsiadm %s\n got code %d\nout %q\nerr %q\nwant code %d\nout %q\nerr %q",
			strings.Join(args, " "), got.code, got.out, got.err, want.code, want.out, want.err)
	}
}
