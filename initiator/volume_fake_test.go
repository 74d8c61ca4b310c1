package initiator

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// A fakeDisk is a taskPort with a disk behind it. Tasks are carried out by one
// goroutine after each Kick, a batch at a time, as a session's receive goroutine
// does. Tests make it misbehave by fault.
type fakeDisk struct {
	mu        sync.Mutex
	data      []byte
	info      scsi.InquiryData
	serial    string
	ids       []scsi.Designator
	cap       scsi.Capacity
	header    scsi.ModeHeader
	caching   scsi.CachingPage
	noCaching bool // no such page
	limits    scsi.BlockLimits
	prov      scsi.Provisioning
	usage     byte // second byte of the usage map of WRITE SAME(16); 0xff: REPORT SUPPORTED … is unknown
	pages     scsi.VPDPages

	// fault looks at a task before it is carried out; true means that it was
	// finished by fault. Called with mu held.
	fault func(c scsi.Command, t *Task) bool

	// hold keeps tasks that are read or written from being finished.
	hold func(c scsi.Command) bool
	held []*Task

	aborted []*Task // by abandon, to be given back

	queue    []*Task
	inFlight int
	most     int // the highest inFlight so far
	commands []scsi.Command
	batches  int

	wake    chan struct{}
	stopped chan struct{}
}

const fakeLUN = pdu.LUN(1 << 48)

