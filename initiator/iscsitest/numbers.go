package iscsitest

import "github.com/goiscsi/goiscsi/pdu"

// A turn says what becomes of a request by its CmdSN.
type turn uint8

const (
	turnNow    turn = iota
	turnIgnore      // outside the window, or a duplicate
	turnHold        // one with a lower CmdSN is missing
)

// numbered reports whether requests with the opcode have a CmdSN.
func numbered(op pdu.Opcode) bool {
	switch op {
	case pdu.OpNOPOut, pdu.OpSCSICommand, pdu.OpTaskManagementRequest, pdu.OpTextRequest, pdu.OpLogoutRequest:
		return true
	}
	return false
}

// A common is what the connections of a session have in common. Their lock, which
// is the same one, guards it.
type common struct {
	lead    *Conn              // on which the session was made; stands for it, also when it is gone
	conns   []*Conn            // live, in the order of their logins
	cleanup []*Conn            // lost, and not logged out
	orphans map[uint32]*orphan // tasks without allegiance, by ITT
	several bool               // there was more than one connection
	over    bool               // the session has ended
	ended   chan struct{}      // closed then

	expCmdSN uint32
	maxCmdSN uint32 // as announced: never goes back
	inflight uint32 // commands received and not answered
	gaps     bool   // a request was lost on purpose: CmdSN may have holes
	held     map[uint32]heldPDU
	uas      attentions
}

// checkCmdSN decides whose turn it is (RFC 7143 section 4.2.2.1) and advances
// ExpCmdSN for a request in order.
func (c *Conn) checkCmdSN(h *pdu.Header) turn {
	op, n := h.Opcode(), h.CmdSN()
	if !numbered(op) {
		return turnNow
	}
	if h.Immediate() {
		// It carries the CmdSN of the next non-immediate request, which
		// can be one beyond a closed window.
		if n != c.expCmdSN && !c.gaps && !c.several {
			c.violated(op, "immediate request with CmdSN %d, expected %d (4.2.2.1)", n, c.expCmdSN)
		}
		return turnNow
	}
	if op == pdu.OpNOPOut && h.InitiatorTaskTag() == pdu.ReservedTag {
		return turnNow // nop reports it
	}
	if !pdu.SerialInWindow(n, c.expCmdSN, c.maxCmdSN) {
		if pdu.SerialLess(c.maxCmdSN, n) {
			c.violated(op, "CmdSN %d is beyond MaxCmdSN %d (4.2.2.1)", n, c.maxCmdSN)
		} else if !c.gaps {
			c.violated(op, "CmdSN %d was used before, expected %d (4.2.2.1)", n, c.expCmdSN)
		}
		return turnIgnore
	}
	if n != c.expCmdSN {
		if !c.gaps && !c.several {
			c.violated(op, "CmdSN %d out of order, expected %d (4.2.2.1)", n, c.expCmdSN)
		}
		return turnHold
	}
	c.advance(h)
	return turnNow
}

// advance counts a request in order. The window stays as it is until a
// command is answered.
func (c *Conn) advance(h *pdu.Header) {
	c.expCmdSN++
	if h.Opcode() == pdu.OpSCSICommand {
		c.inflight++
	}
}

// window returns MaxCmdSN as it is announced now: so far ahead of ExpCmdSN
// that no more than the window's commands are in flight, but never lower than
// before.
func (c *Conn) window() uint32 {
	room := c.srv.window.Load()
	room -= min(room, c.inflight)
	if n := c.expCmdSN + room - 1; pdu.SerialLess(c.maxCmdSN, n) {
		c.maxCmdSN = n
	}
	return c.maxCmdSN
}

// checkExpStatSN checks the acknowledgement that every request carries.
func (c *Conn) checkExpStatSN(h *pdu.Header) {
	n := h.ExpStatSN()
	if h.Opcode() == pdu.OpLogoutRequest && c.isForOther(h) {
		return // it is about that one's (11.14.4)
	}
	switch {
	case pdu.SerialLess(c.statSN, n):
		c.violated(h.Opcode(), "ExpStatSN %d acknowledges what was not sent, next StatSN is %d (4.2.2.2)", n, c.statSN)
	case pdu.SerialLess(n, c.expStatSN):
		c.violated(h.Opcode(), "ExpStatSN %d went back from %d (4.2.2.2)", n, c.expStatSN)
	default:
		if c.expStatSN = n; c.recovers() {
			c.backlog.acknowledge(n)
		}
	}
}

// isForOther reports whether a Logout is for another connection than c.
func (c *Conn) isForOther(h *pdu.Header) bool {
	var p pdu.LogoutRequest
	return p.Decode(h, nil) == nil && p.Reason != pdu.LogoutSession && p.CID != c.cid
}

// nextStatSN returns the StatSN for a response that counts.
func (c *Conn) nextStatSN() uint32 {
	n := c.statSN
	c.statSN++
	return n
}

// number fills the sequence numbers of a response in. advance says whether a
// StatSN is used up.
func (c *Conn) number(p pdu.PDU) {
	exp, maxSN := c.expCmdSN, c.window()
	switch p := p.(type) {
	case *pdu.SCSIResponse:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.nextStatSN(), exp, maxSN
	case *pdu.DataIn:
		p.ExpCmdSN, p.MaxCmdSN = exp, maxSN
		if p.StatSN = 0; p.HasStatus {
			p.StatSN = c.nextStatSN()
		}
	case *pdu.R2T:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.statSN, exp, maxSN
	case *pdu.NOPIn:
		p.ExpCmdSN, p.MaxCmdSN = exp, maxSN
		if p.StatSN = c.statSN; p.InitiatorTaskTag != pdu.ReservedTag {
			c.statSN++
		}
	case *pdu.TaskManagementResponse:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.nextStatSN(), exp, maxSN
	case *pdu.LoginResponse:
		p.ExpCmdSN, p.MaxCmdSN = exp, maxSN
		if p.StatSN = 0; p.StatusClass == pdu.LoginSuccess {
			p.StatSN = c.nextStatSN()
		}
	case *pdu.TextResponse:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.nextStatSN(), exp, maxSN
	case *pdu.LogoutResponse:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.nextStatSN(), exp, maxSN
	case *pdu.AsyncMessage:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.nextStatSN(), exp, maxSN
	case *pdu.Reject:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.nextStatSN(), exp, maxSN
	}
}
