//go:build linux

package nbd_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A running is a connection that is being served.
type running struct {
	peer *nbdtest.Peer
	conn net.Conn // the server's end
	stop context.CancelFunc
	done chan struct{}
	err  error // after done
}

// wait returns what ServeConn returned.
func (r *running) wait() error {
	<-r.done
	return r.err
}

// serve serves e on a socketpair until the test ends.
func serve(t testing.TB, e *nbd.Export, b nbd.Backend, o *nbd.ServerOptions) *running {
	t.Helper()
	peer, conn, err := nbdtest.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{peer: peer, conn: conn, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = nbd.ServeConn(ctx, conn, e, b, o)
	}()
	t.Cleanup(func() {
		peer.Close()
		cancel()
		<-r.done
		conn.Close()
	})
	return r
}

// pattern returns n bytes that differ from one offset to another.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>9) ^ byte(i) + seed
	}
	return b
}

func TestWrittenDataReadBack(t *testing.T) {
	for _, n := range []int{512, 4096, 65536, 65536 + 512, 1 << 20, 4 << 20} {
		m := nbdtest.NewMemory(8 << 20)
		r := serve(t, m.Export(""), m, nil)
		want := pattern(n, 7)
		if err := r.peer.Write(want, 1024, 0); err != nil {
			t.Fatal(err)
		}
		got, err := r.peer.Read(1024, uint32(n))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || !bytes.Equal(m.Bytes(1024, n), want) {
			t.Fatalf("%d bytes differ", n)
		}
	}
}

func TestDisconnectEndsWithoutError(t *testing.T) {
	m := nbdtest.NewMemory(1 << 20)
	r := serve(t, m.Export(""), m, nil)
	if err := r.peer.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := r.peer.Disconnect(); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.peer.Recv(); err != io.EOF {
		t.Fatalf("socket after disconnect: %v, want EOF", err)
	}
}
