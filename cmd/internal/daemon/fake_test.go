package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/pdu"
)

// A fakeTarget is what the sessions of a test talk to.
type fakeTarget struct {
	mu    sync.Mutex
	units map[pdu.LUN]*fakeUnit
	// login is called for each login, outside of mu; nil succeeds.
	login func(ctx context.Context, cfg initiator.Config) error
	// opening and listing, if not nil, are called, outside of mu, when a volume is
	// opened and when the units are listed.
	opening func(pdu.LUN)
	listing func()
	// reportErr fails REPORT LUNS.
	reportErr error
	volumes   []*fakeVolume // all that were opened
	sessions  []*fakeSession
	isids     []initiator.ISID
}

type fakeUnit struct {
	info unitInfo
	geo  geometry
	data []byte
	err  error // of open
}

func newFakeTarget(units ...*fakeUnit) *fakeTarget {
	t := &fakeTarget{units: make(map[pdu.LUN]*fakeUnit)}
	for i, u := range units {
		t.units[pdu.LUNFromNumber(uint64(i))] = u
	}
	return t
}

func fakeDisk(id string, size int64) *fakeUnit {
	return &fakeUnit{
		info: unitInfo{present: true, kind: "disk", disk: true, vendor: "FAKE", model: "DISK", wwid: id},
		geo:  geometry{size: size, blockSize: 512, flush: true}, data: make([]byte, size),
	}
}

func fakeController() *fakeUnit {
	return &fakeUnit{info: unitInfo{present: true, kind: "controller", vendor: "FAKE", model: "CTRL"}}
}

// set replaces a unit; nil removes it.
func (t *fakeTarget) set(lun uint64, u *fakeUnit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u == nil {
		delete(t.units, pdu.LUNFromNumber(lun))
		return
	}
	t.units[pdu.LUNFromNumber(lun)] = u
}

func (t *fakeTarget) grow(lun uint64, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.units[pdu.LUNFromNumber(lun)]
	u.data = append(u.data, make([]byte, size-int64(len(u.data)))...)
	u.geo.size = size
}

func (t *fakeTarget) dial(ctx context.Context, cfg initiator.Config) (session, error) {
	if f := t.login; f != nil {
		if err := f(ctx, cfg); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &fakeSession{t: t, cfg: cfg, ended: make(chan struct{}), state: initiator.StateLoggedIn}
	t.sessions = append(t.sessions, s)
	t.isids = append(t.isids, cfg.ISID)
	return s, nil
}

func (t *fakeTarget) last() *fakeSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions[len(t.sessions)-1]
}

type fakeSession struct {
	t   *fakeTarget
	cfg initiator.Config

	mu        sync.Mutex
	state     initiator.SessionState
	reason    error
	ended     chan struct{}
	loggedOut bool
}

func (s *fakeSession) info() initiator.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return initiator.Info{State: s.state, ConnState: initiator.ConnLoggedIn, Portal: s.cfg.Portal, TPGT: 1, ISID: s.cfg.ISID}
}

func (s *fakeSession) setState(st initiator.SessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = st
}

func (s *fakeSession) stats() initiator.Stats { return initiator.Stats{SCSICmdPDUs: 7} }

func (s *fakeSession) luns(ctx context.Context) ([]pdu.LUN, error) {
	if f := s.t.listing; f != nil {
		f()
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.t.reportErr != nil {
		return nil, s.t.reportErr
	}
	return slices.Sorted(maps.Keys(s.t.units)), ctx.Err()
}

func (s *fakeSession) inquire(_ context.Context, lun pdu.LUN) (unitInfo, error) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	u := s.t.units[lun]
	if u == nil {
		return unitInfo{}, errors.New("no such unit")
	}
	return u.info, nil
}

