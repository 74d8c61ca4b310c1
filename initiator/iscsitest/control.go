package iscsitest

import "github.com/goiscsi/goiscsi/pdu"

// A refusal makes the next logins fail.
type refusal struct {
	class, detail uint8
	left          int
}

// A redirect sends logins to another portal.
type redirect struct {
	addr   string
	detail uint8
	left   int
}

// RejectLogins has the next n logins end with a status class and detail, at
// their first request; a negative n means all logins until it is called with
// 0.
func (s *Server) RejectLogins(class, detail uint8, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refusal{class, detail, n}
}

// RedirectTo has the next n logins to a target sent to another portal,
// "host:port" or "host:port,tpgt"; a negative n means all until it is called
// with 0.
func (s *Server) RedirectTo(targetName, portal string, permanent bool, n int) {
	detail := pdu.RedirectionTemporary
	if permanent {
		detail = pdu.RedirectionPermanent
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.redirects[targetName] = redirect{portal, detail, n}
}

// takeRefusal returns the status that a login ends with by order of
// RejectLogins, if any.
func (s *Server) takeRefusal() (class, detail uint8, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse.left == 0 {
		return 0, 0, false
	}
	s.refuse.left--
	return s.refuse.class, s.refuse.detail, true
}

func (s *Server) takeRedirect(targetName string) (addr string, detail uint8, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.redirects[targetName]
	if r.left == 0 {
		return "", 0, false
	}
	r.left--
	s.redirects[targetName] = r
	return r.addr, r.detail, true
}

// DropConnections ends all connections as if the network had failed, with a
// FIN.
func (s *Server) DropConnections() {
	for _, c := range s.Conns() {
		c.Close()
	}
}

// ResetConnections ends all TCP connections with a reset.
func (s *Server) ResetConnections() {
	for _, c := range s.Conns() {
		c.Reset()
	}
}

// Pause has the server stop answering: connections stay open, and further
// ones are accepted, but nothing that arrives is processed until the returned
// function is called. It is the half-open connection of a target that hangs.
func (s *Server) Pause() (resume func()) {
	gate := make(chan struct{})
	s.pause.Store(&gate)
	return func() {
		if s.pause.CompareAndSwap(&gate, nil) {
			close(gate)
		}
	}
}

// SetCommandWindow changes how many commands a session may have in flight. 0
// closes the window; the MaxCmdSN that was announced before stays valid.
// All sessions are told of it by a NOP-In.
func (s *Server) SetCommandWindow(n uint32) {
	s.window.Store(n)
	s.each(func(c *Conn) error {
		return c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag})
	})
}

// Ping sends a NOP-In that asks for an answer to all normal sessions. An
// answer with a wrong tag or LUN is a violation.
func (s *Server) Ping(lun uint64) {
	s.each(func(c *Conn) error {
		ttt := c.nextTTT()
		c.pings[ttt] = pdu.LUNFromNumber(lun)
		return c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: ttt, LUN: c.pings[ttt]})
	})
}

// AsyncMessage sends an asynchronous message to all normal sessions. Its
// sequence numbers are filled in.
func (s *Server) AsyncMessage(m pdu.AsyncMessage) {
	s.each(func(c *Conn) error {
		p := m
		return c.send(&p)
	})
}

// each calls f for the normal sessions in full feature phase, with the lock of
// the connection held, and sends what it leaves. A connection with an error
// is ended.
func (s *Server) each(f func(c *Conn) error) {
	for _, c := range s.Conns() {
		c.mu.Lock()
		var err error
		if c.phase == phaseFull && !c.discovery {
			if err = f(c); err == nil {
				err = c.flush()
			}
		}
		c.mu.Unlock()
		if err != nil {
			c.Close()
		}
	}
}

// Send sends a PDU to the initiator at once, its sequence numbers filled in
// unless asIs says to leave them.
func (c *Conn) Send(p pdu.PDU, asIs bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !asIs {
		c.number(p)
	}
	if err := c.append(p); err != nil {
		return err
	}
	return c.flush()
}

// nextTTT returns a target transfer tag that is not in use.
func (c *Conn) nextTTT() uint32 {
	if c.lastTTT++; c.lastTTT == pdu.ReservedTag {
		c.lastTTT = 1
	}
	return c.lastTTT
}
