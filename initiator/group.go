package initiator

import (
	"context"
	"sync/atomic"
	"time"
)

// A group is the connections of a session, made together and lost together. RFC
// 7143 section 7.14 leaves an initiator without error recovery level 2 (and
// without a target that has it) the choice of session recovery, which is what
// this one does: when one connection fails, all do.
type group struct {
	conns []*conn // the leading one first; does not change
	turn  int     // where the last command went; Session.mu protects it

	// leaving: the session is being logged out, in the course of which the
	// target may close the other connections before the leading one.
	leaving atomic.Bool
}

// lead returns the leading connection of the session that c belongs to.
func (c *conn) lead() *conn { return c.group.conns[0] }

// pick returns the connection for the next command: they take turns. The command
// keeps to it (RFC 7143 section 4.2.5.1, connection allegiance). The caller holds
// mu; c is one of the connections.
func (s *Session) pick(c *conn) *conn {
	g := c.group
	if len(g.conns) == 1 {
		return c
	}
	if g.turn++; g.turn >= len(g.conns) {
		g.turn = 0
	}
	return g.conns[g.turn]
}

// flush sends what was appended, on whichever connection of the session. It does
// not block.
func (c *conn) flush() {
	if len(c.group.conns) == 1 {
		c.write()
		return
	}
	for _, p := range c.group.conns {
		p.write()
	}
}

// failOthers ends the other connections because c has failed with err.
func (c *conn) failOthers(err error) {
	if c != c.lead() && c.group.leaving.Load() {
		return
	}
	for _, p := range c.group.conns {
		p.fail(err)
	}
}

// join makes the further connections of a session whose leading connection is c,
// as many as were agreed on. A target that refuses one gets no more.
func (s *Session) join(ctx context.Context, c *conn, res *loginResult, connectTimeout time.Duration) {
	for n := 1; n < res.params.MaxConnections; n++ {
		cid := uint16(n)
		t, more, err := s.est.join(ctx, c.portal, res, cid, connectTimeout)
		if err != nil {
			s.log.Warn("session has fewer connections than agreed on", "portal", c.portal.Address(), "connections", n, "of", res.params.MaxConnections, "err", err)
			return
		}
		p := newConn(s, t, more, c.portal)
		p.cid, p.group = cid, c.group
		c.group.conns = append(c.group.conns, p)
	}
}