// newFakeDisk makes a disk with all features. Its goroutine ends with the test.
func newFakeDisk(t testing.TB, size, blockSize int) *fakeDisk {
	d := &fakeDisk{
		data:    make([]byte, size),
		info:    scsi.InquiryData{Version: 6, CmdQueue: true, Vendor: "FAKE", Product: "DISK", Revision: "1"},
		serial:  "0001",
		ids:     []scsi.Designator{{Type: scsi.DesignatorNAA, CodeSet: scsi.CodeSetBinary, ID: []byte{0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}},
		cap:     scsi.Capacity{LastLBA: uint64(size/blockSize - 1), BlockSize: uint32(blockSize), Thin: true, ThinReadsZero: true},
		header:  scsi.ModeHeader{DPOFUA: true},
		caching: scsi.CachingPage{WriteCache: true},
		limits:  scsi.BlockLimits{MaxUnmapBlocks: 1 << 20, MaxUnmapDescriptors: 1, MaxCompareAndWrite: 2},
		prov:    scsi.Provisioning{Unmap: true, WriteSame16: true, ReadZeros: 1},
		usage:   byte(scsi.SameNDOB | scsi.SameUnmap),
		wake:    make(chan struct{}, 1),
		stopped: make(chan struct{}),
	}
	for _, p := range []scsi.VPDPage{0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2} {
		d.pages.Add(p)
	}
	go d.run()
	t.Cleanup(func() { close(d.wake); <-d.stopped })
	return d
}

// prober returns one with a bounded patience.
func (d *fakeDisk) prober() *prober {
	return &prober{port: d, clock: newClock(), target: "iqn.2026-01.test:disk", log: slog.New(slog.DiscardHandler)}
}

// open opens the disk and closes the volume with the test.
func (d *fakeDisk) open(t testing.TB, o VolumeOptions) *Volume {
	t.Helper()
	v, err := openVolume(t.Context(), d.prober(), fakeLUN, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// with runs f under the disk's lock.
func (d *fakeDisk) with(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// seen returns the block commands carried out or failed since the last call,
// those that only ask for information left out.
func (d *fakeDisk) seen() []scsi.Command {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.commands
	d.commands = nil
	return all
}

func (d *fakeDisk) Submit(t *Task) {
	t.reset()
	d.mu.Lock()
	d.queue = append(d.queue, t)
	d.inFlight++
	d.most = max(d.most, d.inFlight)
	d.mu.Unlock()
}

func (d *fakeDisk) Kick() {
	d.mu.Lock()
	d.batches++
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *fakeDisk) Do(ctx context.Context, t *Task) error {
	w := &waiter{done: make(chan struct{}, 1)}
	t.Owner = w
	d.Submit(t)
	d.Kick()
	select {
	case <-w.done:
	case <-ctx.Done():
		d.abandon(t, context.Cause(ctx))
		<-w.done
	}
	return t.Err
}

// abandon ends a task that is not carried out yet.
func (d *fakeDisk) abandon(t *Task, cause error) {
	d.mu.Lock()
	for _, l := range []*[]*Task{&d.queue, &d.held} {
		if i := slices.Index(*l, t); i >= 0 {
			*l = slices.Delete(*l, i, i+1)
			t.Err = cause
			d.aborted = append(d.aborted, t)
		}
	}
	d.mu.Unlock()
	d.Kick()
}

// unhold lets the tasks that are held go on.
func (d *fakeDisk) unhold() {
	d.mu.Lock()
	d.hold = nil
	d.queue = append(d.held, d.queue...)
	d.held = nil
	d.mu.Unlock()
	d.Kick()
}

// run finishes tasks.
func (d *fakeDisk) run() {
	defer close(d.stopped)
	for range d.wake {
		d.mu.Lock()
		batch := d.queue
		d.queue = nil
		done := d.aborted
		d.inFlight -= len(done)
		d.aborted = nil
		for _, t := range batch {
			c, err := scsi.ParseCommand(t.CDB[:])
			if err == nil && d.hold != nil && d.hold(c) {
				d.held = append(d.held, t)
				continue
			}
			if err == nil {
				d.note(c)
			}
			switch {
			case err != nil:
				d.fail(t, scsi.KeyIllegalRequest, 0x20, 0)
			case d.fault != nil && d.fault(c, t):
			default:
				d.execute(c, t)
			}
			done = append(done, t)
			d.inFlight--
		}
		d.mu.Unlock()
		for _, t := range done {
			owner := t.Owner // t is the owner's again after TaskDone
			owner.TaskDone(t)
			owner.Flush()
		}
	}
}

func (d *fakeDisk) note(c scsi.Command) {
	switch c.Op {
	case scsi.OpInquiry, scsi.OpTestUnitReady, scsi.OpServiceActionIn16, scsi.OpReadCapacity10,
		scsi.OpModeSense6, scsi.OpModeSense10, scsi.OpMaintenanceIn:
		return
	}
	d.commands = append(d.commands, c)
}

// fail ends a task with sense data.
func (d *fakeDisk) fail(t *Task, k scsi.SenseKey, asc, ascq uint8) bool {
	t.Status = scsi.StatusCheckCondition
	t.setSense(scsi.NewSense(k, asc, ascq).Append(nil))
	return true
}

// give ends a task with data.
func (d *fakeDisk) give(t *Task, b []byte) {
	t.Transferred = copy(t.DataIn, b)
	t.Residual = int64(len(t.DataIn) - t.Transferred)
	if len(b) > len(t.DataIn) {
		t.Residual = int64(len(t.DataIn) - len(b))
	}
}

func (d *fakeDisk) execute(c scsi.Command, t *Task) {
	bs := int(d.cap.BlockSize)
	at := int(c.LBA) * bs
	n := int(c.Blocks) * bs
	switch c.Op {
	case scsi.OpTestUnitReady, scsi.OpSynchronizeCache10, scsi.OpStartStopUnit:
	case scsi.OpInquiry:
		d.inquiry(c, t)
	case scsi.OpServiceActionIn16:
		d.give(t, d.cap.Append16(nil))
	case scsi.OpReadCapacity10:
		d.give(t, d.cap.Append10(nil))
	case scsi.OpModeSense6:
		d.give(t, d.header.AppendModeSense6(nil, d.modePages()))
	case scsi.OpModeSense10:
		d.give(t, d.header.AppendModeSense10(nil, d.modePages()))
	case scsi.OpMaintenanceIn:
		if d.usage == 0xff {
			d.fail(t, scsi.KeyIllegalRequest, 0x20, 0)
			return
		}
		d.give(t, scsi.OpcodeSupport{Known: true, Supported: d.usage != 0, Usage: append([]byte{byte(c.RequestedOp), d.usage}, make([]byte, 14)...)}.Append(nil))
	case scsi.OpRead10, scsi.OpRead16:
		d.give(t, d.data[at:at+n])
	case scsi.OpWrite10, scsi.OpWrite16:
		t.Transferred = copy(d.data[at:at+n], t.DataOut)
	case scsi.OpUnmap:
		extents, err := scsi.ParseUnmapList(t.DataOut)
		if err != nil {
			d.fail(t, scsi.KeyIllegalRequest, 0x26, 0)
			return
		}
		for _, e := range extents {
			clear(d.data[int(e.LBA)*bs : (int(e.LBA)+int(e.Blocks))*bs])
			d.commands[len(d.commands)-1].LBA, d.commands[len(d.commands)-1].Blocks = e.LBA, e.Blocks
		}
	case scsi.OpWriteSame16:
		if c.NDOB != (len(t.DataOut) == 0) || len(bytes.Trim(t.DataOut, "\x00")) > 0 {
			d.fail(t, scsi.KeyIllegalRequest, 0x24, 0)
			return
		}
		clear(d.data[at : at+n])
	case scsi.OpCompareAndWrite:
		if !bytes.Equal(d.data[at:at+n], t.DataOut[:n]) {
			d.fail(t, scsi.KeyMiscompare, 0x1d, 0)
			return
		}
		copy(d.data[at:at+n], t.DataOut[n:])
	default:
		d.fail(t, scsi.KeyIllegalRequest, 0x20, 0)
	}
}

// modePages are the mode pages it has.
func (d *fakeDisk) modePages() []byte {
	if d.noCaching {
		return nil
	}
	return d.caching.Append(nil)
}

func (d *fakeDisk) inquiry(c scsi.Command, t *Task) {
	if !c.EVPD {
		d.give(t, d.info.Append(nil))
		return
	}
	page := scsi.VPDPage(c.Page)
	if !d.pages.Has(page) {
		d.fail(t, scsi.KeyIllegalRequest, 0x24, 0)
		return
	}
	var body []byte
	switch page {
	case scsi.VPDSupportedPages:
		body = d.pages.Append(nil)
	case scsi.VPDUnitSerial:
		body = []byte(d.serial)
	case scsi.VPDDeviceID:
		body = scsi.AppendDesignators(nil, d.ids...)
	case scsi.VPDBlockLimits:
		body = d.limits.Append(nil)
	case scsi.VPDCharacteristics:
		body = scsi.Characteristics{RotationRate: 1}.Append(nil)
	case scsi.VPDLogicalProvisioning:
		body = d.prov.Append(nil)
	}
	d.give(t, scsi.AppendVPD(nil, 0, scsi.TypeDisk, page, body))
}

// once returns a fault that applies f to the first n tasks that match.
func once(n int, match func(scsi.Command) bool, f func(t *Task) bool) func(scsi.Command, *Task) bool {
	return func(c scsi.Command, t *Task) bool {
		if n == 0 || !match(c) {
			return false
		}
		n--
		return f(t)
	}
}

func isRead(c scsi.Command) bool  { return c.Op == scsi.OpRead10 || c.Op == scsi.OpRead16 }
func isWrite(c scsi.Command) bool { return c.Op == scsi.OpWrite10 || c.Op == scsi.OpWrite16 }
func isIO(c scsi.Command) bool    { return isRead(c) || isWrite(c) }

// A collector is a RequestCompleter that hands requests on by a channel.
type collector struct {
	done    chan *Request
	mu      sync.Mutex
	flushes int
}

func newCollector() *collector { return &collector{done: make(chan *Request, 1024)} }

func (c *collector) RequestDone(r *Request) { c.done <- r }
func (c *collector) Flush() {
	c.mu.Lock()
	c.flushes++
	c.mu.Unlock()
}

// wait returns the next finished request.
func (c *collector) wait(t testing.TB) *Request {
	t.Helper()
	select {
	case r := <-c.done:
		return r
	case <-time.After(time.Minute):
		t.Fatal("no request was finished within a minute")
		return nil
	}
}
