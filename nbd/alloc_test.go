//go:build linux && !race

package nbd_test

import (
	"io"
	"testing"

	"github.com/goiscsi/goiscsi/nbd"
)

// The race detector allocates, so these tests are for builds without it.

func TestServingAllocatesNothing(t *testing.T) {
	for _, cmd := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite} {
		t.Run(cmd.String(), func(t *testing.T) {
			r := serve(t, &nbd.Export{Size: 1 << 30}, nullBackend{}, nil)
			l := newLoad(r.peer.Conn(), cmd, 4096, 16)
			round := func() {
				if _, err := l.nc.Write(l.requests); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(l.nc, l.replies); err != nil {
					t.Fatal(err)
				}
			}
			round() // fills the pools
			if n := testing.AllocsPerRun(200, round); n != 0 {
				t.Errorf("%v allocations for 16 requests, want 0", n)
			}
		})
	}
}

func TestServingAsynchronouslyAllocatesNothing(t *testing.T) {
	b := newAsyncBackend()
	defer b.close()
	// A small send buffer makes the sender goroutine take its part.
	r := serve(t, &nbd.Export{Size: 1 << 30}, b, &nbd.ServerOptions{SendBuffer: 8 << 10})
	l := newLoad(r.peer.Conn(), nbd.CmdRead, 32<<10, 16)
	round := func() {
		if _, err := l.nc.Write(l.requests); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(l.nc, l.replies); err != nil {
			t.Fatal(err)
		}
	}
	round() // fills the pools
	if n := testing.AllocsPerRun(200, round); n != 0 {
		t.Errorf("%v allocations for 16 requests, want 0", n)
	}
}
