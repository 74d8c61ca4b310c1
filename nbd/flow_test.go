//go:build linux

package nbd_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// The tests in this file are about what is in flight: bounds, peers that do not
// read, connections that end meanwhile.

func TestInFlightIsBounded(t *testing.T) {
	pool, tiny := nbd.NewBufferPool(0), nbd.NewBufferPool(0)
	pool.SetBounds(6*4096, 0)
	tiny.SetBounds(100, 0)
	for _, tt := range []struct {
		name string
		opt  nbd.ServerOptions
		want int
	}{
		{"requests", nbd.ServerOptions{MaxRequests: 5}, 5},
		{"bytes", nbd.ServerOptions{MaxBytes: 3 * 4096}, 3},
		{"one large request is always served", nbd.ServerOptions{MaxBytes: 100}, 1},
		{"half of the pool", nbd.ServerOptions{Pool: pool}, 3},
		{"one request larger than the pool", nbd.ServerOptions{Pool: tiny}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The pipe is a bubble's: synctest.Wait tells when all are stuck.
			synctest.Test(t, func(t *testing.T) {
				b := newManualBackend()
				client, server := net.Pipe()
				peer := nbdtest.NewPeer(client)
				done := make(chan error, 1)
				go func() {
					done <- nbd.ServeConn(context.Background(), server, &nbd.Export{Size: 1 << 20}, b, &tt.opt)
				}()
				sent := make(chan error, 1)
				go func() {
					for range 20 {
						if _, err := peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
							sent <- err
							return
						}
					}
					sent <- peer.Disconnect()
				}()
				for range 20 / tt.want {
					synctest.Wait()
					if n := len(b.requests); n != tt.want {
						t.Fatalf("%d requests are in flight, want %d", n, tt.want)
					}
					for range tt.want {
						go complete(<-b.requests, 0)
						if _, err := peer.Recv(); err != nil {
							t.Fatal(err)
						}
					}
				}
				for range 20 % tt.want {
					complete(<-b.requests, 0)
					if _, err := peer.Recv(); err != nil {
						t.Fatal(err)
					}
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				client.Close()
			})
		})
	}
}

// TestConnectionsShareThePool has one connection take what it can get, and then
// others: each gets something, and all together no more than the bound and a
// request for each.
func TestConnectionsShareThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 16
		pool := nbd.NewBufferPool(0)
		pool.SetBounds(bound*4096, 0)
		var got []int
		var requests []*nbd.Request
		for range 8 {
			b := newManualBackend()
			client, server := net.Pipe()
			peer := nbdtest.NewPeer(client)
			go nbd.ServeConn(context.Background(), server, &nbd.Export{Size: 1 << 20}, b, &nbd.ServerOptions{Pool: pool}) //nolint:errcheck // its error is the pipe's end
			go func() {                                                                                                   // ends with the pipe
				for {
					if _, err := peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
						return
					}
				}
			}()
			defer client.Close()
			synctest.Wait()
			got = append(got, len(b.requests))
			for range len(b.requests) {
				requests = append(requests, <-b.requests)
			}
		}
		if got[0] != bound/2 || got[1] != bound/4 {
			t.Errorf("in flight: %v, want %d and %d of the first two", got, bound/2, bound/4)
		}
		if n := slices.Min(got); n == 0 {
			t.Errorf("in flight: %v, want something of each", got)
		}
		if n := pool.Used() / 4096; n > bound+int64(len(got)) {
			t.Errorf("%d buffers are in use, the bound is %d", n, bound)
		}
		for _, r := range requests {
			go complete(r, 0) // the pipe's other end does not read
		}
	})
}

func TestKickFollowsEachBatch(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, nil)
	var batch []byte
	for i := range 50 {
		batch = (&nbd.RequestHeader{Cmd: nbd.CmdRead, Cookie: uint64(i), Length: 512}).Append(batch)
	}
	if _, err := r.peer.Conn().Write(batch); err != nil {
		t.Fatal(err)
	}
	<-b.kicks
	if n := len(b.requests); n != 50 {
		t.Errorf("kicked after %d requests of 50 that came together", n)
	}
	for range 50 {
		complete(<-b.requests, 0)
	}
}

// A countingBackend notes how many requests came between two kicks.
type countingBackend struct {
	*manualBackend
	since int          // of the reading goroutine
	most  atomic.Int64 // of all that ended with a kick
}

func (b *countingBackend) Submit(r *nbd.Request) {
	b.since++
	b.manualBackend.Submit(r)
}

func (b *countingBackend) Kick() {
	b.most.Store(max(b.most.Load(), int64(b.since)))
	b.since = 0
	b.manualBackend.Kick()
}

