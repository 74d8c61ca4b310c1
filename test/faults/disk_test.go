//go:build integration || guest

package faults

import (
	"bytes"
	"sync"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// A volatileDisk is the store of a disk with a write cache that loses what was
// not flushed when its power fails, and whose size can change.
type volatileDisk struct {
	mu     sync.Mutex
	now    []byte // what is read
	stable []byte // what a power failure leaves
	dirty  map[int]bool
	writes int
}

// chunk is what the cache counts in.
const chunk = 4096

func newDisk(size int) *volatileDisk {
	return &volatileDisk{now: make([]byte, size), stable: make([]byte, size), dirty: make(map[int]bool)}
}

func (d *volatileDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(p, d.now[off:]), nil
}

func (d *volatileDisk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	for i := off / chunk; i*chunk < off+int64(len(p)); i++ {
		d.dirty[int(i)] = true
	}
	return copy(d.now[off:], p), nil
}

func (d *volatileDisk) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.now))
}

func (d *volatileDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.dirty {
		copy(d.stable[i*chunk:(i+1)*chunk], d.now[i*chunk:])
	}
	clear(d.dirty)
	return nil
}

// powerFails loses the cache.
func (d *volatileDisk) powerFails() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.dirty {
		copy(d.now[i*chunk:(i+1)*chunk], d.stable[i*chunk:])
	}
	clear(d.dirty)
}

// resize makes the disk larger or smaller, and leaves what its cache holds in the
// part that stays as it is.
func (d *volatileDisk) resize(size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, stable := make([]byte, size), make([]byte, size)
	copy(now, d.now)
	copy(stable, d.stable)
	d.now, d.stable = now, stable
	for i := range d.dirty {
		if (i+1)*chunk > size {
			delete(d.dirty, i)
		}
	}
}

// written returns how often it was written to.
func (d *volatileDisk) written() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

// inProcess is a target in the test's process, which can be told what to do.
type inProcess struct {
	t    *testing.T
	srv  *iscsitest.Server
	disk *volatileDisk
	lun  *iscsitest.LUN
	addr string
}

// newInProcess serves a disk as LUN 1.
func newInProcess(t *testing.T, mod func(*iscsitest.Config)) *inProcess {
	t.Helper()
	p := &inProcess{t: t, disk: newDisk(diskSize)}
	p.lun = &iscsitest.LUN{Store: p.disk, WriteCache: true, Serial: "first"}
	cfg := iscsitest.Config{Targets: []iscsitest.Target{{Name: targetName, LUNs: map[uint64]*iscsitest.LUN{1: p.lun}}}}
	if mod != nil {
		mod(&cfg)
	}
	p.srv = iscsitest.NewServer(cfg)
	p.addr = p.srv.Portal()
	t.Cleanup(p.srv.Close)
	return p
}

// stop ends the target as a crash does. What it had received it does not do
// any more when stop returns: else a command could meet what a test does next.
func (p *inProcess) stop() {
	p.t.Helper()
	p.srv.StopListening()
	p.srv.ResetConnections()
	eventually(p.t, "the target's connections end", func() bool { return len(p.srv.Conns()) == 0 })
}

// start has it listen again.
func (p *inProcess) start() {
	p.t.Helper()
	if _, err := p.srv.Listen(p.addr); err != nil {
		p.t.Fatal(err)
	}
}

// violations wants that the initiator kept the protocol's rules.
func (p *inProcess) violations() {
	p.t.Helper()
	for _, v := range p.srv.Violations() {
		p.t.Error(v)
	}
}

// sessions counts the sessions in full feature phase.
func (p *inProcess) sessions() int {
	n := 0
	for _, s := range p.srv.Sessions() {
		if !s.Discovery {
			n++
		}
	}
	return n
}

// unwritten reports whether nobody has written to the disk.
func (d *volatileDisk) unwritten() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes == 0 && !bytes.ContainsFunc(d.now, func(r rune) bool { return r != 0 })
}

// logoutRequest asks the initiators to log out and in again.
func (p *inProcess) logoutRequest() {
	p.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 2})
}

// erase makes the disk one that nobody has written to.
func (d *volatileDisk) erase() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.now)
	clear(d.stable)
	clear(d.dirty)
}