func (s *fakeSession) open(_ context.Context, lun pdu.LUN, _ unitInfo, event func(uint32)) (volume, error) {
	if f := s.t.opening; f != nil {
		f(lun)
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	u := s.t.units[lun]
	if u == nil {
		return nil, errors.New("no such unit")
	}
	if u.err != nil {
		return nil, u.err
	}
	v := &fakeVolume{t: s.t, u: u, geo: u.geo, event: event}
	s.t.volumes = append(s.t.volumes, v)
	return v, nil
}

func (s *fakeSession) logout(context.Context) error {
	s.mu.Lock()
	s.loggedOut = true
	s.mu.Unlock()
	return s.close()
}

func (s *fakeSession) close() error {
	s.end(initiator.ErrClosed)
	return nil
}

func (s *fakeSession) end(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil {
		s.reason, s.state = reason, initiator.StateClosed
		close(s.ended)
	}
}

func (s *fakeSession) trace() (*initiator.Trace, error) { return nil, initiator.ErrTraced }

func (s *fakeSession) done() <-chan struct{} { return s.ended }

func (s *fakeSession) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// A fakeVolume answers each request in Kick.
type fakeVolume struct {
	t   *fakeTarget
	u   *fakeUnit
	geo geometry

	mu    sync.Mutex
	queue []*initiator.Request

	event func(uint32)
}

func (v *fakeVolume) geometry() geometry {
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	return v.geo
}

func (v *fakeVolume) stats() initiator.VolumeStats {
	return initiator.VolumeStats{Read: initiator.OpStats{Requests: 1, Bytes: 512, Latency: initiator.Histogram{0, 1}}, QueueDepth: 32}
}

func (v *fakeVolume) refresh(context.Context) error {
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	if v.geo.blockSize != v.u.geo.blockSize {
		return initiator.ErrIdentity
	}
	v.geo = v.u.geo
	return nil
}

func (v *fakeVolume) info() unitInfo { return v.u.info }

func (v *fakeVolume) close() {}

// learn has the volumes find out what has become of their units, as they do
// after a recovery and by unit attentions.
func (t *fakeTarget) learn() {
	t.mu.Lock()
	volumes := t.volumes
	t.mu.Unlock()
	for _, v := range volumes {
		if v.refresh(context.Background()) == nil {
			v.event(eventGeometry)
		}
	}
}

func (v *fakeVolume) Submit(r *initiator.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.queue = append(v.queue, r)
}

func (v *fakeVolume) Kick() {
	v.mu.Lock()
	list := v.queue
	v.queue = nil
	v.mu.Unlock()
	owners := make(map[initiator.RequestCompleter]bool)
	for _, r := range list {
		v.t.mu.Lock()
		switch r.Op {
		case initiator.OpRead:
			if r.Data == nil {
				r.Data = r.Buffer(r)
			}
			copy(r.Data, v.u.data[r.Offset:])
		case initiator.OpWrite:
			copy(v.u.data[r.Offset:], r.Data)
		}
		v.t.mu.Unlock()
		owner := r.Owner // the request may be used again after RequestDone
		owner.RequestDone(r)
		owners[owner] = true
	}
	for o := range owners {
		o.Flush()
	}
}

// A fakeKernel is an nbd driver whose devices are files below a directory. It
// has the driver's way of ignoring a new socket while the old one lives.
type fakeKernel struct {
	dev, sys string

	mu       sync.Mutex
	disks    map[int]*fakeNBD
	next     int
	fail     error // of connect
	connects int
	flushes  int
	wg       sync.WaitGroup
}

type fakeNBD struct {
	backend string
	size    int64
	sock    net.Conn
	dead    chan struct{} // closed when sock has lost its peer
	replies chan []byte
}

func newFakeKernel(t *testing.T) *fakeKernel {
	t.Helper()
	// Not t.TempDir: a socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp("", "iscsid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	k := &fakeKernel{dev: filepath.Join(dir, "dev"), sys: filepath.Join(dir, "sys"), disks: make(map[int]*fakeNBD)}
	for _, d := range []string{k.dev, filepath.Join(k.sys, "block")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		k.mu.Lock()
		for _, d := range k.disks {
			d.sock.Close()
		}
		k.mu.Unlock()
		k.wg.Wait()
	})
	return k
}

func (k *fakeKernel) connect(_ context.Context, cfg nbd.DeviceConfig) (kernelDevice, net.Conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.connects++
	if k.fail != nil {
		return nil, nil, k.fail
	}
	i := k.next
	k.next++
	d := &fakeNBD{backend: cfg.BackendID, size: int64(cfg.Export.Size)}
	ours := k.plug(d)
	k.disks[i] = d
	name := "nbd" + strconv.Itoa(i)
	sys := filepath.Join(k.sys, "block", name)
	err := errors.Join(os.MkdirAll(sys, 0o755),
		os.WriteFile(filepath.Join(sys, "pid"), []byte("1\n"), 0o644),
		os.WriteFile(filepath.Join(k.dev, name), nil, 0o600))
	return &fakeDevice{k, i, cfg}, ours, err
}

func (k *fakeKernel) attach(index int, cfg nbd.DeviceConfig) (kernelDevice, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch d := k.disks[index]; {
	case d == nil:
		return nil, nbd.ErrNoDevice
	case d.backend != cfg.BackendID:
		return nil, nbd.ErrForeignDevice
	}
	return &fakeDevice{k, index, cfg}, nil
}

