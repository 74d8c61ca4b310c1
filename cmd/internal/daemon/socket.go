package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/goiscsi/goiscsi/initiator/attach"
	"github.com/goiscsi/goiscsi/nbd"
)

// A socketAttacher serves each volume as an NBD export without a name on a
// unix socket of its own, N-L.sock for session N and unit L, which
// nbd+unix:///?socket=PATH names. The name is short because a socket's path
// may have no more than 107 bytes; a link with the by-path name, which does not change
// with the sid, leads to it.
type socketAttacher struct {
	dir   string
	links *linker
	pool  *nbd.BufferPool
	log   *slog.Logger
}

func newSocketAttacher(dir string, pool *nbd.BufferPool, log *slog.Logger) *socketAttacher {
	exists := func(node string) bool {
		_, err := os.Stat(node)
		return err == nil
	}
	return &socketAttacher{dir: dir, links: newLinker(dir, exists), pool: pool, log: log}
}

// clean removes what daemons that died have left in the directory.
func (a *socketAttacher) clean() error {
	files, err := filepath.Glob(filepath.Join(a.dir, "*.sock"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// socketLink is the name of the link to a unit's socket.
func socketLink(label string) string { return label + ".sock" }

func (a *socketAttacher) attach(_ context.Context, spec attachSpec, _ func(int) error) (attachment, error) {
	t := &socketAttachment{
		a: a, spec: spec, export: exportOf(&spec),
		file: filepath.Join(a.dir, fmt.Sprintf("%d-%d.sock", spec.sid, spec.lun)),
	}
	// What is there is a dead daemon's: sids are not used twice.
	if err := os.Remove(t.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", t.file)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(t.file, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	t.server = nbd.NewServer(&nbd.ServerOptions{Logger: a.log, Pool: a.pool})
	if err := t.server.Add(t.export, attach.NewBackend(spec.vol)); err != nil {
		l.Close()
		return nil, err
	}
	if err := a.links.add(socketLink(spec.label), t.file); err != nil {
		a.log.Warn("link to a socket", "err", err)
	}
	t.wg.Go(func() {
		defer t.stopped.Store(true)
		err := t.server.Serve(context.Background(), l)
		if !t.closing.Load() {
			a.log.Error("socket is not served any more", "socket", t.file, "err", err)
			spec.lost()
		}
	})
	return t, nil
}

// adopt finds nothing: a socket does not outlive the process.
func (a *socketAttacher) adopt(context.Context, attachSpec, int) (attachment, error) {
	return nil, errNoDevice
}

func (a *socketAttacher) discard(context.Context, int, string) error { return nil }

// A socketAttachment is one socket with the server behind it.
type socketAttachment struct {
	a       *socketAttacher
	spec    attachSpec
	export  *nbd.Export
	server  *nbd.Server
	file    string
	closing atomic.Bool // detach or park has begun
	stopped atomic.Bool // nobody accepts any more
	wg      sync.WaitGroup
}

func (t *socketAttachment) name() string { return "" }
func (t *socketAttachment) path() string { return t.file }
func (t *socketAttachment) index() int   { return -1 }
func (t *socketAttachment) ended() bool  { return t.stopped.Load() }

// resize changes the size for requests and for clients to come; NBD has no
// way to tell those that are connected.
func (t *socketAttachment) resize(_ context.Context, size int64) error {
	t.export.SetSize(uint64(size))
	return nil
}

func (t *socketAttachment) detach(ctx context.Context, _ bool, before func()) error {
	before()
	t.end(ctx, true)
	return nil
}

func (t *socketAttachment) park(ctx context.Context, drain bool) { t.end(ctx, drain) }

// end withdraws the socket and disconnects the clients, after answering what
// is in flight if drain is set.
func (t *socketAttachment) end(ctx context.Context, drain bool) {
	t.closing.Store(true)
	if err := t.a.links.remove(socketLink(t.spec.label), t.file); err != nil {
		t.a.log.Warn("link to a socket", "err", err)
	}
	if !drain {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	// Shutdown waits for requests that only the session's end answers, so the
	// wait is for a goroutine of its own; wait joins it.
	done := make(chan struct{})
	t.wg.Go(func() {
		defer close(done)
		_ = t.server.Shutdown(ctx) // its error is ctx's
		_ = t.server.Close()       // has none
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
	if err := os.Remove(t.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.a.log.Warn("socket", "err", err)
	}
}

func (t *socketAttachment) wait() { t.wg.Wait() }
