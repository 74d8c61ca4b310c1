//go:build linux

package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

const modern = nbd.HandshakeFixedNewstyle | nbd.HandshakeNoZeroes

// listen starts s on a unix socket until the test ends, and returns how to reach
// it.
func listen(t *testing.T, s *nbd.Server) (dial func() net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nbd.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, nbd.ErrServerClosed) {
			t.Errorf("Serve: %v, want ErrServerClosed", err)
		}
	})
	return func() net.Conn {
		t.Helper()
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
}

// newClient returns a modern client of dial's server.
func newClient(t *testing.T, nc net.Conn) *nbdtest.Client {
	t.Helper()
	c, err := nbdtest.NewClient(nc, modern)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// looks has a client list the exports and stay in the handshake. The server has read
// all that it sent then: a unix socket that is closed with something unread in it is
// reset.
func looks(t *testing.T, nc net.Conn) {
	t.Helper()
	if _, err := newClient(t, nc).List(); err != nil {
		t.Fatal(err)
	}
}

// twoDisks returns a server with the exports a and b.
func twoDisks(t *testing.T, o *nbd.ServerOptions) (*nbd.Server, *nbdtest.Memory) {
	t.Helper()
	m := nbdtest.NewMemory(1 << 20)
	s := nbd.NewServer(o)
	b := m.Export("b")
	b.Description = "the second"
	b.ReadOnly = true
	for _, e := range []*nbd.Export{b, m.Export("a")} {
		if err := s.Add(e, m); err != nil {
			t.Fatal(err)
		}
	}
	return s, m
}

func TestGoServesTheExport(t *testing.T) {
	s, m := twoDisks(t, nil)
	dial := listen(t, s)
	peer, infos, err := newClient(t, dial()).Go("a")
	if err != nil {
		t.Fatal(err)
	}
	want := []nbd.Info{
		{Type: nbd.InfoExport, Size: 1 << 20, Flags: nbd.FlagHasFlags | nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagSendTrim | nbd.FlagSendWriteZeroes | nbd.FlagCanMultiConn},
		{Type: nbd.InfoBlockSize, Minimum: 512, Preferred: 4096, Maximum: nbd.MaxPayload},
	}
	if !slices.Equal(infos, want) {
		t.Errorf("told %+v, want %+v", infos, want)
	}
	if err := peer.Write(pattern(4096, 1), 512, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Bytes(512, 4096), pattern(4096, 1)) {
		t.Error("data differ")
	}
}

func TestInfoTellsWhatIsAskedFor(t *testing.T) {
	s, _ := twoDisks(t, nil)
	c := newClient(t, listen(t, s)())
	infos, err := c.Info("b", nbd.InfoName, nbd.InfoDescription, nbd.InfoBlockSize, nbd.InfoName, 77)
	if err != nil {
		t.Fatal(err)
	}
	want := []nbd.Info{
		{Type: nbd.InfoExport, Size: 1 << 20, Flags: nbd.FlagHasFlags | nbd.FlagReadOnly | nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagCanMultiConn},
		{Type: nbd.InfoBlockSize, Minimum: 512, Preferred: 4096, Maximum: nbd.MaxPayload},
		{Type: nbd.InfoName, Text: "b"},
		{Type: nbd.InfoDescription, Text: "the second"},
	}
	if !slices.Equal(infos, want) {
		t.Errorf("told %+v, want %+v", infos, want)
	}
}

func TestListNamesTheExportsInOrder(t *testing.T) {
	s, _ := twoDisks(t, nil)
	c := newClient(t, listen(t, s)())
	names, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("got %q", names)
	}
	// A client may look and leave.
	if err := c.Abort(); err != nil {
		t.Error(err)
	}
}

func TestExportNameServesTheExport(t *testing.T) {
	for _, zeroes := range []bool{false, true} {
		s, _ := twoDisks(t, nil)
		flags := uint32(modern)
		if zeroes {
			flags = 0 // an old client, which knows neither flag
		}
		c, err := nbdtest.NewClient(listen(t, s)(), flags)
		if err != nil {
			t.Fatal(err)
		}
		peer, size, _, err := c.ExportName("a", zeroes)
		if err != nil {
			t.Fatal(err)
		}
		if size != 1<<20 {
			t.Errorf("size is %d", size)
		}
		if _, err := peer.Read(0, 512); err != nil {
			t.Error(err)
		}
	}
}

