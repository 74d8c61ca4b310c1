package iscsitest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// A loader keeps a number of READs or WRITEs in flight without allocating, so
// that what is measured is the server.
type loader struct {
	c     *client
	cmd   pdu.SCSICommand
	in    pdu.DataIn
	rsp   pdu.SCSIResponse
	data  []byte
	write bool
}

func newLoader(tb testing.TB, size int, write bool, digest string) *loader {
	tb.Helper()
	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: target, LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NullStore(1 << 40)}},
	}}})
	tb.Cleanup(srv.Close)
	c := login(tb, srv, kv("HeaderDigest", digest), kv("DataDigest", digest), kv("FirstBurstLength", "262144"),
		kv("MaxRecvDataSegmentLength", "262144"), kv("MaxBurstLength", "1048576"))
	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		tb.Fatal(err)
	}
	l := &loader{c: c, data: make([]byte, size), write: write}
	build := readCDB(0, uint32(size/512))
	if write {
		build = writeCDB(0, uint32(size/512))
	}
	l.cmd = *c.command(1, build, size)
	c.cmdSN--
	l.cmd.Read, l.cmd.Write = !write, write
	if write {
		l.cmd.Data = l.data
	}
	return l
}

// round sends n commands with one write and takes their answers.
func (l *loader) round(n int) error {
	for range n {
		l.cmd.InitiatorTaskTag = l.c.tag()
		l.cmd.CmdSN, l.cmd.ExpStatSN = l.c.next(), l.c.expStat
		if err := l.c.w.Append(&l.cmd); err != nil {
			return err
		}
	}
	if err := l.c.w.Flush(); err != nil {
		return err
	}
	for range n {
		h, err := l.c.r.Next()
		if err != nil {
			return err
		}
		if l.write {
			err = l.rsp.Decode(h, nil)
		} else if err = l.in.Decode(h, nil); err == nil {
			err = l.c.r.ReadData(l.data)
		}
		if err != nil {
			return err
		}
		l.c.expStat = h.StatSN() + 1
	}
	return nil
}

func TestReadsAndWritesDoNotAllocate(t *testing.T) {
	for _, write := range []bool{false, true} {
		for _, digest := range []string{"None", "CRC32C"} {
			t.Run(fmt.Sprintf("write=%v/digest=%s", write, digest), func(t *testing.T) {
				l := newLoader(t, 4096, write, digest)
				var failed error
				n := testing.AllocsPerRun(50, func() {
					if err := l.round(32); err != nil {
						failed = err
					}
				})
				if n != 0 || failed != nil {
					t.Errorf("%v allocations in 32 commands, error %v", n, failed)
				}
			})
		}
	}
}

func TestSolicitedWritesDoNotAllocate(t *testing.T) {
	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: target, LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NullStore(1 << 40)}},
	}}})
	t.Cleanup(srv.Close)
	c := login(t, srv)
	cmd := c.command(1, writeCDB(0, 16), 8192)
	c.cmdSN--
	cmd.Write = true
	data := make([]byte, 8192)
	var out pdu.DataOut
	var r2t pdu.R2T
	var failed error
	must := func(err error) {
		if err != nil {
			failed = err
		}
	}
	n := testing.AllocsPerRun(50, func() {
		cmd.InitiatorTaskTag, cmd.CmdSN, cmd.ExpStatSN = c.tag(), c.next(), c.expStat
		must(c.w.Append(cmd))
		must(c.w.Flush())
		h, err := c.r.Next()
		must(err)
		must(r2t.Decode(h, nil))
		out = pdu.DataOut{
			Final: true, LUN: cmd.LUN, InitiatorTaskTag: cmd.InitiatorTaskTag,
			TargetTransferTag: r2t.TargetTransferTag, ExpStatSN: c.expStat, Data: data,
		}
		must(c.w.Append(&out))
		must(c.w.Flush())
		h, err = c.r.Next()
		must(err)
		c.expStat = h.StatSN() + 1
	})
	if n != 0 || failed != nil {
		t.Errorf("%v allocations a write, error %v", n, failed)
	}
	noViolations(t, srv)
}

func BenchmarkServer(b *testing.B) {
	for _, op := range []string{"read", "write"} {
		for _, size := range []int{512, 4096, 65536, 262144} {
			for _, depth := range []int{1, 32} {
				for _, digest := range []string{"None", "CRC32C"} {
					b.Run(fmt.Sprintf("op=%s/size=%d/depth=%d/digest=%s", op, size, depth, digest), func(b *testing.B) {
						l := newLoader(b, size, op == "write", digest)
						b.SetBytes(int64(size * depth))
						b.ReportAllocs()
						for b.Loop() {
							if err := l.round(depth); err != nil {
								b.Fatal(err)
							}
						}
						b.ReportMetric(float64(b.N*depth)/b.Elapsed().Seconds(), "iops")
					})
				}
			}
		}
	}
}