// The server looks for more requests before it kicks, but a client that sends
// without end must not hold up what it sent before.
func TestKickComesWhileRequestsKeepComing(t *testing.T) {
	b := &countingBackend{manualBackend: newManualBackend()}
	// With a buffer as small as this, what is sent in one go comes in many
	// reads, none of which has to wait.
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, &nbd.ServerOptions{ReadBuffer: 4 * nbd.RequestSize})
	const n = 200
	var batch []byte
	for i := range n {
		batch = (&nbd.RequestHeader{Cmd: nbd.CmdRead, Cookie: uint64(i), Length: 512}).Append(batch)
	}
	if _, err := r.peer.Conn().Write(batch); err != nil {
		t.Fatal(err)
	}
	for range n {
		complete(<-b.requests, 0)
	}
	for range n / 40 {
		<-b.kicks
	}
	if most := b.most.Load(); most > 40 {
		t.Errorf("%d requests waited for a kick", most)
	}
}

// A client that does not read its replies must not hold up whoever completes
// its requests: that goroutine serves others too.
func TestPeerThatDoesNotReadBlocksNoCompletion(t *testing.T) {
	b := newManualBackend()
	pool := nbd.NewBufferPool(0)
	r := serve(t, &nbd.Export{Size: 1 << 30}, b, &nbd.ServerOptions{Pool: pool, MaxBytes: 64 << 20, SendBuffer: 64 << 10})
	const n, size = 32, 1 << 20
	for range n {
		if _, err := r.peer.Send(nbd.CmdRead, 0, 0, size, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		complete(<-b.requests, 0) // hangs here if it blocks
	}
	for range n {
		if _, err := r.peer.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.peer.Disconnect(); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if n := pool.Outstanding(); n != 0 {
		t.Errorf("%d buffers did not come back", n)
	}
}

func TestConcurrentCompletionsAllArrive(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 30}, b, &nbd.ServerOptions{SendBuffer: 32 << 10, MaxRequests: 64})
	const n = 2000
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for req := range b.requests {
				for i, data := 0, req.Buffer(); i < len(data); i++ {
					data[i] = byte(req.Offset)
				}
				conn := req.Conn()
				req.Complete(0)
				if rand.N(3) > 0 { // a batch now and then
					conn.Flush()
				}
				if len(b.requests) == 0 {
					conn.Flush()
				}
			}
		})
	}
	sent := make(chan error, 1)
	go func() {
		for i := range uint64(n) {
			size := uint32(1 + rand.N(20000))
			cmd := nbd.CmdRead
			var data []byte
			if i%3 == 0 {
				cmd, data = nbd.CmdWrite, make([]byte, size)
			}
			if _, err := r.peer.Send(cmd, 0, i, size, data); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	seen := make(map[uint64]bool)
	for range n {
		reply, err := r.peer.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if seen[reply.Cookie] {
			t.Fatalf("two replies to %#x", reply.Cookie)
		}
		seen[reply.Cookie] = true
		off := reply.Cookie>>32 - 1
		for _, x := range reply.Data {
			if x != byte(off) {
				t.Fatalf("reply to the read of %d holds %d", off, x)
			}
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := r.peer.Disconnect(); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	close(b.requests)
	wg.Wait()
}

func TestPeerThatVanishesLeavesNothingBehind(t *testing.T) {
	b := newManualBackend()
	pool := nbd.NewBufferPool(0)
	r := serve(t, &nbd.Export{Size: 1 << 30}, b, &nbd.ServerOptions{Pool: pool, SendBuffer: 64 << 10})
	for range 8 {
		if _, err := r.peer.Send(nbd.CmdRead, 0, 0, 1<<20, nil); err != nil {
			t.Fatal(err)
		}
	}
	var requests []*nbd.Request
	for range 8 {
		requests = append(requests, <-b.requests)
	}
	for _, req := range requests[:4] {
		complete(req, 0)
	}
	r.peer.Close()
	select {
	case <-r.done:
		t.Fatal("ServeConn returned with requests in flight")
	default:
	}
	for _, req := range requests[4:] {
		complete(req, syscall.EIO)
	}
	if err := r.wait(); err == nil {
		t.Error("no error")
	}
	if n := pool.Outstanding(); n != 0 {
		t.Errorf("%d buffers did not come back", n)
	}
}

func TestClosingTheSocketEndsServeConn(t *testing.T) {
	m := nbdtest.NewMemory(1 << 20)
	r := serve(t, m.Export(""), m, nil)
	if err := r.peer.Flush(); err != nil {
		t.Fatal(err)
	}
	r.conn.Close()
	if err := r.wait(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v, want net.ErrClosed", err)
	}
}

func TestDrainedConnectionIsServedOn(t *testing.T) {
	m := nbdtest.NewMemory(1 << 20)
	r := serve(t, m.Export(""), m, nil)
	if err := r.peer.Write(pattern(4096, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := r.wait(); err != nbd.ErrDrained {
		t.Fatalf("got %v, want ErrDrained", err)
	}
	// What comes meanwhile waits in the socket.
	if _, err := r.peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- nbd.ServeConn(context.Background(), r.conn, m.Export(""), m, nil) }()
	if reply, err := r.peer.Recv(); err != nil || len(reply.Data) != 4096 {
		t.Fatalf("read after the hand-over: %v", err)
	}
	if err := r.peer.Disconnect(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestDrainAnswersWhatIsInFlight(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, nil)
	if _, err := r.peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	req := <-b.requests
	r.stop()
	select {
	case <-r.done:
		t.Fatal("drained with a request in flight")
	default:
	}
	complete(req, 0)
	if err := r.wait(); err != nbd.ErrDrained {
		t.Fatalf("got %v, want ErrDrained", err)
	}
	if _, err := r.peer.Recv(); err != nil {
		t.Fatal(err)
	}
}

func TestDrainFinishesTheRequestThatHasBegun(t *testing.T) {
	h := nbd.RequestHeader{Cmd: nbd.CmdWrite, Length: 100 << 10}
	request := append(h.Append(nil), pattern(100<<10, 1)...)
	// The next request is the successor's, to its last byte.
	next := (&nbd.RequestHeader{Cmd: nbd.CmdRead, Cookie: 1, Length: 512}).Append(nil)
	for _, tt := range []struct {
		name  string
		first int
	}{
		{"in its header", 5},
		{"before its payload", nbd.RequestSize},
		{"in its payload", 3000},
		{"one byte before its end", len(request) - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := nbdtest.NewMemory(1 << 20)
				client, server := net.Pipe()
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() { done <- nbd.ServeConn(ctx, server, m.Export(""), m, nil) }()
				if _, err := client.Write(request[:tt.first]); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				stop()
				synctest.Wait()
				wrote := make(chan error, 1)
				go func() {
					_, err := client.Write(append(request[tt.first:len(request):len(request)], next...))
					wrote <- err
				}()
				if _, err := io.ReadFull(client, make([]byte, nbd.ReplySize)); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nbd.ErrDrained {
					t.Fatalf("got %v, want ErrDrained", err)
				}
				b := make([]byte, len(next))
				if _, err := io.ReadFull(server, b); err != nil {
					t.Fatal(err)
				}
				if err := <-wrote; err != nil {
					t.Fatal(err)
				}
				if h, err := nbd.ParseRequest(b); err != nil || h.Cookie != 1 {
					t.Fatalf("the successor got %+v, %v", h, err)
				}
				client.Close()
				server.Close()
			})
		})
	}
}

func TestDrainGivesUpOnAPeerThatIsStuck(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent []byte
	}{
		{"within a request", (&nbd.RequestHeader{Cmd: nbd.CmdWrite, Length: 4096}).Append(nil)},
		{"not reading its reply", (&nbd.RequestHeader{Cmd: nbd.CmdRead, Length: 4096}).Append(nil)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := nbdtest.NewMemory(1 << 20)
				client, server := net.Pipe()
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() {
					done <- nbd.ServeConn(ctx, server, m.Export(""), m, &nbd.ServerOptions{DrainTimeout: time.Minute})
				}()
				if _, err := client.Write(tt.sent); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				start := time.Now()
				stop()
				if err := <-done; !errors.Is(err, nbd.ErrPeerStuck) {
					t.Fatalf("got %v, want ErrPeerStuck", err)
				}
				if d := time.Since(start); d > 2*time.Minute {
					t.Errorf("it took %v", d)
				}
				client.Close()
			})
		})
	}
}

// The backend may take longer than DrainTimeout, as when its session recovers.
func TestDrainWaitsForTheBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newManualBackend()
		client, server := net.Pipe()
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- nbd.ServeConn(ctx, server, &nbd.Export{Size: 1 << 20}, b, nil) }()
		peer := nbdtest.NewPeer(client)
		if _, err := peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
			t.Fatal(err)
		}
		req := <-b.requests
		stop()
		time.Sleep(10 * time.Minute) // the bubble's clock
		complete(req, 0)
		if _, err := peer.Recv(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nbd.ErrDrained {
			t.Fatalf("got %v, want ErrDrained", err)
		}
		client.Close()
		server.Close()
	})
}
