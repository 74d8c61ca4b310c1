package rawsock_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/internal/rawsock"
)

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestReadFillsBothBuffers(t *testing.T) {
	a, b := pair(t)
	if _, err := b.Write([]byte("payload header")); err != nil {
		t.Fatal(err)
	}
	r := rawsock.NewReader(a)
	first, second := make([]byte, 8), make([]byte, 64)
	n, err := r.Read(first, second, true)
	if got := string(first) + string(second[:max(0, n-8)]); err != nil || got != "payload header" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestReadWithoutWaiting(t *testing.T) {
	a, b := pair(t)
	r := rawsock.NewReader(a)
	p := make([]byte, 64)
	if n, err := r.Read(p, nil, false); n != 0 || err != rawsock.ErrWouldBlock {
		t.Fatalf("of an empty socket %d bytes, %v", n, err)
	}
	// What comes later is not missed, though it was looked for before.
	if _, err := b.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(p, nil, true); err != nil || string(p[:n]) != "late" {
		t.Errorf("read %q, %v", p[:n], err)
	}
}

func TestReadAtTheEnd(t *testing.T) {
	for _, wait := range []bool{true, false} {
		a, b := pair(t)
		r := rawsock.NewReader(a)
		b.Close()
		if _, err := r.Read(make([]byte, 64), nil, true); err != io.EOF {
			t.Errorf("the end is %v", err)
		}
		if _, err := r.Read(make([]byte, 64), nil, wait); err != io.EOF {
			t.Errorf("the end with wait %v is %v", wait, err)
		}
	}
}

func TestReadIsInterrupted(t *testing.T) {
	tests := []struct {
		name      string
		interrupt func(net.Conn)
		want      error
	}{
		{"close", func(c net.Conn) { c.Close() }, net.ErrClosed},
		{"deadline", func(c net.Conn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for range 50 {
				a, _ := pair(t)
				r := rawsock.NewReader(a)
				done := make(chan error, 1)
				go func() {
					_, err := r.Read(make([]byte, 64), nil, true)
					done <- err
				}()
				test.interrupt(a)
				if err := <-done; !errors.Is(err, test.want) {
					t.Fatalf("got %v, want %v", err, test.want)
				}
			}
		})
	}
}

func TestWriteLeavesWhatTheSocketDoesNotTake(t *testing.T) {
	a, b := pair(t)
	w := rawsock.NewWriter(a)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than any buffer holds
	var bufs [][]byte
	for p := want; len(p) > 0; p = p[min(len(p), 5000):] { // more than one writev takes
		bufs = append(bufs, p[:min(len(p), 5000)], nil)
	}
	rest, err := w.Write(bufs)
	if err != nil || len(rest) == 0 {
		t.Fatalf("%d buffers are left, %v", len(rest), err)
	}
	go func() {
		left := net.Buffers(rest)
		_, _ = left.WriteTo(a) // the reader sees what is missing
		a.Close()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d came, %v", len(got), len(want), err)
	}
}

func TestWriteToAClosedSocket(t *testing.T) {
	a, _ := pair(t)
	w := rawsock.NewWriter(a)
	a.Close()
	if _, err := w.Write([][]byte{[]byte("x")}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestOtherConnections(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if rawsock.NewReader(a) != nil || rawsock.NewWriter(a) != nil {
		t.Error("a pipe is taken for a socket")
	}
}

func TestNothingIsAllocated(t *testing.T) {
	a, b := pair(t)
	r, w := rawsock.NewReader(a), rawsock.NewWriter(b)
	data, p := [][]byte{[]byte("header"), []byte("data")}, make([]byte, 64)
	bufs := make([][]byte, 2)
	if n := testing.AllocsPerRun(100, func() {
		copy(bufs, data)
		if _, err := w.Write(bufs); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(p[:4], p[4:], true); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for a message", n)
	}
}
