//go:build linux

package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// A scriptedVolume answers each request with the errors given, in Kick.
type scriptedVolume struct {
	mu    sync.Mutex
	queue []*initiator.Request
	err   error
	seen  []initiator.Request
	keep  bool // record what is seen
}

func (v *scriptedVolume) Submit(r *initiator.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.queue = append(v.queue, r)
}

func (v *scriptedVolume) Kick() {
	v.mu.Lock()
	defer v.mu.Unlock()
	var owner initiator.RequestCompleter
	for _, r := range v.queue {
		if v.keep {
			v.seen = append(v.seen, initiator.Request{Op: r.Op, FUA: r.FUA, NoUnmap: r.NoUnmap, Offset: r.Offset, Length: r.Length})
		}
		if r.Err = v.err; r.Err == nil && r.Op == initiator.OpRead {
			r.Data = r.Buffer(r)
		}
		owner = r.Owner
		owner.RequestDone(r)
	}
	v.queue = v.queue[:0]
	if owner != nil {
		owner.Flush()
	}
}

// serveVolume serves a volume to an NBD client.
func serveVolume(tb testing.TB, v Submitter) *nbdtest.Peer {
	tb.Helper()
	return serveBackend(tb, newBackend(v))
}

func serveBackend(tb testing.TB, b nbd.Backend) *nbdtest.Peer {
	tb.Helper()
	peer, conn, err := nbdtest.Pair()
	if err != nil {
		tb.Fatal(err)
	}
	export := &nbd.Export{Size: 1 << 20, BlockSize: 512, Flush: true, FUA: true, Trim: true, WriteZeroes: true}
	done := make(chan error, 1)
	go func() { done <- nbd.ServeConn(context.Background(), conn, export, b, nil) }()
	tb.Cleanup(func() {
		peer.Close()
		if err := <-done; err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			tb.Errorf("server: %v", err)
		}
	})
	return peer
}

func TestRequestsAreTranslated(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(*nbdtest.Peer) error
		want initiator.Request
	}{
		{"read", func(p *nbdtest.Peer) error { _, err := p.Read(1024, 512); return err }, initiator.Request{Op: initiator.OpRead, Offset: 1024, Length: 512}},
		{"write", func(p *nbdtest.Peer) error { return p.Write(make([]byte, 512), 512, 0) }, initiator.Request{Op: initiator.OpWrite, Offset: 512, Length: 512}},
		{"write with FUA", func(p *nbdtest.Peer) error { return p.Write(make([]byte, 512), 512, nbd.CmdFlagFUA) }, initiator.Request{Op: initiator.OpWrite, FUA: true, Offset: 512, Length: 512}},
		{"flush", func(p *nbdtest.Peer) error { return p.Flush() }, initiator.Request{Op: initiator.OpFlush}},
		{"trim", func(p *nbdtest.Peer) error { return p.Trim(0, 4096) }, initiator.Request{Op: initiator.OpDiscard, Length: 4096}},
		{"write zeroes", func(p *nbdtest.Peer) error { return p.WriteZeroes(0, 4096, 0) }, initiator.Request{Op: initiator.OpWriteZeroes, Length: 4096}},
		{"write zeroes, keep blocks", func(p *nbdtest.Peer) error { return p.WriteZeroes(0, 4096, nbd.CmdFlagNoHole) }, initiator.Request{Op: initiator.OpWriteZeroes, NoUnmap: true, Length: 4096}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := &scriptedVolume{keep: true}
			if err := tc.do(serveVolume(t, v)); err != nil {
				t.Fatal(err)
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			if len(v.seen) != 1 {
				t.Fatalf("%d requests", len(v.seen))
			}
			got := v.seen[0]
			if got.Op != tc.want.Op || got.FUA != tc.want.FUA || got.NoUnmap != tc.want.NoUnmap || got.Offset != tc.want.Offset || got.Length != tc.want.Length {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestErrorsReachTheClient(t *testing.T) {
	v := &scriptedVolume{err: &initiator.VolumeError{Op: "write", Kind: initiator.ErrNoSpace, Err: initiator.ErrNoSpace}}
	p := serveVolume(t, v)
	if err := p.Write(make([]byte, 512), 0, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
}

func TestRequestPathDoesNotAllocate(t *testing.T) {
	// The client that measures allocates itself, so what counts is that our
	// backend costs no more than one that does nothing.
	ours, none := writeAllocs(t, newBackend(&scriptedVolume{})), writeAllocs(t, nbdtest.NewMemory(1<<20))
	if ours > none {
		t.Errorf("%v allocations for a write and its answer, %v without us", ours, none)
	}
}

func writeAllocs(t *testing.T, b nbd.Backend) float64 {
	t.Helper()
	p := serveBackend(t, b)
	buf := make([]byte, 4096)
	write := func() {
		if err := p.Write(buf, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		write() // fills the pools
	}
	return testing.AllocsPerRun(200, write)
}

func BenchmarkBackend(b *testing.B) {
	for _, size := range []int{4096, 65536} {
		b.Run(fmt.Sprintf("write/size=%d", size), func(b *testing.B) {
			p := serveBackend(b, newBackend(&scriptedVolume{}))
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Write(buf, 0, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
