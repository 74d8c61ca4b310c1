//go:build linux

package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
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

// A manualBackend hands every request to the test.
type manualBackend struct {
	requests chan *nbd.Request
	kicks    chan struct{} // one for each Kick, as far as the buffer goes
}

func newManualBackend() *manualBackend {
	return &manualBackend{requests: make(chan *nbd.Request, 1024), kicks: make(chan struct{}, 1024)}
}

func (b *manualBackend) Submit(r *nbd.Request) { b.requests <- r }

func (b *manualBackend) Kick() {
	select {
	case b.kicks <- struct{}{}:
	default:
	}
}

// complete completes r, with whatever is in the buffer of a read, and flushes its
// connection.
func complete(r *nbd.Request, errno syscall.Errno) {
	c := r.Conn()
	r.Buffer()
	r.Complete(errno)
	c.Flush()
}

func TestRequestsAreChecked(t *testing.T) {
	const size = 1 << 20
	full := nbd.Export{Size: size, BlockSize: 512, MaxBlockSize: 64 << 10, Flush: true, FUA: true, Trim: true, WriteZeroes: true}
	plain := nbd.Export{Size: size}
	readOnly := full
	readOnly.ReadOnly = true
	for _, tt := range []struct {
		name   string
		export nbd.Export
		cmd    nbd.Command
		flags  nbd.CommandFlags
		off    uint64
		length uint32
		want   syscall.Errno
	}{
		{"read of the last block", full, nbd.CmdRead, 0, size - 512, 512, 0},
		{"read with FUA", full, nbd.CmdRead, nbd.CmdFlagFUA, 0, 512, 0},
		{"read beyond the end", full, nbd.CmdRead, 0, size - 512, 1024, syscall.EINVAL},
		{"read from beyond the end", full, nbd.CmdRead, 0, size + 512, 512, syscall.EINVAL},
		{"read with an offset that overflows", full, nbd.CmdRead, 0, 1<<64 - 512, 1024, syscall.EINVAL},
		{"read of nothing", full, nbd.CmdRead, 0, 0, 0, syscall.EINVAL},
		{"read at an unaligned offset", full, nbd.CmdRead, 0, 256, 512, syscall.EINVAL},
		{"read of an unaligned length", full, nbd.CmdRead, 0, 0, 100, syscall.EINVAL},
		{"unaligned read without block size", plain, nbd.CmdRead, 0, 3, 5, 0},
		{"read longer than the maximum", full, nbd.CmdRead, 0, 0, 64<<10 + 512, syscall.EINVAL},
		{"read of 4 GiB", full, nbd.CmdRead, 0, 0, 1<<32 - 512, syscall.EINVAL},
		{"write", full, nbd.CmdWrite, 0, 0, 512, 0},
		{"write with FUA", full, nbd.CmdWrite, nbd.CmdFlagFUA, 0, 512, 0},
		{"write beyond the end", full, nbd.CmdWrite, 0, size, 512, syscall.ENOSPC},
		{"write longer than the maximum", full, nbd.CmdWrite, 0, 0, 128 << 10, syscall.EINVAL},
		{"write of nothing", full, nbd.CmdWrite, 0, 0, 0, syscall.EINVAL},
		{"unaligned write", full, nbd.CmdWrite, 0, 1, 512, syscall.EINVAL},
		{"write to a read-only export", readOnly, nbd.CmdWrite, 0, 0, 512, syscall.EPERM},
		{"write with FUA that is not offered", plain, nbd.CmdWrite, nbd.CmdFlagFUA, 0, 512, syscall.EINVAL},
		{"write with an unknown flag", full, nbd.CmdWrite, 1 << 9, 0, 512, syscall.EINVAL},
		{"read with DF", full, nbd.CmdRead, nbd.CmdFlagDF, 0, 512, syscall.EINVAL},
		{"flush", full, nbd.CmdFlush, 0, 0, 0, 0},
		{"flush that is not offered", plain, nbd.CmdFlush, 0, 0, 0, syscall.EINVAL},
		{"flush with an unknown flag", full, nbd.CmdFlush, 1 << 5, 0, 0, syscall.EINVAL},
		{"trim", full, nbd.CmdTrim, 0, 0, size, 0},
		{"trim beyond the end", full, nbd.CmdTrim, 0, 512, size, syscall.EINVAL},
		{"trim that is not offered", plain, nbd.CmdTrim, 0, 0, 512, syscall.EINVAL},
		{"trim of a read-only export", readOnly, nbd.CmdTrim, 0, 0, 512, syscall.EPERM},
		{"write zeroes", full, nbd.CmdWriteZeroes, 0, 0, size, 0},
		{"write zeroes without hole", full, nbd.CmdWriteZeroes, nbd.CmdFlagNoHole | nbd.CmdFlagFUA, 0, 512, 0},
		{"write zeroes fast", full, nbd.CmdWriteZeroes, nbd.CmdFlagFastZero, 0, 512, syscall.EINVAL},
		{"write zeroes beyond the end", full, nbd.CmdWriteZeroes, 0, size, 512, syscall.ENOSPC},
		{"write zeroes that is not offered", plain, nbd.CmdWriteZeroes, 0, 0, 512, syscall.EINVAL},
		{"write zeroes of a read-only export", readOnly, nbd.CmdWriteZeroes, 0, 0, 512, syscall.EPERM},
		{"cache", full, nbd.CmdCache, 0, 0, 512, syscall.EINVAL},
		{"unknown command", full, 99, 0, 0, 512, syscall.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := nbdtest.NewMemory(size)
			r := serve(t, &tt.export, m, nil)
			var data []byte
			if tt.cmd == nbd.CmdWrite {
				data = make([]byte, tt.length)
			}
			_, err := r.peer.Do(tt.cmd, tt.flags, tt.off, tt.length, data)
			if got, _ := err.(syscall.Errno); got != tt.want || err != nil && got == 0 {
				t.Fatalf("got %v, want errno %v", err, tt.want)
			}
			if n := m.Seen(tt.cmd, tt.flags); n != map[bool]int{true: 1}[tt.want == 0] {
				t.Errorf("backend saw the request %d times", n)
			}
			// The stream is in step whatever came.
			if _, err := r.peer.Read(0, 512); err != nil {
				t.Errorf("read afterwards: %v", err)
			}
		})
	}
}

