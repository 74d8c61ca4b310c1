package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/paths"
	"github.com/goiscsi/goiscsi/nodedb"
)

// DefaultTimeout is how long a portal is waited for.
const DefaultTimeout = 3 * time.Second

// A System is what the doctor asks of the machine. This machine is [Machine].
type System interface {
	// ReadFile, Stat and Glob are those of os and filepath.
	ReadFile(path string) ([]byte, error)
	Stat(path string) (fs.FileInfo, error)
	Glob(pattern string) []string
	// NBDFamily asks whether the kernel has the netlink family of nbd.
	NBDFamily() error
	// ModuleAvailable reports whether a module can be loaded or is built in.
	ModuleAvailable(name string) bool
	// ClockSynchronised reports whether something keeps the clock right.
	ClockSynchronised() (bool, error)
	Now() time.Time
	// Probe makes a TCP connection and describes its path.
	Probe(ctx context.Context, address string) (Path, error)
}

// A Path is what a TCP connection tells of the way to its other end. Zero fields
// are not known.
type Path struct {
	Connect  time.Duration // time to make the connection
	Local    netip.Addr
	Iface    string // network interface that has Local
	IfaceMTU int    // bytes
	PathMTU  int    // bytes, as far as the kernel knows
	MSS      int    // largest segment in bytes, as both ends agreed
}

// A Daemon is what the doctor asks iscsid.
type Daemon interface {
	Version(ctx context.Context) (*control.VersionInfo, error)
	Initiator(ctx context.Context) (*control.Initiator, error)
	Sessions(ctx context.Context, q control.SessionQuery) ([]control.Session, error)
}

// Options say what is examined.
type Options struct {
	Paths  paths.Paths
	System System
	Daemon Daemon
	// Version is that of this program.
	Version string
	// Timeout bounds the wait for each portal; 0 is DefaultTimeout.
	Timeout time.Duration
}

// An examination is one run.
type examination struct {
	Options
	ctx   context.Context //nolint:containedctx // of the run
	found Findings

	conf  *nodedb.Config
	nodes []*nodedb.Node
}

// Examine makes all checks. The error is the cause of ctx's end.
func Examine(ctx context.Context, o Options) (Findings, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	e := &examination{Options: o, ctx: ctx}
	for _, check := range []func(){
		e.configuration, e.initiatorName, e.kernel, e.otherInitiator, e.udev, e.clock, e.database, e.daemon, e.chap, e.portals,
	} {
		if check(); ctx.Err() != nil {
			return e.found, context.Cause(ctx)
		}
	}
	return e.found, nil
}

func (e *examination) ok(check, format string, a ...any) {
	e.found.add(check, OK, fmt.Sprintf(format, a...), "")
}

func (e *examination) note(check, text, advice string)    { e.found.add(check, Note, text, advice) }
func (e *examination) warning(check, text, advice string) { e.found.add(check, Warning, text, advice) }

func (e *examination) problem(check, text, advice string) { e.found.add(check, Problem, text, advice) }

// denied reports whether err says that the user may not look, and says so.
func (e *examination) denied(check, path string, err error) bool {
	if !errors.Is(err, fs.ErrPermission) {
		return false
	}
	e.note(check, path+" may not be read by this user", "run the command as root to have it checked")
	return true
}

// plural returns "1 thing" or "n things".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// hostPort joins an address and a port.
func hostPort(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
