//go:build linux

package nbdtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"

	"github.com/goiscsi/goiscsi/nbd"
)

// A Kernel plays the kernel's nbd driver: its generic netlink family, and its
// part of sysfs and /dev in a directory of its own. It behaves as Linux 6.1
// does, in its oddities too: a new socket for a live connection is acknowledged
// and dropped, and a device that is held open stays after a disconnect.
//
// Sockets die only when Kill says so, where the driver would notice by itself.
// All methods are safe for concurrent use.
type Kernel struct {
	sys, dev string

	mu       sync.Mutex // protects what follows
	devices  map[int]*kernelDevice
	failures map[Op][]syscall.Errno
	calls    map[Op]int
	called   *sync.Cond // signals calls
	unloaded bool
	sockets  map[*netlinkSocket]struct{}
}

// An Op is a command of the netlink family.
type Op uint8

// The commands of the family (enum in include/uapi/linux/nbd-netlink.h).
const (
	OpConnect     Op = 1
	OpDisconnect  Op = 2
	OpReconfigure Op = 3
	opLinkDead    Op = 4
	OpStatus      Op = 5
)

// A KernelDevice is what a Kernel knows of a device.
type KernelDevice struct {
	Connected       bool   // between CONNECT and DISCONNECT
	Size            uint64 // bytes
	BlockSize       uint64 // bytes
	ServerFlags     uint64 // nbd.TransmissionFlags
	ClientFlags     uint64 // NBD_CFLAG_*
	Timeout         uint64 // seconds
	DeadConnTimeout uint64 // seconds
	BackendID       string // of the CONNECT
	// Peers are the driver's ends of the sockets, to send requests on.
	Peers []*Peer
}

type kernelDevice struct {
	KernelDevice
	dead []bool // of each peer
	held bool   // somebody has it open
}

// NewKernel returns a driver that is loaded and has no devices. dir has to exist
// and is used for sysfs and device nodes, which are plain files here.
func NewKernel(dir string) (*Kernel, error) {
	k := &Kernel{
		sys: filepath.Join(dir, "sys"), dev: filepath.Join(dir, "dev"),
		devices: make(map[int]*kernelDevice), failures: make(map[Op][]syscall.Errno), calls: make(map[Op]int),
		sockets: make(map[*netlinkSocket]struct{}),
	}
	k.called = sync.NewCond(&k.mu)
	for _, d := range []string{filepath.Join(k.sys, "block"), k.dev} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Options returns what makes an nbd.Controller talk to k.
func (k *Kernel) Options() *nbd.ControllerOptions {
	return &nbd.ControllerOptions{Dial: k.Dial, Sys: k.sys, Dev: k.dev}
}

// Dial opens a generic netlink socket to k.
func (k *Kernel) Dial() (*genetlink.Conn, error) { return k.dial(), nil }

// Close closes the driver's ends of all sockets.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.devices {
		d.closePeers()
	}
	return nil
}

// Unload makes the family unknown, as when the module is not loaded, and Load
// brings it back.
func (k *Kernel) Unload() { k.setUnloaded(true) }

// Load undoes Unload.
func (k *Kernel) Load() { k.setUnloaded(false) }

func (k *Kernel) setUnloaded(u bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unloaded = u
}

// FailNext makes the next commands of a kind fail, one for each errno; 0 lets
// one pass.
func (k *Kernel) FailNext(op Op, errnos ...syscall.Errno) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failures[op] = append(k.failures[op], errnos...)
}

// Calls returns how many commands of a kind have come, failed or not.
func (k *Kernel) Calls(op Op) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[op]
}

// AwaitCalls returns when n commands of a kind have come and been answered.
func (k *Kernel) AwaitCalls(op Op, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.calls[op] < n {
		k.called.Wait()
	}
}

// Device returns the state of a device and whether there is one.
func (k *Kernel) Device(index int) (KernelDevice, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	if d == nil {
		return KernelDevice{}, false
	}
	s := d.KernelDevice
	s.Peers = append([]*Peer(nil), d.Peers...)
	return s, true
}

// Kill has the driver see that all sockets of a device are dead: it closes its
// ends and tells by LINK_DEAD, once for each.
func (k *Kernel) Kill(index int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	if d == nil {
		return
	}
	for i, p := range d.Peers {
		if d.dead[i] {
			continue
		}
		d.dead[i] = true
		p.Close()
		k.multicast(opLinkDead, indexAttr(index))
	}
}

// Hold opens the device, so to say: a disconnect then leaves it in place until
// Release.
func (k *Kernel) Hold(index int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.devices[index]; d != nil {
		d.held = true
	}
}

// Release closes what Hold opened. A device that was disconnected meanwhile
// goes.
func (k *Kernel) Release(index int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	if d == nil {
		return nil
	}
	d.held = false
	if d.Connected {
		return nil
	}
	return k.drop(index)
}

// Attr returns an attribute of the device in sysfs, such as "queue/scheduler".
func (k *Kernel) Attr(index int, name string) (string, error) {
	b, err := os.ReadFile(k.path(index, name))
	return string(b), err
}

func (k *Kernel) path(index int, elem ...string) string {
	return filepath.Join(append([]string{k.sys, "block", "nbd" + strconv.Itoa(index)}, elem...)...)
}

