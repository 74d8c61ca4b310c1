package initiator

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// A dialer makes TCP connections as a Config says.
type dialer struct {
	tcp  TCP
	hook func(ctx context.Context, network, address string) (net.Conn, error)
}

// dial connects to a portal. An error is ErrResolve for a host name that does
// not resolve, otherwise ErrTransport with open-iscsi's code for an unreachable
// portal; or the error of the context if its user cancelled it.
func (d *dialer) dial(ctx context.Context, p Portal) (net.Conn, error) {
	nc, err := d.connect(ctx, p)
	if err == nil {
		return nc, nil
	}
	var dns *net.DNSError
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		err = withKind(ErrTimeout, withKind(cause, err))
	case cause != nil && !errors.Is(cause, ErrTimeout):
		return nil, cause
	case errors.As(err, &dns) && !dns.IsTimeout:
		return nil, withKind(ErrTransport, withKind(ErrResolve, withCode(errcode.Trans, err)))
	case cause != nil:
		err = withKind(ErrTimeout, err)
	}
	return nil, withCode(errcode.TransTimeout, transportError(err))
}

func (d *dialer) connect(ctx context.Context, p Portal) (net.Conn, error) {
	if d.hook != nil {
		return d.hook(ctx, "tcp", p.Address())
	}
	nd := net.Dialer{}
	if d.tcp.LocalAddr.IsValid() {
		nd.LocalAddr = &net.TCPAddr{
			IP:   d.tcp.LocalAddr.AsSlice(),
			Zone: d.tcp.LocalAddr.Zone(),
		}
	}
	if d.tcp.WindowSize > 0 || d.tcp.NetIface != "" {
		nd.ControlContext = func(_ context.Context, _, _ string, rc syscall.RawConn) error {
			var serr error
			if err := rc.Control(func(fd uintptr) { serr = d.tcp.apply(fd) }); err != nil {
				return err
			}
			return serr
		}
	}
	return nd.DialContext(ctx, "tcp", p.Address())
}

// withTimeout is context.WithTimeout with ErrTimeout as the cause.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, ErrTimeout)
}
