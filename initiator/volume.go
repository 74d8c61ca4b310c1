package initiator

import (
	"context"
	"log/slog"
	"math/bits"
	"sync"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// VolumeOptions change how a Volume behaves. The zero value of every field is
// a usable default.
type VolumeOptions struct {
	// QueueDepth is how many commands the volume keeps in flight at most. It
	// sends fewer while the device answers TASK SET FULL. Zero means
	// Config.QueueDepth.
	QueueDepth int

	// MaxTransfer bounds the bytes of one READ or WRITE besides the device's
	// own limit. Zero means DefaultMaxTransfer.
	MaxTransfer int

	// Patience is how long one command is sent again while the device is busy,
	// its task set is full or it is getting ready. Zero means DefaultPatience;
	// Immediately makes such commands fail.
	Patience time.Duration

	// Identity, if it is not zero, is what the device must be; opening another
	// one fails with ErrIdentity. A program that opens a volume anew gives the
	// Identity the former one had.
	Identity Identity

	// OnEvent is called for every VolumeEvent, one call at a time, from a
	// goroutine of the volume. It may use the volume but must not close it.
	// Events of one type that come while it runs are told as one. Nil means
	// nobody is interested.
	OnEvent func(VolumeEvent)
}

// DefaultMaxTransfer bounds one READ or WRITE in bytes: larger ones gain
// nothing, and hold up others on the same connection.
const DefaultMaxTransfer = 4 << 20

// A Volume is a disk at a logical unit of a session: a range of bytes that is
// read and written in blocks. It is made by OpenVolume or Connect.
//
// There are two ways to use it. ReadAt, WriteAt, Sync and the like carry out one
// operation and wait for it; Submit and Kick are the same without waiting and
// without allocation. Operations that are under way at the same time are
// carried out in any order. docs/disk.md in the repository has the rules by
// which requests are split, sent again and fail.
//
// All methods may be called from any goroutine at any time.
type Volume struct {
	port    taskPort
	session *Session // nil in tests of this package
	guard   *guard   // of the session for the volume; nil as session
	lun     pdu.LUN
	info    *LUNInfo // as it was when the volume was opened; not changed
	prober  prober
	log     *slog.Logger
	heard   watchers[VolumeEvent] // VolumeOptions.OnEvent and those of Watch

	blockSize int  // bytes in a block; does not change
	shift     uint // its logarithm

	patience    time.Duration
	maxTransfer int64 // of VolumeOptions, bytes

	// ctx ends when the volume is closed: the end of what the attendant does.
	ctx  context.Context
	stop context.CancelFunc

	// running counts goroutines: the attendant, the teller of events, and the
	// run of the timer that is due. Close waits for them.
	running sync.WaitGroup

	// calls keeps *calls that are not in use.
	calls sync.Pool

	clock    clock // the session's
	counters volumeCounters

	// mu protects what follows. It is held for short moments only, never
	// while a callback of the owner or a Kick of the session runs.
	mu       sync.Mutex
	state    *diskState    // replaced as a whole, but for downgrades
	split    splitRules    // derived from state
	queue    ioQueue       // requests and pieces (volume_queue.go)
	together reading       // of the clock, for requests that are submitted together
	asOf     time.Duration // what time it is for who holds mu; 0: nobody has looked, see present
	attn     attendance    // what waits for the attendant (volume_attend.go)
	events   events        // what waits to be told to the owner (volume_events.go)

	closed bool
	broken error // why no more I/O is possible: the device was replaced
}

// OpenVolume opens the disk at a logical unit: it waits for the disk to be
// ready, and asks for its identity, size, limits and caching. It returns a
// *NotADiskError for devices that are no disks and ErrNoDevice where there is
// nothing.
func (s *Session) OpenVolume(ctx context.Context, lun pdu.LUN) (*Volume, error) {
	return s.OpenVolumeWith(ctx, lun, VolumeOptions{})
}

// OpenVolumeWith is OpenVolume with options.
func (s *Session) OpenVolumeWith(ctx context.Context, lun pdu.LUN, o VolumeOptions) (*Volume, error) {
	if o.QueueDepth <= 0 {
		o.QueueDepth = s.cfg.QueueDepth
	}
	since := s.present()
	v, err := openVolume(ctx, s.prober(), lun, o)
	if err != nil {
		return nil, err
	}
	if !v.postGuard(s, since) {
		// The session logged in again meanwhile: who knows which of the
		// answers came from which device?
		if err := v.Refresh(ctx); err != nil {
			v.Close()
			return nil, err
		}
	}
	return v, nil
}

// openVolume does the work of OpenVolume over the port of a prober.
func openVolume(ctx context.Context, p *prober, lun pdu.LUN, o VolumeOptions) (*Volume, error) {
	if o.QueueDepth <= 0 {
		o.QueueDepth = DefaultQueueDepth
	}
	if o.MaxTransfer <= 0 {
		o.MaxTransfer = DefaultMaxTransfer
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	p.patience = o.Patience

	info, err := p.inquire(ctx, lun)
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Present():
		return nil, p.fail("open", lun, ErrNoDevice, ErrNoDevice)
	case !info.IsDisk():
		return nil, &NotADiskError{Target: p.target, LUN: lun, Type: info.Type}
	case o.Identity != (Identity{}) && !o.Identity.Same(info.Identity):
		return nil, p.fail("open", lun, ErrIdentity, &IdentityError{Want: o.Identity, Got: info.Identity})
	}
	if err := p.awaitReady(ctx, lun); err != nil {
		return nil, err
	}
	state, err := p.disk(ctx, info)
	if err != nil {
		return nil, err
	}

	v := &Volume{
		port:        p.port,
		lun:         lun,
		info:        info,
		prober:      *p,
		log:         p.log,
		blockSize:   state.blockSize,
		shift:       uint(bits.TrailingZeros(uint(state.blockSize))),
		patience:    o.Patience,
		maxTransfer: int64(o.MaxTransfer),
		state:       state,
		clock:       p.clock,
	}
	v.heard.add(o.OnEvent)
	v.ctx, v.stop = context.WithCancel(context.Background())
	v.prober.attend = v.attend
	v.prober.hold = v.awaitIdentified
	v.split = splitRulesOf(state, v.maxTransfer)
	v.queue.init(v, o.QueueDepth)
	return v, nil
}

// Size returns the size in bytes. It changes when the device grows or shrinks.
func (v *Volume) Size() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.state.size
}