// plug gives a disk its socket, watches it and returns the other end.
func (k *fakeKernel) plug(d *fakeNBD) net.Conn {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		if ends[i], err = net.FileConn(f); err != nil {
			panic(err)
		}
		f.Close()
	}
	c := ends[0]
	d.sock, d.dead, d.replies = c, make(chan struct{}), make(chan []byte, 1)
	dead, replies := d.dead, d.replies
	k.wg.Go(func() {
		defer close(dead)
		for {
			var head [16]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			// Tests have one request in flight; its cookie is the length
			// of the data to come with a good reply.
			n := binary.BigEndian.Uint64(head[8:])
			if binary.BigEndian.Uint32(head[4:]) != 0 {
				replies <- nil
				continue
			}
			data := make([]byte, n)
			if _, err := io.ReadFull(c, data); err != nil {
				return
			}
			replies <- data
		}
	})
	return ends[1]
}

var errFakeIO = errors.New("I/O error")

// io sends one request and waits for the answer.
func (k *fakeKernel) io(index int, cmd nbd.Command, off int64, data []byte) ([]byte, error) {
	k.mu.Lock()
	d := k.disks[index]
	k.mu.Unlock()
	if d == nil {
		return nil, fmt.Errorf("nbd%d: %w", index, errNoDevice)
	}
	var req [28]byte
	binary.BigEndian.PutUint32(req[0:], 0x25609513)
	binary.BigEndian.PutUint16(req[6:], uint16(cmd))
	if cmd == nbd.CmdRead {
		binary.BigEndian.PutUint64(req[8:], uint64(len(data)))
	}
	binary.BigEndian.PutUint64(req[16:], uint64(off))
	binary.BigEndian.PutUint32(req[24:], uint32(len(data)))
	msg := req[:]
	if cmd == nbd.CmdWrite {
		msg = append(msg, data...)
	}
	if _, err := d.sock.Write(msg); err != nil {
		return nil, err
	}
	select {
	case b := <-d.replies:
		if b == nil {
			return nil, errFakeIO
		}
		return b, nil
	case <-d.dead:
		return nil, io.ErrClosedPipe
	}
}

// disconnect is what anyone may do to a device.
func (k *fakeKernel) disconnect(index int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.disks[index]
	if d == nil {
		return nbd.ErrNoDevice
	}
	delete(k.disks, index)
	d.sock.Close()
	name := "nbd" + strconv.Itoa(index)
	os.RemoveAll(filepath.Join(k.sys, "block", name))
	return os.Remove(filepath.Join(k.dev, name))
}

func (k *fakeKernel) Devices() ([]nbd.DeviceInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []nbd.DeviceInfo
	for i, d := range k.disks {
		out = append(out, nbd.DeviceInfo{Index: i, Connected: true, BackendID: d.backend})
	}
	return out, nil
}

// A fakeDevice is a handle of a fakeKernel's device.
type fakeDevice struct {
	k   *fakeKernel
	i   int
	cfg nbd.DeviceConfig
}

func (d *fakeDevice) index() int                   { return d.i }
func (d *fakeDevice) Path() string                 { return filepath.Join(d.k.dev, "nbd"+strconv.Itoa(d.i)) }
func (d *fakeDevice) Tune(nbd.QueueSettings) error { return nil }

// Reconfigure waits for the death of the old socket, as the real one does.
func (d *fakeDevice) Reconfigure(ctx context.Context, _ int) ([]net.Conn, error) {
	d.k.mu.Lock()
	disk := d.k.disks[d.i]
	d.k.mu.Unlock()
	if disk == nil {
		return nil, nbd.ErrNoDevice
	}
	select {
	case <-disk.dead:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	return []net.Conn{d.k.plug(disk)}, nil
}

func (d *fakeDevice) Resize(_ context.Context, size uint64) error {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.k.disks[d.i].size = int64(size)
	d.cfg.Export.SetSize(size)
	return nil
}

func (d *fakeDevice) Disconnect(ctx context.Context) error {
	d.k.mu.Lock()
	d.k.flushes++
	d.k.mu.Unlock()
	return d.Detach(ctx)
}

func (d *fakeDevice) Detach(context.Context) error {
	if err := d.k.disconnect(d.i); err != nil && !errors.Is(err, nbd.ErrNoDevice) {
		return err
	}
	return nil
}

func (k *fakeKernel) Close() error { return nil }

func (k *fakeKernel) size(index int) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.disks[index].size
}

func (k *fakeKernel) indexes() []int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.disks))
}

// A fakeUevents hands out what a test puts in.
type fakeUevents struct {
	c    chan uevent
	done chan struct{}
	once sync.Once
}

func newFakeUevents() *fakeUevents {
	return &fakeUevents{c: make(chan uevent), done: make(chan struct{})}
}

func (f *fakeUevents) receive() (uevent, error) {
	select {
	case ev := <-f.c:
		return ev, nil
	case <-f.done:
		return uevent{}, os.ErrClosed
	}
}

func (f *fakeUevents) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}
