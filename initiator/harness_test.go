package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

const (
	testTarget    = "iqn.2001-04.com.example:disk"
	testInitiator = "iqn.2001-04.com.example:client"
	blockSize     = 512
)

// lun1 is the logical unit that most tests use.
var lun1 = pdu.LUNFromNumber(1)

// A rig is a target in the process and what a test needs around it.
type rig struct {
	srv    *iscsitest.Server
	lun    *iscsitest.LUN
	store  *iscsitest.MemStore
	heldUp atomic.Int64 // commands that held has held up
}

// newRig starts a target with one disk. Changes to its Config are made by mod.
func newRig(t testing.TB, mod func(*iscsitest.Config)) *rig {
	t.Helper()
	r := unstartedRig(t, mod)
	if err := r.srv.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

func unstartedRig(t testing.TB, mod func(*iscsitest.Config)) *rig {
	t.Helper()
	r := &rig{store: iscsitest.NewMemStore(64 << 20)}
	r.lun = &iscsitest.LUN{Store: r.store}
	cfg := iscsitest.Config{Targets: []iscsitest.Target{{
		Name: testTarget,
		LUNs: map[uint64]*iscsitest.LUN{1: r.lun},
	}}}
	if mod != nil {
		mod(&cfg)
	}
	r.srv = iscsitest.NewUnstartedServer(cfg)
	t.Cleanup(r.srv.Close)
	return r
}

// config returns what logs in to the rig over TCP.
func (r *rig) config(t testing.TB) initiator.Config {
	t.Helper()
	p, err := initiator.ParsePortal(r.srv.Portal())
	if err != nil {
		t.Fatal(err)
	}
	return initiator.Config{
		InitiatorName: testInitiator,
		Target:        testTarget,
		Portal:        p,
		Params:        initiator.Params{DefaultTime2Wait: initiator.Immediately},
		Logger:        testLogger(t),
	}
}

// pipeConfig returns what logs in to the rig through pipes in memory, which
// works in a synctest bubble.
func (r *rig) pipeConfig(t testing.TB) initiator.Config {
	t.Helper()
	return initiator.Config{
		InitiatorName: testInitiator,
		Target:        testTarget,
		Portal:        initiator.Portal{Host: "pipe", TPGT: initiator.UnknownTPGT},
		Dial:          r.dialPipe,
		Logger:        testLogger(t),
	}
}

func (r *rig) dialPipe(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	go r.srv.ServeConn(theirs) //nolint:errcheck // ends with the connection; Server.Close waits for it
	return ours, nil
}

// dial logs in; the test's end closes the session and fails the test if the
// target saw the protocol violated.
func (r *rig) dial(t testing.TB, cfg initiator.Config) *initiator.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := initiator.Dial(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		r.checkViolations(t)
	})
	return s
}

func (r *rig) checkViolations(t testing.TB) {
	t.Helper()
	for _, v := range r.srv.Violations() {
		t.Errorf("the target complains: %v", v)
	}
}

// testLogger logs to the test while it runs.
func testLogger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}

// readTask returns a READ(16) of n bytes at an offset.
func readTask(off int64, n int) *initiator.Task {
	t := &initiator.Task{LUN: lun1, DataIn: make([]byte, n), Replay: true}
	scsi.Read16(&t.CDB, uint64(off/blockSize), uint32(n/blockSize), 0)
	return t
}

// writeTask returns a WRITE(16) of data at an offset.
func writeTask(off int64, data []byte) *initiator.Task {
	t := &initiator.Task{LUN: lun1, DataOut: data, Replay: true}
	scsi.Write16(&t.CDB, uint64(off/blockSize), uint32(len(data)/blockSize), 0)
	return t
}

// good returns why a finished task is not a complete success.
func good(t *initiator.Task) error {
	switch {
	case t.Err != nil:
		return t.Err
	case t.Status != scsi.StatusGood:
		return fmt.Errorf("status %v, sense % x", t.Status, t.Sense)
	case t.Transferred != len(t.DataIn)+len(t.DataOut) || t.Residual != 0:
		return fmt.Errorf("%d bytes transferred, residual %d", t.Transferred, t.Residual)
	}
	return nil
}

// do carries out a task that must succeed.
func do(t testing.TB, s *initiator.Session, task *initiator.Task) {
	t.Helper()
	if err := doErr(s, task); err != nil {
		t.Fatal(err)
	}
}

func doErr(s *initiator.Session, task *initiator.Task) error {
	if err := s.Do(context.Background(), task); err != nil {
		return err
	}
	return good(task)
}

// pattern fills n bytes with what a seed determines.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	r.Read(b)
	return b
}

// A collector is a Completer that passes finished tasks on through a channel.
type collector struct {
	done    chan *initiator.Task
	mu      sync.Mutex
	flushes int
	pending int // tasks done since the last Flush
}

func newCollector(n int) *collector { return &collector{done: make(chan *initiator.Task, n)} }

func (c *collector) TaskDone(t *initiator.Task) {
	c.mu.Lock()
	c.pending++
	c.mu.Unlock()
	c.done <- t
}

func (c *collector) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushes++
	c.pending = 0
}

// wait returns the next finished task.
func (c *collector) wait(t testing.TB) *initiator.Task {
	t.Helper()
	select {
	case task := <-c.done:
		return task
	case <-time.After(30 * time.Second):
		t.Fatal("a task does not finish")
		return nil
	}
}

// An eventLog receives events.
type eventLog chan initiator.Event

func (l eventLog) add(e initiator.Event) {
	select {
	case l <- e:
	default:
	}
}

// await returns the next event of a type.
func (l eventLog) await(t testing.TB, typ initiator.EventType) initiator.Event {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case e := <-l:
			if e.Type == typ {
				return e
			}
		case <-timeout:
			t.Fatalf("no event %q", typ)
		}
	}
}

// is fails the test if err is not one of the sentinels.
func is(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("error %v is not %v", err, target)
		}
	}
}
