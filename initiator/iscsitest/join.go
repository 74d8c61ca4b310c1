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
// 6.3.1). Its nexus is known. A CID that is in use is not taken over.
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
	case lead.discovery || lead.phase != phaseFull || lead.nexus != c.nexus:
		return nil, initiatorError(pdu.InitiatorErrorNoSession)
	case len(lead.conns) >= int(lead.neg.MaxConnections):
		return nil, initiatorError(pdu.InitiatorErrorTooManyConnections)
	case slices.ContainsFunc(lead.conns, func(o *Conn) bool { return o.cid == req.CID }):
		return nil, initiatorError(pdu.InitiatorErrorCannotInclude)
	}
	if req.CmdSN != lead.expCmdSN && !pdu.SerialInWindow(req.CmdSN, lead.expCmdSN, lead.maxCmdSN+1) {
		c.violated(pdu.OpLoginRequest, "CmdSN %d of a further connection, the session is at %d (11.12.8)", req.CmdSN, lead.expCmdSN)
	}
	return lead, nil
}

// join makes the connection one of the session's. It returns false if that has
// ended meanwhile. c.mu is held, and is the session's afterwards.
func (c *Conn) join() bool {
	lead := c.joins
	c.mu.become(&lead.mu)
	if lead.phase != phaseFull || len(lead.conns) >= int(lead.neg.MaxConnections) {
		return false
	}
	own := c.neg
	c.common, c.neg, c.tsih = lead.common, lead.neg, lead.tsih
	c.neg.HeaderDigest, c.neg.DataDigest = own.HeaderDigest, own.DataDigest
	c.neg.MaxRecvDataSegmentLength = own.MaxRecvDataSegmentLength
	c.conns = append(c.conns, c)
	return true
}

// endTogether ends the other connections of a session that has lost one: at error
// recovery levels 0 and 1 this target leaves it to the initiator to begin anew.
func (c *Conn) endTogether() {
	c.mu.Lock()
	others := slices.Clone(c.conns)
	c.mu.Unlock()
	for _, o := range others {
		o.close()
	}
}
