package iscsitest

import (
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A session outlives the loss of a connection as long as it has another one, and
// at error recovery level 2 for a time without any. docs/target.md has the states
// of a lost connection, which are those of RFC 7143 section 8.2.

// isLevelTwo reports whether tasks may change to another connection.
func (c *Conn) isLevelTwo() bool {
	return c.neg.ErrorRecoveryLevel >= 2 && c.neg.DefaultTime2Retain > 0
}

// lost deals with the end of a connection that nobody has logged out of. c.mu is
// held.
func (c *Conn) lost() {
	c.conns = slices.DeleteFunc(c.conns, func(o *Conn) bool { return o == c })
	if c.over || c.discovery || len(c.conns) == 0 && !c.isLevelTwo() {
		c.finish()
		return
	}
	if !c.isLevelTwo() {
		c.terminate()
	}
	c.cleanup = append(c.cleanup, c)
	if c.srv.cfg.AnnounceDrops {
		c.announce()
	}
	c.srv.logf("connection %d: lost CID %d of %q", c.id, c.cid, c.nexus.initiator)
	c.later(func() {
		if c.waits() {
			c.cleanUp(false)
			c.finishIfEmpty()
		}
	})
}

// announce tells the initiator on another connection that this one is dropped (RFC
// 7143 section 11.9.1, event 2). c.mu is held.
func (c *Conn) announce() {
	i := slices.IndexFunc(c.conns, func(o *Conn) bool { return o.phase == phaseFull })
	if i < 0 {
		return
	}
	p := &pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop, Parameter1: c.cid, Parameter2: uint16(c.neg.DefaultTime2Wait)}
	if c.isLevelTwo() {
		p.Parameter3 = uint16(c.neg.DefaultTime2Retain) // else its tasks have been terminated
	}
	o := c.conns[i]
	if err := o.send(p); err != nil {
		o.close()
	} else if err := o.flush(); err != nil {
		o.close()
	}
}

// waits reports whether the connection is lost and nobody has logged out of it. c.mu
// is held.
func (c *Conn) waits() bool { return slices.Contains(c.cleanup, c) }

// later calls f, with c.mu held, when the target has waited for the initiator for
// as long as was agreed on (RFC 7143 section 7.5), unless the session ends before.
func (c *Conn) later(f func()) {
	over, wait := c.ended, time.Duration(c.neg.DefaultTime2Wait+c.neg.DefaultTime2Retain)*time.Second
	c.srv.spawn(func() {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
			c.mu.Lock()
			defer c.mu.Unlock()
			if !c.over {
				f()
			}
		case <-over:
		case <-c.srv.quit:
		}
	})
}

// byCID finds a connection of the session, be it live or lost. c.mu is held.
func (c *Conn) byCID(cid uint16) *Conn {
	same := func(o *Conn) bool { return o.cid == cid }
	if i := slices.IndexFunc(c.conns, same); i >= 0 {
		return c.conns[i]
	}
	if i := slices.IndexFunc(c.cleanup, same); i >= 0 {
		return c.cleanup[i]
	}
	return nil
}

// cleanUp completes the logout of c, explicit or not, that does not come on c itself.
// c.mu is held.
func (c *Conn) cleanUp(recovery bool) {
	c.close()
	c.phase = phaseClosed
	c.discard(recovery)
}

// discard ends the membership of c in its session: nothing that came on it is
// executed from here on, and what was not acknowledged is forgotten. For recovery
// the tasks that were acknowledged wait for a new allegiance, else they are
// terminated. c.mu is held.
func (c *Conn) discard(recovery bool) {
	gone := func(o *Conn) bool { return o == c }
	c.conns = slices.DeleteFunc(c.conns, gone)
	c.cleanup = slices.DeleteFunc(c.cleanup, gone)
	for sn, h := range c.held {
		if h.c == c {
			delete(c.held, sn)
		}
	}
	if recovery {
		c.release()
	} else {
		c.terminate()
	}
}

// terminate ends the tasks of the connection (RFC 7143 section 7.6). c.mu is held.
func (c *Conn) terminate() {
	for _, t := range c.tasks {
		c.cleared(t.req.lun)
		c.abort(t)
	}
	for itt, d := range c.delayed {
		c.cleared(c.target.lun(d.lun))
		c.abortDelayed(itt)
	}
	for _, o := range c.interrupted {
		c.cleared(o.lun)
		c.drop(o)
	}
	c.interrupted = nil
	c.backlog = backlog{}
}

