//go:build linux

package nbd_test

import (
	"runtime"
	"testing"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

func TestPoolKeepsWhatItMay(t *testing.T) {
	pool := nbd.NewBufferPool(1 << 20)
	m := nbdtest.NewMemory(8 << 20)
	r := serve(t, m.Export(""), m, &nbd.ServerOptions{Pool: pool})
	for _, n := range []uint32{512, 4096, 100 << 10, 512 << 10, 2 << 20} {
		if _, err := r.peer.Read(0, n); err != nil {
			t.Fatal(err)
		}
	}
	r.peer.Close()
	r.wait()
	// 4 KiB served twice, 128 KiB and 512 KiB; 2 MiB was too much to keep.
	if n := pool.Idle(); n != 4<<10+128<<10+512<<10 {
		t.Errorf("%d bytes are kept", n)
	}
	if n := pool.Outstanding(); n != 0 {
		t.Errorf("%d buffers did not come back", n)
	}
	pool.Trim()
	if n := pool.Idle(); n != 0 {
		t.Errorf("%d bytes are kept after Trim", n)
	}
}

func TestPoolIsSharedByConnections(t *testing.T) {
	pool := nbd.NewBufferPool(0)
	m := nbdtest.NewMemory(1 << 20)
	for range 3 {
		r := serve(t, m.Export(""), m, &nbd.ServerOptions{Pool: pool})
		if _, err := r.peer.Read(0, 64<<10); err != nil {
			t.Fatal(err)
		}
		r.peer.Close()
		r.wait()
	}
	if n := pool.Idle(); n != 64<<10 {
		t.Errorf("three connections one after the other left %d bytes, want one buffer", n)
	}
}

func TestPoolShrinksToItsBounds(t *testing.T) {
	pool := nbd.NewBufferPool(0)
	m := nbdtest.NewMemory(8 << 20)
	r := serve(t, m.Export(""), m, &nbd.ServerOptions{Pool: pool})
	for _, n := range []uint32{4096, 128 << 10, 1 << 20} {
		if _, err := r.peer.Read(0, n); err != nil {
			t.Fatal(err)
		}
	}
	r.peer.Close()
	r.wait()
	pool.SetBounds(1<<20, 256<<10)
	if n := pool.Idle(); n != 128<<10+4<<10 {
		t.Errorf("%d bytes are kept, want all but the largest buffer", n)
	}
	if n := pool.Used(); n != 0 {
		t.Errorf("%d bytes are in use", n)
	}
}

// Reads that are answered one after the other, while many are in flight, use a few
// buffers, and those are kept whatever the pool may keep otherwise.
func TestPoolKeepsWhatIsGoingToBeTaken(t *testing.T) {
	const size, depth = 1 << 20, 16
	pool := nbd.NewBufferPool(size)
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 30}, b, &nbd.ServerOptions{Pool: pool})
	var list []*nbd.Request
	for range depth {
		if _, err := r.peer.Send(nbd.CmdRead, 0, 0, size, nil); err != nil {
			t.Fatal(err)
		}
		list = append(list, <-b.requests)
	}
	answer := func(n int) {
		t.Helper()
		for _, req := range list[:n] {
			req.Buffer()
		}
		for _, req := range list[:n] {
			complete(req, 0)
			if _, err := r.peer.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		list = list[n:]
	}
	answer(4)
	// The last reply may be with the peer before its buffer is back.
	for pool.Outstanding() > 0 {
		runtime.Gosched()
	}
	if n := pool.Idle(); n != 4*size {
		t.Errorf("%d bytes are kept for %d requests in flight, want %d", n, len(list), 4*size)
	}
	answer(len(list))
	for pool.Outstanding() > 0 {
		runtime.Gosched()
	}
	r.peer.Close()
	r.wait()
	if n := pool.Idle(); n != size {
		t.Errorf("%d bytes are kept at the end, want no more than %d", n, size)
	}
}