func TestOversizedWriteIsDropped(t *testing.T) {
	m := nbdtest.NewMemory(1 << 20)
	r := serve(t, m.Export(""), m, nil)
	if _, err := r.peer.Send(nbd.CmdWrite, 0, 0, nbd.MaxPayload+512, nil); err != nil {
		t.Fatal(err)
	}
	var fe *nbd.FormatError
	if err := r.wait(); !errors.As(err, &fe) || fe.Field != "length" {
		t.Fatalf("got %v, want a FormatError about the length", err)
	}
}

func TestGarbageEndsTheConnection(t *testing.T) {
	m := nbdtest.NewMemory(1 << 20)
	r := serve(t, m.Export(""), m, nil)
	if _, err := r.peer.Conn().Write(make([]byte, nbd.RequestSize)); err != nil {
		t.Fatal(err)
	}
	var fe *nbd.FormatError
	if err := r.wait(); !errors.As(err, &fe) || fe.Field != "magic" {
		t.Fatalf("got %v, want a FormatError about the magic", err)
	}
}

func TestEndOfStreamIsToldApart(t *testing.T) {
	request := (&nbd.RequestHeader{Cmd: nbd.CmdWrite, Length: 4096}).Append(nil)
	for _, tt := range []struct {
		name string
		sent []byte
		want error
	}{
		{"before the first request", nil, io.EOF},
		{"within a header", request[:10], io.ErrUnexpectedEOF},
		{"before the payload", request, io.ErrUnexpectedEOF},
		{"within the payload", append(request[:len(request):len(request)], 1, 2, 3), io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool := nbd.NewBufferPool(0)
			m := nbdtest.NewMemory(1 << 20)
			r := serve(t, m.Export(""), m, &nbd.ServerOptions{Pool: pool})
			if _, err := r.peer.Conn().Write(tt.sent); err != nil {
				t.Fatal(err)
			}
			r.peer.Close()
			if err := r.wait(); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if n := pool.Outstanding(); n != 0 {
				t.Errorf("%d buffers did not come back", n)
			}
		})
	}
}

