// Command iscsiperf drives a logical unit through package initiator, without
// NBD: the counterpart of libiscsi's iscsi-perf.
//
//	iscsiperf [-rw randread] [-size 4096] [-depth 32] [-seconds 3] iscsi://HOST:PORT/TARGET/LUN
//
// It prints the I/Os a second, the data rate and the heap allocations per I/O.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "iscsiperf:", err)
		os.Exit(1)
	}
}

// A load keeps requests in flight until its time is over. The volume calls it
// from the session's receive goroutine, which alone uses its plain fields once
// the first requests are submitted.
type load struct {
	v      *initiator.Volume
	blocks int64 // of size bytes
	size   int64
	random bool
	next   int64

	stop  atomic.Bool
	total atomic.Int64
	busy  int
	err   error
	done  chan struct{} // closed when the last request is back
}

// RequestDone implements initiator.RequestCompleter.
func (l *load) RequestDone(r *initiator.Request) {
	if r.Err != nil && l.err == nil {
		l.err = r.Err
		l.stop.Store(true)
	}
	l.total.Add(1)
	if !l.stop.Load() {
		l.submit(r)
		return
	}
	if l.busy--; l.busy == 0 {
		close(l.done)
	}
}

// Flush implements initiator.RequestCompleter.
func (l *load) Flush() { l.v.Kick() }

func (l *load) submit(r *initiator.Request) {
	block := l.next
	if l.random {
		block = rand.Int64N(l.blocks)
	} else {
		l.next = (l.next + 1) % l.blocks
	}
	r.Offset = block * l.size
	l.v.Submit(r)
}

func run() error {
	rw := flag.String("rw", "randread", "`kind`: randread, randwrite, read, write")
	size := flag.Int64("size", 4096, "`bytes` of a request")
	depth := flag.Int("depth", 32, "requests in flight")
	seconds := flag.Float64("seconds", 3, "how long, in `seconds`")
	digest := flag.Bool("digest", false, "with CRC32C digests")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if flag.NArg() != 1 || *size < 512 || *depth < 1 {
		flag.Usage()
		return errors.New("want one URL, a size of at least 512 and a depth of at least 1")
	}
	cfg, lun, err := parseURL(flag.Arg(0))
	if err != nil {
		return err
	}
	cfg.QueueDepth, cfg.CmdsMax = *depth, max(2**depth, 128)
	if *digest {
		crc := []initiator.Digest{initiator.DigestCRC32C}
		cfg.Params.HeaderDigest, cfg.Params.DataDigest = crc, crc
	}
	ctx := context.Background()
	v, err := initiator.Connect(ctx, initiator.Target{
		Name: cfg.Target, Portals: []initiator.Portal{cfg.Portal}, LUN: lun, InitiatorName: cfg.InitiatorName, CHAP: cfg.CHAP, Session: cfg,
	})
	if err != nil {
		return err
	}
	l := &load{
		v: v, size: *size, blocks: v.Size() / *size, random: strings.HasPrefix(*rw, "rand"),
		busy: *depth, done: make(chan struct{}),
	}
	op := initiator.OpRead
	if strings.HasSuffix(*rw, "write") {
		op = initiator.OpWrite
	}
	if l.blocks == 0 {
		return fmt.Errorf("the unit has %d bytes", v.Size())
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	requests := make([]initiator.Request, *depth)
	for i := range requests {
		r := &requests[i]
		r.Op, r.Data, r.Owner = op, make([]byte, *size), l
		l.submit(r)
	}
	v.Kick()
	timer := time.AfterFunc(time.Duration(*seconds*float64(time.Second)), func() { l.stop.Store(true) })
	<-l.done
	timer.Stop()
	elapsed := time.Since(begin).Seconds()
	runtime.ReadMemStats(&after)
	if err := errors.Join(l.err, v.Disconnect(ctx)); err != nil {
		return err
	}
	total := float64(l.total.Load())
	result := struct{ IOPS, MiBps, Total, AllocsPerIO float64 }{
		total / elapsed, total * float64(*size) / elapsed / (1 << 20), total, float64(after.Mallocs-before.Mallocs) / total,
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(result)
	}
	fmt.Printf("%.0f IOPS, %.1f MiB/s, %.4f allocations per I/O\n", result.IOPS, result.MiBps, result.AllocsPerIO)
	return nil
}

// parseURL reads libiscsi's notation of a logical unit, without a user.
func parseURL(s string) (initiator.Config, uint64, error) {
	u, err := url.Parse(s)
	if err != nil {
		return initiator.Config{}, 0, err
	}
	name, unit, ok := strings.Cut(strings.Trim(u.Path, "/"), "/")
	lun, err := strconv.ParseUint(unit, 10, 64)
	if u.Scheme != "iscsi" || !ok || err != nil {
		return initiator.Config{}, 0, fmt.Errorf("%q: want iscsi://HOST:PORT/TARGET/LUN", s)
	}
	portal, err := initiator.ParsePortal(u.Host)
	return initiator.Config{
		InitiatorName: "iqn.2026-11.com.example:iscsiperf", Target: name, Portal: portal,
	}, lun, err
}
