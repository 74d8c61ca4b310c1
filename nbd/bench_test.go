//go:build linux

package nbd_test

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/goiscsi/goiscsi/nbd"
)

// A nullBackend completes everything at once, so that what is measured is the
// server alone.
type nullBackend struct{}

func (nullBackend) Submit(r *nbd.Request) {
	r.Buffer()
	r.Complete(0)
}

func (nullBackend) Kick() {}

// An asyncBackend completes requests from a goroutine of its own, in batches, as
// one does that sends them to somewhere else.
type asyncBackend struct {
	requests chan *nbd.Request
	done     chan struct{} // closed when the goroutine has ended
}

func newAsyncBackend() *asyncBackend {
	b := &asyncBackend{requests: make(chan *nbd.Request, 1024), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		for r := range b.requests {
			c := r.Conn()
			r.Buffer()
			r.Complete(0)
			if len(b.requests) == 0 {
				c.Flush()
			}
		}
	}()
	return b
}

func (b *asyncBackend) Submit(r *nbd.Request) { b.requests <- r }
func (b *asyncBackend) Kick()                 {}

// close ends the goroutine; no connection may use it any more.
func (b *asyncBackend) close() {
	close(b.requests)
	<-b.done
}

// A load drives a connection as fio does: depth requests are kept in flight,
// sent and received in batches, from buffers made beforehand.
type load struct {
	nc       net.Conn
	requests []byte // depth requests with their payload
	replies  []byte // room for the replies to them
}

func newLoad(nc net.Conn, cmd nbd.Command, size, depth int) *load {
	l := &load{nc: nc}
	reply := nbd.ReplySize
	for i := range depth {
		h := nbd.RequestHeader{Cmd: cmd, Cookie: uint64(i), Offset: uint64(i * size), Length: uint32(size)}
		l.requests = h.Append(l.requests)
		if cmd == nbd.CmdWrite {
			l.requests = append(l.requests, make([]byte, size)...)
		}
	}
	if cmd == nbd.CmdRead {
		reply += size
	}
	l.replies = make([]byte, depth*reply)
	return l
}

// BenchmarkServe measures requests served over a unix socketpair; an operation
// is one request.
func BenchmarkServe(b *testing.B) {
	for _, op := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite} {
		for _, c := range []struct{ size, depth int }{
			{4096, 1}, {4096, 16}, {4096, 32}, {4096, 128}, {256 << 10, 16}, {1 << 20, 8},
		} {
			b.Run(fmt.Sprintf("op=%s/size=%d/depth=%d", op, c.size, c.depth), func(b *testing.B) {
				benchmark(b, nullBackend{}, op, c.size, c.depth)
			})
		}
	}
}

// BenchmarkServeAsync is BenchmarkServe with a backend that completes from
// another goroutine: what combining replies is for.
func BenchmarkServeAsync(b *testing.B) {
	for _, depth := range []int{1, 16, 32, 128} {
		b.Run(fmt.Sprintf("op=read/size=4096/depth=%d", depth), func(b *testing.B) {
			back := newAsyncBackend()
			b.Cleanup(back.close)
			benchmark(b, back, nbd.CmdRead, 4096, depth)
		})
	}
}

func benchmark(b *testing.B, back nbd.Backend, op nbd.Command, size, depth int) {
	r := serve(b, &nbd.Export{Size: 1 << 30}, back, nil)
	l := newLoad(r.peer.Conn(), op, size, depth)
	// Replies are taken while requests are sent, else both sides would wait for
	// room in their sockets.
	goOn, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for range goOn {
			_, err := io.ReadFull(l.nc, l.replies)
			done <- err
		}
	}()
	defer close(goOn)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%depth != 0 {
			continue
		}
		goOn <- struct{}{}
		if _, err := l.nc.Write(l.requests); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
