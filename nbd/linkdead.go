//go:build linux

package nbd

import (
	"context"
	"errors"
	"syscall"
)

// A subscription is one call of LinkDead.
type subscription struct {
	ch chan int
}

// maxQueued is how many events a subscriber may leave unread.
const maxQueued = 1024

// LinkDead returns a channel that tells the number of each device of which a
// socket died (NBD_CMD_LINK_DEAD), whoever it belongs to, from now until ctx
// ends or the Controller is closed, when the channel is closed. A subscriber that
// leaves 1024 events unread loses those that follow: events only speed things
// up, the end of ServeConn tells the same.
func (c *Controller) LinkDead(ctx context.Context) <-chan int {
	s := &subscription{ch: make(chan int, maxQueued)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs == nil {
		close(s.ch)
		return s.ch
	}
	c.subs[s] = struct{}{}
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, ok := c.subs[s]; ok {
			delete(c.subs, s)
			close(s.ch)
		}
	})
	return s.ch
}

// receive is the goroutine that hands the driver's multicasts to subscribers. It
// ends when the socket is closed.
func (c *Controller) receive() {
	defer close(c.watchDone)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for s := range c.subs {
			close(s.ch)
		}
		c.subs = nil
	}()
	for {
		msgs, _, err := c.watch.Receive()
		switch {
		case err == nil:
		case errors.Is(err, syscall.ENOBUFS):
			c.opt.Logger.Warn("nbd: kernel events were lost")
			continue
		case c.closing.Load():
			return // the netlink package has errors of its own for that
		default:
			c.opt.Logger.Warn("nbd: receiving kernel events ended", "error", err)
			return
		}
		for _, m := range msgs {
			if m.Header.Command != genlLinkDead {
				continue
			}
			index, err := decodeIndex(m.Data)
			if err != nil {
				c.opt.Logger.Warn("nbd: malformed kernel event", "error", err)
				continue
			}
			c.mu.Lock()
			for s := range c.subs {
				select {
				case s.ch <- index:
				default:
				}
			}
			c.mu.Unlock()
		}
	}
}
