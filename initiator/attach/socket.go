//go:build linux

package attach

import (
	"context"
	"net"
	"os"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/nbd"
)

// Socket serves a disk on a unix socket of its own, as the NBD export without a
// name: nbd+unix:///?socket=PATH. It needs no privilege and nothing of the
// kernel. Only our user may connect (mode 0600). Something that exists at path is
// an error; the socket goes with the device. Any number of clients may connect,
// and see each other's writes.
func Socket(ctx context.Context, v *initiator.Volume, path string, o Options) (*Device, error) {
	o = o.withDefaults()
	s := &socketService{export: Export(v), server: nbd.NewServer(&nbd.ServerOptions{Logger: o.Logger})}
	d := &Device{vol: v, log: o.Logger, path: path, export: s.export, how: s, handle: newHandle(v)}
	d.handle.Size = int64(s.export.Size)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, d.error("attach", err)
	}
	s.listener = l
	err = os.Chmod(path, 0o600)
	if err == nil {
		err = s.server.Add(s.export, NewBackend(v))
	}
	if err != nil {
		l.Close()
		return nil, d.error("attach", err)
	}
	return d, d.start(func() error { return nil })
}

// A socketService is a unix socket with a server behind it.
type socketService struct {
	export   *nbd.Export
	server   *nbd.Server
	listener net.Listener
}

func (s *socketService) serve() error { return s.server.Serve(context.Background(), s.listener) }

// resize changes the size for requests and for clients to come; NBD has no way
// to tell those that are connected.
func (s *socketService) resize(_ context.Context, size int64) error {
	s.export.SetSize(uint64(size))
	return nil
}

// detach waits for requests that only the session's end may answer, so the wait
// is for a goroutine of its own, which ends with them.
func (s *socketService) detach(ctx context.Context, flush bool) error {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if flush {
			_ = s.server.Shutdown(ctx) // its error is ctx's
		}
		_ = s.server.Close() // has none
	}()
	select {
	case <-closed:
	case <-ctx.Done():
	}
	return nil
}

func (s *socketService) leave(ctx context.Context) error { return s.detach(ctx, true) }

func (s *socketService) close() {}