// BlockSize returns the size of a logical block in bytes, a power of two from
// 512 to 65536.
func (v *Volume) BlockSize() int { return v.blockSize }

// ReadOnly reports whether the device is write protected.
func (v *Volume) ReadOnly() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.state.writeProtect
}

// LUN returns the logical unit number.
func (v *Volume) LUN() pdu.LUN { return v.lun }

// Info returns what the device said about itself when the volume was opened.
func (v *Volume) Info() LUNInfo { return *v.info }

// Identity returns what tells the device from all others.
func (v *Volume) Identity() Identity { return v.info.Identity }

// Session returns the session that the volume is on.
func (v *Volume) Session() *Session { return v.session }

// Features are what a device can do, and its limits, in bytes.
type Features struct {
	ReadOnly   bool // write protected
	WriteCache bool // Sync has an effect
	FUA        bool // writes can be made durable one by one, without a flush
	Rotational bool // seeks take time
	Thin       bool // thinly provisioned

	// Discard says that OpDiscard has an effect; DiscardReadsZero, that
	// discarded blocks read as zeroes; DiscardGranularity, of what ranges
	// should be multiples, at least the block size; DiscardAlignment, where
	// the first such range starts.
	Discard            bool
	DiscardReadsZero   bool
	DiscardGranularity int64
	DiscardAlignment   int64
	MaxDiscard         int64 // one command's; longer ranges are split

	// WriteZeroes says that the device zeroes ranges by itself. OpWriteZeroes
	// works without as well, by writing.
	WriteZeroes    bool
	MaxWriteZeroes int64

	MaxTransfer       int64 // one READ's or WRITE's; longer ones are split
	OptimalTransfer   int64 // 0 if the device does not say
	PhysicalBlockSize int   // bytes; smaller writes cost a read

	// MaxCompareAndWrite is the longest range that CompareAndWrite takes, 0 if
	// the device does not have it.
	MaxCompareAndWrite int64
}