func TestEmptyNameIsTheOnlyExport(t *testing.T) {
	s, m := twoDisks(t, nil)
	dial := listen(t, s)
	c := newClient(t, dial())
	var refused *nbd.OptionError
	if _, err := c.Info(""); !errors.As(err, &refused) || refused.Type != nbd.RepErrUnknown {
		t.Fatalf("with two exports: %v, want RepErrUnknown", err)
	}
	if err := s.Remove(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Info(""); err != nil {
		t.Fatalf("with one export: %v", err)
	}
	if err := s.Add(m.Export(""), m); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Info(""); err != nil {
		t.Fatalf("with an export of that name: %v", err)
	}
}

func TestOptionsAreRefusedPolitely(t *testing.T) {
	name := func(s string) []byte { return (&nbd.InfoRequest{Name: s}).Append(nil) }
	for _, tt := range []struct {
		name   string
		option nbd.Option
		data   []byte
		want   nbd.OptionReplyType
	}{
		{"structured replies", nbd.OptStructuredReply, nil, nbd.RepErrUnsup},
		{"extended headers", nbd.OptExtendedHeaders, nil, nbd.RepErrUnsup},
		{"TLS", nbd.OptStartTLS, nil, nbd.RepErrUnsup},
		{"metadata contexts", nbd.OptSetMetaContext, []byte("base:allocation"), nbd.RepErrUnsup},
		{"unknown", 12345, []byte{1, 2, 3}, nbd.RepErrUnsup},
		{"list with data", nbd.OptList, []byte{0}, nbd.RepErrInvalid},
		{"go without data", nbd.OptGo, nil, nbd.RepErrInvalid},
		{"go with a name that is too long", nbd.OptGo, binary.BigEndian.AppendUint32(nil, 1<<31), nbd.RepErrInvalid},
		{"go with trailing bytes", nbd.OptGo, append(name("a"), 0), nbd.RepErrInvalid},
		{"go to an unknown export", nbd.OptGo, name("c"), nbd.RepErrUnknown},
		{"info on an unknown export", nbd.OptInfo, name(strings.Repeat("x", 4096)), nbd.RepErrUnknown},
		{"option that is too long", nbd.OptInfo, make([]byte, 100<<10), nbd.RepErrTooBig},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := twoDisks(t, nil)
			c := newClient(t, listen(t, s)())
			var refused *nbd.OptionError
			if _, err := c.Option(tt.option, tt.data); !errors.As(err, &refused) || refused.Type != tt.want {
				t.Fatalf("got %v, want %#x", err, uint32(tt.want))
			}
			if refused.Message == "" {
				t.Error("without a word")
			}
			if _, _, err := c.Go("a"); err != nil {
				t.Errorf("the client could not go on: %v", err)
			}
		})
	}
}

func TestHostileHandshakesAreDropped(t *testing.T) {
	flags := binary.BigEndian.AppendUint32(nil, modern)
	option := func(magic uint64, o nbd.Option, length uint32) []byte {
		b := binary.BigEndian.AppendUint64(slices.Clone(flags), magic)
		b = binary.BigEndian.AppendUint32(b, uint32(o))
		return binary.BigEndian.AppendUint32(b, length)
	}
	for _, tt := range []struct {
		name string
		sent []byte
	}{
		{"unknown client flags", binary.BigEndian.AppendUint32(nil, 1<<20)},
		{"wrong magic", option(1, nbd.OptGo, 0)},
		{"endless option", option(nbd.OptionMagic, nbd.OptGo, 1<<32-1)},
		{"unknown export name", option(nbd.OptionMagic, nbd.OptExportName, 0)},
		{"option without fixed newstyle", append(make([]byte, 4), option(nbd.OptionMagic, nbd.OptList, 0)[4:]...)},
		{"too many options", append(slices.Clone(flags), bytes.Repeat(option(nbd.OptionMagic, 99, 0)[4:], 300)...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := twoDisks(t, nil)
			nc := listen(t, s)()
			go nc.Write(tt.sent)
			if _, err := io.Copy(io.Discard, nc); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
		})
	}
}