func (d *kernelDevice) closePeers() {
	for _, p := range d.Peers {
		p.Close()
	}
}

// connect does CONNECT and returns the device's index.
func (k *Kernel) connect(a *attrs) (int, error) {
	if a.size == nil || len(a.fds) == 0 {
		return 0, syscall.EINVAL
	}
	var index int
	if a.index != nil {
		index = *a.index
	} else {
		for index = 0; k.devices[index] != nil && k.devices[index].Connected; index++ {
		}
	}
	d := k.devices[index]
	if d != nil && (d.Connected || d.held) {
		return 0, syscall.EBUSY
	}
	d = &kernelDevice{KernelDevice: KernelDevice{Connected: true, BlockSize: 1024, BackendID: a.backendID}}
	if err := d.configure(a); err != nil {
		return 0, err
	}
	for _, fd := range a.fds {
		p, err := adopt(fd)
		if err != nil {
			d.closePeers()
			return 0, err
		}
		d.Peers, d.dead = append(d.Peers, p), append(d.dead, false)
	}
	k.devices[index] = d
	ro := "0"
	if d.ServerFlags&uint64(nbd.FlagReadOnly) != 0 {
		ro = "1"
	}
	files := map[string]string{
		"pid": strconv.Itoa(os.Getpid()), "ro": ro, "size": sectors(d.Size), "dev": fmt.Sprintf("43:%d", index*32),
		"queue/scheduler": "[mq-deadline] none", "queue/max_sectors_kb": "128", "queue/max_hw_sectors_kb": "32768",
		"queue/io_timeout": "30000", "queue/read_ahead_kb": "128", "queue/nr_requests": "256", "queue/rq_affinity": "1",
		"queue/rotational": "0",
	}
	if d.BackendID != "" {
		files["backend"] = d.BackendID
	}
	if err := os.MkdirAll(k.path(index, "queue"), 0o755); err != nil {
		return 0, err
	}
	for name, text := range files {
		if err := os.WriteFile(k.path(index, name), []byte(text+"\n"), 0o644); err != nil {
			return 0, err
		}
	}
	return index, os.WriteFile(filepath.Join(k.dev, "nbd"+strconv.Itoa(index)), nil, 0o600)
}

// configure takes over the attributes that are there.
func (d *kernelDevice) configure(a *attrs) error {
	if a.blockSize != nil {
		if b := *a.blockSize; b < 512 || b > 4096 || b&(b-1) != 0 {
			return syscall.EINVAL
		}
		d.BlockSize = *a.blockSize
	}
	for _, x := range []struct {
		from *uint64
		to   *uint64
	}{
		{a.size, &d.Size},
		{a.serverFlags, &d.ServerFlags},
		{a.clientFlags, &d.ClientFlags},
		{a.timeout, &d.Timeout},
		{a.deadConnTimeout, &d.DeadConnTimeout},
	} {
		if x.from != nil {
			*x.to = *x.from
		}
	}
	return nil
}

// disconnect does DISCONNECT.
func (k *Kernel) disconnect(a *attrs) error {
	if a.index == nil || k.devices[*a.index] == nil {
		return syscall.EINVAL
	}
	d := k.devices[*a.index]
	if !d.Connected {
		return nil
	}
	d.Connected = false
	for i, p := range d.Peers {
		if !d.dead[i] {
			_ = p.Disconnect() // the other side may be gone
			p.Close()
		}
	}
	if d.held {
		return nil
	}
	return k.drop(*a.index)
}

// drop takes a disconnected device out of sysfs.
func (k *Kernel) drop(index int) error {
	d := k.devices[index]
	if d.ClientFlags&1 != 0 { // NBD_CFLAG_DESTROY_ON_DISCONNECT
		delete(k.devices, index)
		if err := os.RemoveAll(k.path(index)); err != nil {
			return err
		}
		return os.Remove(filepath.Join(k.dev, "nbd"+strconv.Itoa(index)))
	}
	for _, name := range []string{"pid", "backend"} {
		if err := os.RemoveAll(k.path(index, name)); err != nil {
			return err
		}
	}
	return os.WriteFile(k.path(index, "size"), []byte("0\n"), 0o644)
}

// reconfigure does RECONFIGURE.
func (k *Kernel) reconfigure(a *attrs) error {
	if a.index == nil || k.devices[*a.index] == nil {
		return syscall.EINVAL
	}
	d := k.devices[*a.index]
	if !d.Connected || d.BackendID != a.backendID {
		return syscall.EINVAL
	}
	if err := d.configure(a); err != nil {
		return err
	}
	for _, fd := range a.fds {
		slot := -1
		for i := range d.dead {
			if d.dead[i] {
				slot = i
				break
			}
		}
		if slot < 0 {
			return nil // acknowledged all the same
		}
		p, err := adopt(fd)
		if err != nil {
			return err
		}
		d.Peers[slot], d.dead[slot] = p, false
	}
	return os.WriteFile(k.path(*a.index, "size"), []byte(sectors(d.Size)+"\n"), 0o644)
}

func sectors(size uint64) string { return strconv.FormatUint(size>>9, 10) }

// adopt takes a reference of a descriptor, as the driver does.
func adopt(fd int) (*Peer, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "nbdtest")
	nc, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, syscall.EINVAL
	}
	return NewPeer(nc), nil
}
