package iscsitest

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/goiscsi/goiscsi/pdu"
)

// A sharedLock is a lock that can become the same as another one: that of a
// connection becomes its session's when it joins one. The pointer changes only
// under both locks.
type sharedLock struct{ lock atomic.Pointer[sync.Mutex] }

// Lock locks.
func (l *sharedLock) Lock() {
	for {
		m := l.lock.Load()
		m.Lock()
		if l.lock.Load() == m {
			return
		}
		m.Unlock()
	}
}

// Unlock unlocks.
func (l *sharedLock) Unlock() { l.lock.Load().Unlock() }

// become makes l, which is locked, the same lock as m, and locked.
func (l *sharedLock) become(m *sharedLock) {
	own := l.lock.Load()
	m.Lock()
	l.lock.Store(m.lock.Load())
	own.Unlock()
}

// joinable finds the session that a login with a TSIH is for (RFC 7143 section
// 6.3.1). Its nexus is known. A CID that the session has is reinstated: the login
// takes the place of that connection (section 6.3.4).
func (c *Conn) joinable(req *pdu.LoginRequest) (*Conn, *loginError) {
	s := c.srv
	s.mu.Lock()
	lead := s.tsihs[req.TSIH]
	s.mu.Unlock()
	if lead == nil {
		return nil, initiatorError(pdu.InitiatorErrorNoSession)
	}
	lead.mu.Lock()
	defer lead.mu.Unlock()
	switch {
	case lead.discovery || lead.over || lead.nexus != c.nexus:
		return nil, initiatorError(pdu.InitiatorErrorNoSession)
	case !lead.room(req.CID):
		return nil, initiatorError(pdu.InitiatorErrorTooManyConnections)
	}
	// Commands on other connections may have overtaken it.
	if pdu.SerialLess(lead.maxCmdSN+1, req.CmdSN) {
		c.violated(pdu.OpLoginRequest, "CmdSN %d of a further connection is beyond MaxCmdSN %d (11.12.8)", req.CmdSN, lead.maxCmdSN)
	}
	return lead, nil
}

// room reports whether the session may have a connection with a CID. c.mu is held.
func (c *Conn) room(cid uint16) bool {
	n := len(c.conns)
	if slices.ContainsFunc(c.conns, func(o *Conn) bool { return o.cid == cid }) {
		n--
	}
	return n < int(c.neg.MaxConnections)
}

// join makes the connection one of the session's. It returns false if that has
// ended meanwhile. c.mu is held, and is the session's afterwards.
func (c *Conn) join() bool {
	lead := c.joins
	c.mu.become(&lead.mu)
	if lead.over || !lead.room(c.cid) {
		return false
	}
	if old := lead.byCID(c.cid); old != nil {
		c.reinstates = true
		c.srv.logf("connection %d reinstates CID %d of connection %d of %q", c.id, c.cid, old.id, c.nexus.initiator)
		if n := c.login.first.ExpStatSN; old.backlog.responses != nil && !pdu.SerialLess(old.statSN, n) {
			old.backlog.acknowledge(n) // of the old connection (11.12.9)
		}
		old.cleanUp(old.isLevelTwo())
	}
	own := c.neg
	c.common, c.neg, c.tsih = lead.common, lead.neg, lead.tsih
	c.neg.HeaderDigest, c.neg.DataDigest = own.HeaderDigest, own.DataDigest
	c.neg.MaxRecvDataSegmentLength = own.MaxRecvDataSegmentLength
	c.conns = append(c.conns, c)
	c.several = c.several || len(c.conns) > 1
	return true
}
