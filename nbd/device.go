//go:build linux

package nbd

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// A DeviceConfig says what to attach.
type DeviceConfig struct {
	// Export gives the size, the block size (512 to the page size, 0 means 512)
	// and the flags. Give ServeConn the same one, so that Resize reaches both.
	Export *Export
	// Index is the device's number; a negative one lets the driver choose,
	// which creates a device when all are taken.
	Index int
	// Connections is the number of sockets, and of hardware queues; 0 means 1.
	// More need Export.MultiConn, and change what io_timeout means: see
	// QueueSettings.IOTimeout.
	Connections int
	// BackendID names what is behind the device; it guards against attaching
	// to a device that meanwhile serves another. It has to be the same after a
	// restart, and should not be empty.
	BackendID string
	// DeadConnTimeout is how long requests wait for Reconfigure after the last
	// socket died before they fail, in whole seconds. 0 fails them at once.
	DeadConnTimeout time.Duration
	// Timeout is the driver's own limit for a request, in whole seconds. Leave
	// it 0: with it, a request that takes longer kills the socket, and fails
	// after DeadConnTimeout.
	Timeout time.Duration
	// KeepDevice leaves /dev/nbdN in place after Disconnect; otherwise it goes
	// with its last user.
	KeepDevice bool
}

func (cfg *DeviceConfig) connections() int { return max(cfg.Connections, 1) }

func (cfg *DeviceConfig) blockSize() uint32 { return max(cfg.Export.BlockSize, 512) }

// validate refuses what the driver would refuse with a bare EINVAL.
func (cfg *DeviceConfig) validate() error {
	if cfg.Export == nil {
		return errors.New("no export")
	}
	if err := cfg.Export.Validate(); err != nil {
		return err
	}
	bs := cfg.blockSize()
	switch {
	case bits.OnesCount32(bs) != 1 || int(bs) > os.Getpagesize():
		return fmt.Errorf("block size %d is not one that the kernel serves (512 to %d)", bs, os.Getpagesize())
	case cfg.Export.size() < uint64(bs):
		return fmt.Errorf("size %d is less than a block", cfg.Export.size())
	case cfg.connections() > 1 && !cfg.Export.MultiConn:
		return errors.New("several connections need an export with MultiConn")
	}
	return nil
}

// A Device is an nbd device that this process serves.
type Device struct {
	// Index is N in nbdN.
	Index int

	c   *Controller
	cfg DeviceConfig

	// flushing holds a token while a goroutine of Disconnect flushes the
	// device; it can be stuck in the kernel until the device is detached.
	flushing chan struct{}
}

func (c *Controller) device(index int, cfg DeviceConfig) *Device {
	return &Device{Index: index, c: c, cfg: cfg, flushing: make(chan struct{}, 1)}
}

// Path returns the device node, /dev/nbdN. It may take udev a moment to make it.
func (d *Device) Path() string { return filepath.Join(d.c.opt.Dev, d.Name()) }

// Name returns nbdN.
func (d *Device) Name() string { return "nbd" + strconv.Itoa(d.Index) }

// Config returns what the device was made of.
func (d *Device) Config() DeviceConfig { return d.cfg }

// connectTries is how often CONNECT is tried. It fails now and then with EBUSY,
// EBADF or EINVAL for no reason of the caller's, when devices come and go at the
// same time.
const connectTries = 5

// Connect creates a device and returns it with the server's ends of its sockets,
// which the caller has to serve (ServeConn) and close. udev opens the device at
// once and waits for its first blocks, so serve before anything else; above all
// before Tune, which waits for requests in flight.
func (c *Controller) Connect(ctx context.Context, cfg DeviceConfig) (*Device, []net.Conn, error) {
	if err := cfg.validate(); err != nil {
		return nil, nil, deviceError("connect", cfg.Index, err)
	}
	var err error
	for try := range connectTries {
		if try > 0 {
			if werr := wait(ctx, 10*time.Millisecond<<try); werr != nil {
				break
			}
			c.opt.Logger.Debug("nbd: connect again", "error", err)
		}
		var index int
		var conns []net.Conn
		if index, conns, err = c.connect(ctx, &cfg); err == nil {
			return c.device(index, cfg), conns, nil
		}
		if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EBADF) && !errors.Is(err, syscall.EINVAL) {
			break
		}
	}
	return nil, nil, deviceError("connect", cfg.Index, err)
}

// connect is one try of CONNECT.
func (c *Controller) connect(ctx context.Context, cfg *DeviceConfig) (int, []net.Conn, error) {
	pairs, fds, err := newSocketPairs(cfg.connections())
	if err != nil {
		return 0, nil, err
	}
	bs := uint64(cfg.blockSize())
	r := genlRequest{
		size:            ptr(cfg.Export.size() &^ (bs - 1)),
		blockSize:       ptr(bs),
		serverFlags:     ptr(uint64(cfg.Export.Flags())),
		deadConnTimeout: ptr(seconds(cfg.DeadConnTimeout)),
		sockets:         fds,
		backendID:       cfg.BackendID,
	}
	if cfg.Index >= 0 {
		r.index = ptr(uint32(cfg.Index))
	}
	if cfg.Timeout > 0 {
		r.timeout = ptr(seconds(cfg.Timeout))
	}
	if !cfg.KeepDevice {
		r.clientFlags = ptr(uint64(clientDestroyOnDisconnect))
	}
	msgs, err := c.execute(ctx, genlConnect, &r, false)
	index := -1
	if err == nil {
		if len(msgs) == 0 {
			err = errors.New("no answer from the driver")
		} else {
			index, err = decodeIndex(msgs[0].Data)
		}
	}
	if err != nil {
		for _, p := range pairs {
			p.close()
		}
		return 0, nil, err
	}
	conns := make([]net.Conn, len(pairs))
	for i, p := range pairs {
		p.kernel.Close() // the driver has its own reference
		conns[i] = p.server
	}
	return index, conns, nil
}