// Features returns what the device can do.
func (v *Volume) Features() Features {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, s := v.state, &v.split
	bs := int64(v.blockSize)
	f := Features{
		ReadOnly:           d.writeProtect,
		WriteCache:         d.writeCache,
		FUA:                d.dpofua && d.writeCache,
		Rotational:         d.medium.Rotational(),
		Thin:               d.capacity.Thin,
		Discard:            s.discard != pieceNone,
		DiscardReadsZero:   d.capacity.ThinReadsZero || d.prov.UnmappedZero(),
		DiscardGranularity: max(int64(d.limits.UnmapGranularity), 1) * bs,
		WriteZeroes:        s.zero != pieceZeroes || s.zeroUnmap != pieceZeroes,
		MaxTransfer:        s.maxTransfer,
		OptimalTransfer:    int64(d.limits.OptimalTransfer) * bs,
		PhysicalBlockSize:  v.blockSize << d.capacity.PhysicalExponent,
	}
	if f.Discard {
		f.MaxDiscard = s.most[s.discard]
	}
	if f.WriteZeroes {
		f.MaxWriteZeroes = s.most[s.zero]
	}
	if d.limits.UnmapAlignmentValid {
		f.DiscardAlignment = int64(d.limits.UnmapAlignment) * bs
	}
	if d.compare != supportNo {
		f.MaxCompareAndWrite = int64(max(d.limits.MaxCompareAndWrite, 1)) * bs
	}
	return f
}

// Do carries out any SCSI command on the logical unit, once, and waits for it:
// it sets t.LUN, and returns nil if the status is GOOD, else a *VolumeError with
// a *scsi.StatusError in it, or an error of the session. Nothing is sent again;
// what sense data tell about the device is heeded. The queue depth of the volume
// does not count these commands. If ctx ends, the command is aborted.
func (v *Volume) Do(ctx context.Context, t *Task) error {
	t.LUN = v.lun
	if err := v.awaitIdentified(ctx); err != nil {
		return v.wrap("command", err)
	}
	if err := v.port.Do(ctx, t); err != nil {
		return v.wrap("command", err)
	}
	if t.Status == scsi.StatusGood || t.Status == scsi.StatusConditionMet {
		return nil
	}
	j, sense := judge(t)
	v.attend(j.attention, sense)
	return v.prober.fail("command", v.lun, j.kind, taskError(t, j.kind))
}

// Close ends the use of the volume; the session goes on. Requests that wait
// fail with ErrVolumeClosed; those with the device are awaited, which takes no
// longer than their timeouts. Close may be called more than once, but not from
// a callback of the volume.
func (v *Volume) Close() error {
	v.stop()
	v.mu.Lock()
	v.closed = true
	v.queue.failAll(v.wrap("close", ErrVolumeClosed))
	v.queue.stopTimer()
	v.attn.release(ErrVolumeClosed)
	v.unlockAndComplete()
	v.flush()

	v.mu.Lock()
	for v.queue.inFlight > 0 || v.queue.delivering > 0 {
		v.queue.idle.Wait()
	}
	v.mu.Unlock()
	v.running.Wait()
	v.dismissGuard()
	return nil
}

// Disconnect closes the volume and logs its session out, for programs that
// have but one volume on it. If ctx ends before the requests with the device
// have come back, they are aborted. The error is that of the logout.
func (v *Volume) Disconnect(ctx context.Context) error {
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		v.abortAll(context.Cause(ctx))
	})
	v.Close()
	if !stop() {
		<-aborted
	}
	if v.session == nil {
		return nil
	}
	return v.session.Logout(ctx)
}
