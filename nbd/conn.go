//go:build linux

package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrDrained is returned by ServeConn when its context ended, everything that
// the peer had sent was answered, and the stream stands between two requests:
// the socket is whole and can be served on, by this process or another.
var ErrDrained = errors.New("nbd connection drained")

// ErrPeerStuck is returned by ServeConn when an ending connection was given up
// because the peer did not take its replies, or did not finish its request, in
// ServerOptions.DrainTimeout.
var ErrPeerStuck = errors.New("nbd peer does not read its replies or finish its request")

// A Conn is a connection in the transmission phase, as its backend sees it.
type Conn struct {
	nc      net.Conn
	export  *Export
	backend Backend
	opt     ServerOptions
	t       transport

	blockMask  uint64
	maxPayload uint32

	// draining is set when the context has ended, before the reader is woken.
	draining atomic.Bool

	in inbound // the reader goroutine's

	// handoff gives the writing, with writing set, to the sender goroutine.
	// There is at most one writer, hence at most one message.
	handoff chan struct{}
	// room wakes the reader, which has set waiting.
	room chan struct{}

	mu           sync.Mutex // protects what follows
	head, tail   *Request   // replies to write, in order of completion
	free         *Request   // requests whose reply is written
	writing      bool       // someone owns out
	waiting      bool       // the reader waits on room
	released     int64      // requests that came to free, ever
	releasedSize int64      // payload bytes that came back with them
	writes       int64      // batches written, to see progress
	dead         error      // set once when the socket is of no use any more

	out outbound // belongs to whoever set writing
}

// ServeConn serves the transmission phase on nc, a stream socket whose
// handshake, if it has one, is over. It returns when the connection has ended
// and every request has been completed by b and answered:
//
//   - nil after the peer's NBD_CMD_DISC
//   - an error that is io.EOF when the peer closed the socket without it
//     between two requests, io.ErrUnexpectedEOF within one
//   - ErrDrained when ctx ended and the stream is whole; this is the one case
//     in which nc stays open
//   - else what went wrong: a *FormatError, the socket's error, ErrPeerStuck
//
// To end a connection at once, close nc.
func ServeConn(ctx context.Context, nc net.Conn, e *Export, b Backend, o *ServerOptions) error {
	if err := e.Validate(); err != nil {
		nc.Close()
		return err
	}
	opt := o.withDefaults()
	smallest, _, largest := e.blockSizes()
	c := &Conn{
		nc: nc, export: e, backend: b, opt: opt, t: newTransport(nc),
		blockMask: uint64(smallest) - 1, maxPayload: largest,
		handoff: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	c.in.buf = make([]byte, opt.ReadBuffer)
	setSendBuffer(nc, opt.SendBuffer)

	// The sender runs until the last reply is written; it is waited for below.
	senderDone := make(chan struct{})
	go func() {
		defer close(senderDone)
		c.send()
	}()

	// A context that ends wakes the reader by a deadline in the past.
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		c.draining.Store(true)
		nc.SetReadDeadline(time.Unix(1, 0))
	})

	err := c.receive()
	if !stop() {
		<-woken
	}
	c.kick()
	if err != nil && err != ErrDrained {
		c.fail(err)
	}
	// A write that failed closed the socket under the reader: then the
	// writer's error is the one that tells.
	if failed := c.waitReplies(); failed != nil && (err == nil || err == ErrDrained || errors.Is(err, net.ErrClosed)) {
		err = failed
	}
	close(c.handoff)
	<-senderDone
	if err == ErrDrained {
		nc.SetDeadline(time.Time{})
		return err
	}
	nc.Close()
	if err != nil {
		return fmt.Errorf("nbd: serve: %w", err)
	}
	return nil
}

// Export returns the export that the connection serves.
func (c *Conn) Export() *Export { return c.export }

// fail makes the socket unusable: replies that are not yet written are dropped,
// and so are those to come.
func (c *Conn) fail(err error) {
	c.nc.Close() // a writer that waits for the peer returns
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead == nil {
		c.dead = err
	}
	r := c.head
	c.head, c.tail = nil, nil
	c.releaseList(r)
}

// waitReplies waits until every request has been completed and its reply been
// written or dropped. The backend may take its time; the peer has to take
// replies within DrainTimeout, else the connection fails and ErrPeerStuck is
// returned. It is called by the reader when it has stopped reading.
func (c *Conn) waitReplies() error {
	tick := time.NewTicker(c.opt.DrainTimeout)
	defer tick.Stop()
	var stuck error
	seen, wasWriting := int64(-1), false
	for {
		c.mu.Lock()
		if c.released == c.in.taken && !c.writing {
			err := c.dead
			c.mu.Unlock()
			if stuck == nil && err != nil {
				return err
			}
			return stuck
		}
		c.waiting = true
		c.mu.Unlock()
		select {
		case <-c.room:
		case <-tick.C:
			c.mu.Lock()
			writing, writes := c.writing, c.writes
			c.mu.Unlock()
			if writing && wasWriting && writes == seen && stuck == nil {
				stuck = ErrPeerStuck
				c.fail(stuck)
			}
			seen, wasWriting = writes, writing
		}
	}
}

// setSendBuffer sets SO_SNDBUF to n bytes as far as the process may.
// TCP sizes its buffers by itself.
func setSendBuffer(nc net.Conn, n int) {
	uc, ok := nc.(*net.UnixConn)
	if !ok || n < 0 {
		return
	}
	rc, err := uc.SyscallConn()
	if err != nil {
		return
	}
	// It is an optimisation: a kernel that refuses it serves all the same.
	_ = rc.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, n)
		}
	})
}

// isDeadline reports whether the read ended because of a deadline.
func isDeadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