func TestSlowRequestDelaysNoOther(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, nil)
	var cookies []uint64
	for range 3 {
		c, err := r.peer.Send(nbd.CmdRead, 0, 0, 512, nil)
		if err != nil {
			t.Fatal(err)
		}
		cookies = append(cookies, c)
	}
	slow := <-b.requests
	for i := range 2 {
		complete(<-b.requests, 0)
		reply, err := r.peer.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if reply.Cookie != cookies[i+1] {
			t.Errorf("reply %d is to %#x, want %#x", i, reply.Cookie, cookies[i+1])
		}
	}
	complete(slow, syscall.ENOMEDIUM)
	reply, err := r.peer.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if reply.Cookie != cookies[0] || reply.Err != syscall.EIO {
		t.Errorf("got %+v, want EIO for %#x", reply, cookies[0])
	}
}

func TestErrnosAreThoseOfTheProtocol(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 20, Flush: true}, b, nil)
	for in, want := range map[syscall.Errno]syscall.Errno{
		syscall.EPERM: syscall.EPERM, syscall.EROFS: syscall.EPERM, syscall.ENOMEM: syscall.ENOMEM,
		syscall.EINVAL: syscall.EINVAL, syscall.EDQUOT: syscall.ENOSPC, syscall.EOVERFLOW: syscall.EOVERFLOW,
		syscall.EOPNOTSUPP: syscall.EOPNOTSUPP, syscall.ESHUTDOWN: syscall.ESHUTDOWN, syscall.ENODEV: syscall.EIO,
		syscall.EBADE: syscall.EIO,
	} {
		go func() { complete(<-b.requests, in) }()
		if err := r.peer.Flush(); err != want {
			t.Errorf("%v became %v, want %v", in, err, want)
		}
	}
}

func TestDisconnectWaitsForRequestsInFlight(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, nil)
	cookie, err := r.peer.Send(nbd.CmdRead, 0, 0, 4096, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.peer.Disconnect(); err != nil {
		t.Fatal(err)
	}
	req := <-b.requests
	select {
	case <-r.done:
		t.Fatal("ServeConn returned with a request in flight")
	default:
	}
	copy(req.Buffer(), pattern(4096, 1))
	complete(req, 0)
	reply, err := r.peer.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if reply.Cookie != cookie || !bytes.Equal(reply.Data, pattern(4096, 1)) {
		t.Error("the reply is another")
	}
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
}