// newSocketPairs makes n pairs and lists the kernel's descriptors.
func newSocketPairs(n int) ([]*socketPair, []int, error) {
	var pairs []*socketPair
	var fds []int
	for range n {
		p, err := newSocketPair()
		if err != nil {
			for _, p := range pairs {
				p.close()
			}
			return nil, nil, err
		}
		pairs = append(pairs, p)
		fds = append(fds, int(p.kernel.Fd()))
	}
	return pairs, fds, nil
}

// Attach takes over a device that another process, or an earlier run of this
// one, connected. It returns ErrNoDevice when the device is not connected and
// ErrForeignDevice when its backend identifier is not cfg.BackendID. Nothing is
// changed; Reconfigure gives the device new sockets.
func (c *Controller) Attach(index int, cfg DeviceConfig) (*Device, error) {
	if err := cfg.validate(); err != nil {
		return nil, deviceError("attach", index, err)
	}
	d := c.device(index, cfg)
	if err := d.ours(); err != nil {
		return nil, deviceError("attach", index, err)
	}
	return d, nil
}

// ours reports an error unless the device is connected and its backend
// identifier is the configured one.
func (d *Device) ours() error {
	info, err := d.c.info(d.Index)
	if err != nil {
		return err
	}
	if !info.Connected {
		return ErrNoDevice
	}
	if info.BackendID != d.cfg.BackendID {
		return fmt.Errorf("%w: %q", ErrForeignDevice, info.BackendID)
	}
	return nil
}

// Resize tells the kernel, and the connections that serve Export, the new size
// in bytes.
func (d *Device) Resize(ctx context.Context, size uint64) error {
	if err := d.ours(); err != nil {
		return deviceError("resize", d.Index, err)
	}
	old := d.cfg.Export.size()
	if size > old {
		// The server must take what the kernel may send, at any moment.
		d.cfg.Export.SetSize(size)
	}
	bs := uint64(d.cfg.blockSize())
	_, err := d.c.execute(ctx, genlReconfigure, &genlRequest{
		index:     ptr(uint32(d.Index)),
		size:      ptr(size &^ (bs - 1)),
		blockSize: ptr(bs),
		backendID: d.cfg.BackendID,
	}, true)
	if err != nil {
		d.cfg.Export.SetSize(old)
		return deviceError("resize", d.Index, err)
	}
	d.cfg.Export.SetSize(size)
	return nil
}

// Reconfigure gives the device a new socket for each of n that died, and returns
// the server's ends, which the caller has to serve and close. Close the server's
// ends of the old ones first: the driver takes a new socket only for a dead one,
// and learns of the death a moment later. Reconfigure waits for that, until ctx
// ends; then it returns what has been taken so far with the error.
//
// Requests that were in flight on the old socket are sent again when the block
// layer's timer fires, see QueueSettings.IOTimeout.
func (d *Device) Reconfigure(ctx context.Context, n int) ([]net.Conn, error) {
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	dead := d.c.LinkDead(watch)
	var conns []net.Conn
	backoff := 5 * time.Millisecond
	for len(conns) < n {
		more, err := d.reconnect(ctx, n-len(conns))
		conns = append(conns, more...)
		if err != nil {
			return conns, deviceError("reconfigure", d.Index, err)
		}
		if len(conns) == n {
			break
		}
		if err := d.waitDead(ctx, backoff, dead); err != nil {
			return conns, deviceError("reconfigure", d.Index, fmt.Errorf("the old socket is alive: %w", err))
		}
		backoff = min(2*backoff, 500*time.Millisecond)
	}
	return conns, nil
}

// reconnect is one try of RECONFIGURE with n sockets; it returns those that were
// taken.
func (d *Device) reconnect(ctx context.Context, n int) ([]net.Conn, error) {
	if err := d.ours(); err != nil {
		return nil, err
	}
	pairs, fds, err := newSocketPairs(n)
	if err != nil {
		return nil, err
	}
	_, err = d.c.execute(ctx, genlReconfigure, &genlRequest{
		index:           ptr(uint32(d.Index)),
		sockets:         fds,
		deadConnTimeout: ptr(seconds(d.cfg.DeadConnTimeout)),
		backendID:       d.cfg.BackendID,
	}, true)
	var conns []net.Conn
	for _, p := range pairs {
		if p.adopted() {
			conns = append(conns, p.server)
		} else {
			p.server.Close()
		}
	}
	return conns, err
}

// seconds rounds a duration up to whole seconds, which is what the driver takes.
func seconds(t time.Duration) uint64 {
	if t <= 0 {
		return 0
	}
	return uint64((t + time.Second - 1) / time.Second)
}

// waitDead returns after t, or when dead tells of this device, or with the
// context's error.
func (d *Device) waitDead(ctx context.Context, t time.Duration, dead <-chan int) error {
	timer := time.NewTimer(t)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return nil
		case i, ok := <-dead:
			if !ok {
				dead = nil // no more events; the timer does
			} else if i == d.Index {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait returns after t, or with the context's error.
func wait(ctx context.Context, t time.Duration) error {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