// cleared has the session find out that a task of a unit was terminated.
func (c *Conn) cleared(l *LUN) {
	if l != nil && c.srv.cfg.UnitAttention {
		c.attentionUnit(l, ascClearedByEvent)
	}
}

// finish ends the session. c.mu is held.
func (c *Conn) finish() {
	if c.over {
		return
	}
	c.over = true
	close(c.ended)
	for _, o := range c.conns {
		o.close()
		o.phase = phaseClosed
	}
	c.cleanup = nil
	clear(c.orphans)
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.srv.endSession(c.lead)
}

// finishIfEmpty ends a session that has no connection and none to recover. c.mu is
// held.
func (c *Conn) finishIfEmpty() {
	if len(c.conns) == 0 && len(c.cleanup) == 0 && len(c.orphans) == 0 {
		c.finish()
	}
}

// logout handles a logout (RFC 7143 section 11.14).
func (c *Conn) logout(h *pdu.Header, p *pdu.LogoutRequest) error {
	rsp := &pdu.LogoutResponse{InitiatorTaskTag: p.InitiatorTaskTag}
	rsp.Time2Wait, rsp.Time2Retain = uint16(c.neg.DefaultTime2Wait), uint16(c.neg.DefaultTime2Retain)
	switch p.Reason {
	case pdu.LogoutSession:
		return c.leave(rsp)
	case pdu.LogoutConnection:
		if c.discovery {
			c.violated(pdu.OpLogoutRequest, "a discovery session must be closed as a session (13.21)")
		}
	case pdu.LogoutRecovery:
		if !c.isLevelTwo() {
			rsp.Response = pdu.LogoutRecoveryNotSupported
			return c.send(rsp)
		}
	default:
		c.violated(pdu.OpLogoutRequest, "reason %d is reserved (11.14.1)", p.Reason)
		return c.reject(h, pdu.RejectInvalidField)
	}
	recovery := p.Reason == pdu.LogoutRecovery
	o := c.byCID(p.CID)
	switch {
	case o == nil:
		rsp.Response = pdu.LogoutCIDNotFound
		return c.send(rsp)
	case o != c:
		switch {
		case o.reinstates && pdu.SerialLess(o.statSN, p.ExpStatSN):
			// An initiator that has not got the answer to that login means the
			// connection before.
		case pdu.SerialLess(o.statSN, p.ExpStatSN):
			c.violated(pdu.OpLogoutRequest, "ExpStatSN %d acknowledges what was not sent on CID %d, next StatSN is %d (11.14.4)", p.ExpStatSN, p.CID, o.statSN)
		case o.backlog.responses != nil:
			o.backlog.acknowledge(p.ExpStatSN)
		}
		o.cleanUp(recovery)
		c.srv.logf("connection %d: %q logged out of CID %d", c.id, c.nexus.initiator, o.cid)
		return c.send(rsp)
	case !recovery && len(c.conns) == 1 && len(c.cleanup) == 0 && len(c.orphans) == 0:
		return c.leave(rsp)
	}
	c.discard(recovery)
	c.srv.logf("connection %d: %q logged out of CID %d, this one", c.id, c.nexus.initiator, c.cid)
	return c.part(rsp)
}

// leave ends the session after the answer to a logout.
func (c *Conn) leave(rsp *pdu.LogoutResponse) error {
	if !c.discovery {
		c.abortUnit(nil)
	}
	err := c.part(rsp)
	c.conns = slices.DeleteFunc(c.conns, func(o *Conn) bool { return o == c })
	c.finish()
	c.srv.logf("connection %d: %q logged out of %q", c.id, c.nexus.initiator, c.nexus.target)
	return err
}

// part sends the answer to a logout of the connection, and FIN. The initiator closes
// its end then, and whatever it sends instead is looked at.
func (c *Conn) part(rsp *pdu.LogoutResponse) error {
	if err := c.send(rsp); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.phase = phaseLogout
	if hc, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return hc.CloseWrite()
	}
	return errEnd
}