func TestRequestsAreUsedAgainWithTheirPrivate(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, &nbd.ServerOptions{MaxRequests: 1})
	for i := range 5 {
		if _, err := r.peer.Send(nbd.CmdRead, 0, uint64(i), 1, nil); err != nil {
			t.Fatal(err)
		}
		req := <-b.requests
		if i == 0 && req.Private != nil || i > 0 && req.Private != any(i-1) {
			t.Fatalf("private of request %d is %v", i, req.Private)
		}
		req.Private = i
		complete(req, 0)
		if _, err := r.peer.Recv(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCompletingTwicePanics(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, nil)
	if _, err := r.peer.Send(nbd.CmdRead, 0, 0, 512, nil); err != nil {
		t.Fatal(err)
	}
	req := <-b.requests
	c := req.Conn()
	req.Complete(0)
	defer c.Flush()
	defer func() {
		if recover() == nil {
			t.Error("the second Complete did not panic")
		}
	}()
	req.Complete(0)
}

func TestHugeTrimIsOneRequest(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 40, BlockSize: 512, Trim: true, WriteZeroes: true}, b, nil)
	for _, cmd := range []nbd.Command{nbd.CmdTrim, nbd.CmdWriteZeroes} {
		const length = 1<<32 - 512
		if _, err := r.peer.Send(cmd, 0, 512, length, nil); err != nil {
			t.Fatal(err)
		}
		req := <-b.requests
		if req.Cmd != cmd || req.Offset != 512 || req.Length != length || req.Data != nil {
			t.Errorf("backend got %v %d+%d with %d bytes", req.Cmd, req.Offset, req.Length, len(req.Data))
		}
		complete(req, 0)
		if _, err := r.peer.Recv(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSetSizeTakesEffectAtOnce(t *testing.T) {
	m := nbdtest.NewMemory(2 << 20)
	e := m.Export("")
	e.SetSize(1 << 20)
	r := serve(t, e, m, nil)
	if _, err := r.peer.Read(1<<20, 512); err != syscall.EINVAL {
		t.Fatalf("read beyond the end: %v, want EINVAL", err)
	}
	e.SetSize(2 << 20)
	if _, err := r.peer.Read(1<<20, 512); err != nil {
		t.Fatalf("read after growing: %v", err)
	}
}

func TestInvalidExportIsRefused(t *testing.T) {
	long := string(make([]byte, 5000))
	for name, e := range map[string]nbd.Export{
		"name":             {Name: long},
		"description":      {Description: long},
		"block size":       {BlockSize: 513},
		"large block size": {BlockSize: 1 << 20},
		"preferred":        {BlockSize: 4096, PreferredBlockSize: 512},
		"maximum":          {BlockSize: 4096, MaxBlockSize: 512},
		"large maximum":    {MaxBlockSize: 1 << 30},
		"size":             {Size: 1 << 63},
	} {
		if err := e.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
		server, client := net.Pipe()
		if err := nbd.ServeConn(context.Background(), server, &e, nullBackend{}, nil); err == nil {
			t.Errorf("%s: served", name)
		}
		client.Close()
	}
}

func TestReadTakesItsBufferWhenItIsAskedFor(t *testing.T) {
	b := newManualBackend()
	pool := nbd.NewBufferPool(0)
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, &nbd.ServerOptions{Pool: pool})
	send := func(cmd nbd.Command, payload []byte) *nbd.Request {
		t.Helper()
		if _, err := r.peer.Send(cmd, 0, 0, 4096, payload); err != nil {
			t.Fatal(err)
		}
		return <-b.requests
	}
	read := send(nbd.CmdRead, nil)
	if n := pool.Outstanding(); n != 0 || read.Data != nil {
		t.Errorf("%d buffers and %d bytes of data before the read was answered", n, len(read.Data))
	}
	if n := pool.Used(); n != 4096 {
		t.Errorf("%d bytes count in the bounds, want 4096 from the beginning", n)
	}
	data := read.Buffer()
	if n := pool.Outstanding(); len(data) != 4096 || n != 1 {
		t.Errorf("%d bytes in %d buffers", len(data), n)
	}
	copy(data, pattern(4096, 7))
	if &read.Buffer()[0] != &data[0] {
		t.Error("the second call returned another buffer")
	}
	complete(read, 0)
	if reply, err := r.peer.Recv(); err != nil || !bytes.Equal(reply.Data, pattern(4096, 7)) {
		t.Errorf("not the data that were put there (%v)", err)
	}
	write := send(nbd.CmdWrite, pattern(4096, 9))
	if write.Buffer() != nil || !bytes.Equal(write.Data, pattern(4096, 9)) {
		t.Error("a write has a Buffer, or other data")
	}
	complete(write, 0)
	if _, err := r.peer.Recv(); err != nil {
		t.Fatal(err)
	}
	r.peer.Close()
	r.wait()
	if n := pool.Used(); n != 0 {
		t.Errorf("%d bytes are still in use", n)
	}
}

func TestReadWithoutItsBufferFails(t *testing.T) {
	b := newManualBackend()
	r := serve(t, &nbd.Export{Size: 1 << 20}, b, nil)
	if _, err := r.peer.Send(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	req := <-b.requests
	c := req.Conn()
	req.Complete(0)
	c.Flush()
	if reply, err := r.peer.Recv(); err != nil || !errors.Is(reply.Err, syscall.EIO) {
		t.Errorf("%v, %v: want EIO, as nothing was read", reply, err)
	}
}