// A pipeListener is a listener for synctest.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return nil }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

func TestSilentClientIsDroppedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := twoDisks(t, &nbd.ServerOptions{HandshakeTimeout: 7 * time.Second})
		ln := newPipeListener()
		served := make(chan error, 1)
		go func() { served <- s.Serve(context.Background(), ln) }()
		nc := ln.dial()
		start := time.Now()
		if _, err := io.Copy(io.Discard, nc); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 7*time.Second {
			t.Errorf("dropped after %v, want 7s", d)
		}
		s.Close()
		<-served
		nc.Close()
	})
}

func TestShutdownAnswersWhatIsInFlight(t *testing.T) {
	s := nbd.NewServer(nil)
	b := newManualBackend()
	if err := s.Add(&nbd.Export{Size: 1 << 20}, b); err != nil {
		t.Fatal(err)
	}
	dial := listen(t, s)
	idle, halfway := dial(), dial()
	if _, _, err := newClient(t, idle).Go(""); err != nil {
		t.Fatal(err)
	}
	looks(t, halfway)
	peer, _, err := newClient(t, dial()).Go("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	req := <-b.requests
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	// The others are let go meanwhile.
	for _, nc := range []net.Conn{idle, halfway} {
		if _, err := io.Copy(io.Discard, nc); err != nil {
			t.Error(err)
		}
	}
	select {
	case <-down:
		t.Fatal("shut down with a request in flight")
	default:
	}
	complete(req, 0)
	if _, err := peer.Recv(); err != nil {
		t.Errorf("reply during the shutdown: %v", err)
	}
	if _, err := peer.Recv(); err != io.EOF {
		t.Errorf("after the shutdown: %v, want EOF", err)
	}
	if err := <-down; err != nil {
		t.Fatal(err)
	}
	if err := s.Add(&nbd.Export{Name: "late"}, b); !errors.Is(err, nbd.ErrServerClosed) {
		t.Errorf("Add afterwards: %v, want ErrServerClosed", err)
	}
}

func TestHandOverKeepsClientsConnected(t *testing.T) {
	old, m := twoDisks(t, nil)
	dial := listen(t, old)
	halfway := dial()
	looks(t, halfway)
	var peers []*nbdtest.Peer
	for _, name := range []string{"a", "a", "b"} {
		peer, _, err := newClient(t, dial()).Go(name)
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, peer)
	}
	next := nbd.NewServer(nil)
	defer next.Close()
	for _, name := range []string{"a", "b"} {
		if err := next.Add(m.Export(name), m); err != nil {
			t.Fatal(err)
		}
	}
	type client struct {
		export string
		nc     net.Conn
	}
	kept := make(chan client, len(peers))
	if err := old.HandOver(t.Context(), func(export string, nc net.Conn) {
		f, err := nc.(*net.UnixConn).File()
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		again, err := net.FileConn(f)
		if err != nil {
			t.Error(err)
			return
		}
		kept <- client{export, again}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, halfway); err != nil {
		t.Errorf("the client in its handshake: %v", err)
	}
	// A request that is sent meanwhile waits in the socket.
	if _, err := peers[0].Send(nbd.CmdWrite, 0, 4096, 512, pattern(512, 7)); err != nil {
		t.Fatal(err)
	}
	if len(kept) != len(peers) {
		t.Fatalf("%d clients were handed over, want %d", len(kept), len(peers))
	}
	for range peers {
		c := <-kept
		if err := next.Resume(c.export, c.nc); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := peers[0].Recv(); err != nil {
		t.Errorf("reply to what was sent between the servers: %v", err)
	}
	for i, peer := range peers {
		if got, err := peer.Read(4096, 512); err != nil || !bytes.Equal(got, pattern(512, 7)) {
			t.Errorf("client %d: read %x…, %v", i, got[:min(len(got), 8)], err)
		}
	}
}

// A client whose handshake has just ended is no client in the handshake.
func TestHandOverRightAfterTheHandshake(t *testing.T) {
	for range 100 {
		s, _ := twoDisks(t, nil)
		if _, _, err := newClient(t, listen(t, s)()).Go("a"); err != nil {
			t.Fatal(err)
		}
		kept := 0
		if err := s.HandOver(t.Context(), func(string, net.Conn) { kept++ }); err != nil || kept != 1 {
			t.Fatalf("%d clients were handed over, want 1; %v", kept, err)
		}
	}
}

func TestHandOverAnswersFirst(t *testing.T) {
	s := nbd.NewServer(nil)
	b := newManualBackend()
	if err := s.Add(&nbd.Export{Size: 1 << 20}, b); err != nil {
		t.Fatal(err)
	}
	peer, _, err := newClient(t, listen(t, s)()).Go("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	req := <-b.requests
	kept, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.HandOver(t.Context(), func(string, net.Conn) { close(kept) }) }()
	select {
	case <-kept:
		t.Fatal("handed over with a request in flight")
	case <-done:
		t.Fatal("through with a request in flight")
	default:
	}
	complete(req, 0)
	if _, err := peer.Recv(); err != nil {
		t.Errorf("reply before the hand-over: %v", err)
	}
	<-kept
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestResumeRefuses(t *testing.T) {
	s, _ := twoDisks(t, &nbd.ServerOptions{MaxConns: 1})
	resume := func(export string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { theirs.Close() })
		return theirs, s.Resume(export, ours)
	}
	refused := func(what, export string, want error) {
		nc, err := resume(export)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the connection is left open: %v", what, err)
		}
	}
	refused("an export that is not there", "c", nbd.ErrNoExport)
	if _, err := resume("a"); err != nil {
		t.Fatal(err)
	}
	refused("a connection too many", "a", nil)
	s.Close()
	refused("a server that has ended", "a", nbd.ErrServerClosed)
}

func TestShutdownGivesUpWithItsContext(t *testing.T) {
	s := nbd.NewServer(nil)
	b := newManualBackend()
	if err := s.Add(&nbd.Export{Size: 1 << 20}, b); err != nil {
		t.Fatal(err)
	}
	peer, _, err := newClient(t, listen(t, s)()).Go("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	req := <-b.requests
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	complete(req, 0)
}

func TestRemoveEndsTheExportsConnectionsOnly(t *testing.T) {
	s, _ := twoDisks(t, nil)
	dial := listen(t, s)
	a, _, err := newClient(t, dial()).Go("a")
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := newClient(t, dial()).Go("b")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Recv(); err != io.EOF {
		t.Errorf("connection to the removed export: %v, want EOF", err)
	}
	if _, err := b.Read(0, 512); err != nil {
		t.Errorf("connection to the other: %v", err)
	}
	if err := s.Remove(t.Context(), "a"); !errors.Is(err, nbd.ErrNoExport) {
		t.Errorf("removed again: %v, want ErrNoExport", err)
	}
}

func TestExportNamesAreUnique(t *testing.T) {
	s, m := twoDisks(t, nil)
	if err := s.Add(m.Export("a"), m); !errors.Is(err, nbd.ErrExportExists) {
		t.Errorf("got %v, want ErrExportExists", err)
	}
}

func TestSeveralConnectionsShareAnExport(t *testing.T) {
	s, _ := twoDisks(t, nil)
	dial := listen(t, s)
	one, _, err := newClient(t, dial()).Go("a")
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := newClient(t, dial()).Go("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Write(pattern(512, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	got, err := two.Read(0, 512)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, pattern(512, 1)) {
		t.Error("data differ")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s, _ := twoDisks(t, &nbd.ServerOptions{MaxConns: 1})
	dial := listen(t, s)
	first, _, err := newClient(t, dial()).Go("a")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, dial()); n != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("second connection: %d bytes, %v", n, err)
	}
	if _, err := first.Read(0, 512); err != nil {
		t.Error(err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	s := nbd.NewServer(nil)
	defer s.Close()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
