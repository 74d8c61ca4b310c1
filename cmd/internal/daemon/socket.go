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
	"github.com/goiscsi/goiscsi/pdu"
)

// A socketAttacher serves each volume as an NBD export without a name on a
// unix socket of its own, N-L.sock for session N and unit L, which
// nbd+unix:///?socket=PATH names. The name is short because a socket's path
// may have no more than 107 bytes; a link with the by-path name, which does not change
// with the sid, leads to it. A planned restart hands the socket and its
// clients over to the next daemon.
type socketAttacher struct {
	dir   string
	links *linker
	store fdStore
	pool  *nbd.BufferPool
	log   *slog.Logger
}

func newSocketAttacher(dir string, fds fdStore, pool *nbd.BufferPool, log *slog.Logger) *socketAttacher {
	exists := func(node string) bool {
		_, err := os.Stat(node)
		return err == nil
	}
	return &socketAttacher{dir: dir, links: newLinker(dir, exists), store: fds, pool: pool, log: log}
}

// clean removes what daemons that died have left in the directory, but not the
// sockets of units on file: those may have been handed over, and clients that connect
// meanwhile wait there for us.
func (a *socketAttacher) clean(states []*sessionState) error {
	files, err := filepath.Glob(filepath.Join(a.dir, "*.sock"))
	if err != nil {
		return err
	}
	expected := make(map[string]bool)
	for _, st := range states {
		for _, u := range st.Units {
			if u.Attach == attachSocket {
				expected[a.file(st.SID, kernelLUN(pdu.LUN(u.LUN)))] = true
			}
		}
	}
	for _, file := range files {
		is := file
		if to, err := os.Readlink(file); err == nil {
			is = filepath.Join(a.dir, to)
		}
		if expected[is] {
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// file is the socket of a unit, by the kernel's number.
func (a *socketAttacher) file(sid int, lun uint64) string {
	return filepath.Join(a.dir, fmt.Sprintf("%d-%d.sock", sid, lun))
}

// socketLink is the name of the link to a unit's socket.
func socketLink(label string) string { return label + ".sock" }

// Names under which the store keeps a unit's listener and its clients.
func keptListener(backend string) string { return backend + ":listener" }
func keptClients(backend string) string  { return backend + ":clients" }

func (a *socketAttacher) attach(_ context.Context, spec attachSpec, _ func(int) error) (attachment, error) {
	file := a.file(spec.sid, spec.lun)
	// What is there is a dead daemon's: sids are not used twice.
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", file)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(file, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return a.serve(spec, l)
}

// adopt serves what an earlier daemon has handed over: the socket, and the clients
// that are connected. Of a daemon that has died nothing is left.
func (a *socketAttacher) adopt(_ context.Context, spec attachSpec, _ int) (attachment, error) {
	l := takeListener(a.store, keptListener(spec.backend))
	clients := takeConns(a.store, keptClients(spec.backend))
	if l == nil || l.Addr().String() != a.file(spec.sid, spec.lun) {
		if l != nil {
			l.Close()
		}
		for _, nc := range clients {
			nc.Close()
		}
		return nil, errNoDevice
	}
	t, err := a.serve(spec, l)
	if err != nil {
		for _, nc := range clients {
			nc.Close()
		}
		return nil, err
	}
	for _, nc := range clients {
		if err := t.server.Resume(t.export.Name, nc); err != nil {
			a.log.Warn("client of a socket is lost", "socket", t.file, "err", err)
		}
	}
	return t, nil
}

// serve offers a volume on a listener, which it closes if it fails.
func (a *socketAttacher) serve(spec attachSpec, l net.Listener) (*socketAttachment, error) {
	t := &socketAttachment{a: a, spec: spec, export: exportOf(&spec), file: a.file(spec.sid, spec.lun), listener: l.(*net.UnixListener)}
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

func (a *socketAttacher) discard(_ context.Context, sid int, st unitState) error {
	for _, name := range []string{keptListener(st.Backend), keptClients(st.Backend)} {
		for _, f := range a.store.take(name) {
			f.Close()
		}
	}
	file := a.file(sid, kernelLUN(pdu.LUN(st.LUN)))
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, a.links.dropAll([]string{file}))
}

// A socketAttachment is one socket with the server behind it.
type socketAttachment struct {
	a        *socketAttacher
	spec     attachSpec
	export   *nbd.Export
	server   *nbd.Server
	listener *net.UnixListener // the server's, which closes it
	file     string
	closing  atomic.Bool // detach or park has begun
	stopped  atomic.Bool // nobody accepts any more
	wg       sync.WaitGroup
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
	t.end(ctx)
	return nil
}

func (t *socketAttachment) park(ctx context.Context, drain bool) {
	if !drain {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	if drain && t.a.store.keep(keptListener(t.spec.backend), t.listener) {
		t.handOver(ctx)
		return
	}
	t.end(ctx)
}

// handOver gives the clients to the next daemon, which has the listener already; the socket
// and the link to it stay.
func (t *socketAttachment) handOver(ctx context.Context) {
	t.closing.Store(true)
	t.listener.SetUnlinkOnClose(false)
	t.stop(ctx, func(ctx context.Context) {
		_ = t.server.HandOver(ctx, func(_ string, nc net.Conn) { // its error is ctx's
			if keepConn(t.a.store, keptClients(t.spec.backend), nc) {
				t.a.log.Debug("client of a socket is kept for the next iscsid", "socket", t.file)
			}
		})
	})
}

// end withdraws the socket and disconnects the clients, after answering what
// is in flight as long as ctx lasts.
func (t *socketAttachment) end(ctx context.Context) {
	t.closing.Store(true)
	if err := t.a.links.remove(socketLink(t.spec.label), t.file); err != nil {
		t.a.log.Warn("link to a socket", "err", err)
	}
	t.stop(ctx, func(ctx context.Context) { _ = t.server.Shutdown(ctx) }) // its error is ctx's
	if err := os.Remove(t.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.a.log.Warn("socket", "err", err)
	}
}

// stop ends the server by shutdown as long as ctx lasts, and cuts what is left then.
func (t *socketAttachment) stop(ctx context.Context, shutdown func(context.Context)) {
	// Both wait for requests that only the session's end answers, so the
	// wait is for a goroutine of its own; wait joins it.
	done := make(chan struct{})
	t.wg.Go(func() {
		defer close(done)
		shutdown(ctx)
		_ = t.server.Close() // has no error
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (t *socketAttachment) wait() { t.wg.Wait() }
