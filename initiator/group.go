package initiator

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// A group is the connections of a session from one login of the session to the
// next: those that are live, and those that were lost and not made good yet. A
// session with one connection has a group of one.
//
// The supervisor alone changes which connections there are.
type group struct {
	portal Portal // where the leading connection went, and where further ones go

	// members are the live connections. They are replaced as a whole, with
	// Session.mu held, so that sending needs no lock to look at them.
	members atomic.Pointer[members]
	turn    int // where the last command went; Session.mu protects it

	// hurt tells the supervisor that a connection has failed. Capacity 1.
	hurt chan struct{}

	// leaving is where the logout of the session was sent, nil before. In the
	// course of it the target may close the other connections first.
	leaving atomic.Pointer[conn]

	// lost are the connections that have failed, whose tasks wait for what
	// becomes of them (connection_recovery.go). Written with Session.mu held.
	lost []*conn

	// fillers are the NOP-Outs that took numbers which the target lacked, by
	// CmdSN, and where they were sent. Session.mu protects it.
	fillers map[uint32]*conn

	// The supervisor's.
	want      int           // how many connections there were after the login
	lastCID   uint16        // given last
	pause     time.Duration // before a connection is made in the place of a lost one
	notBefore time.Duration // nor is it made before that, on the session's clock: the target's wish
}

// members are the live connections of a group. They do not change.
type members struct {
	live   []*conn // the one that leads first
	takers []*conn // those that commands go to: whom the target has not asked to leave, if there are such
}

func newGroup(lead *conn) *group {
	g := &group{portal: lead.portal, hurt: make(chan struct{}, 1), fillers: make(map[uint32]*conn), want: 1}
	lead.group = g
	g.set([]*conn{lead})
	return g
}

// conns returns the live connections, the one that leads first. The caller does
// not change the list.
func (g *group) conns() []*conn { return g.members.Load().live }

// set makes these the live connections, or finds out anew which of them commands
// go to. The caller holds Session.mu, or nobody else knows the group yet.
func (g *group) set(live []*conn) {
	m := &members{live: live}
	for _, c := range live {
		if c.leave == nil {
			m.takers = append(m.takers, c)
		}
	}
	if len(m.takers) == 0 {
		m.takers = slices.DeleteFunc(slices.Clone(live), func(c *conn) bool { return c.parted.Load() })
	}
	g.members.Store(m)
}

// isLeaving reports whether the logout of the session was sent, so that no request
// may follow it on any connection. The caller holds Session.mu if it is about to send
// one.
func (g *group) isLeaving() bool { return g.leaving.Load() != nil }

// lead returns the connection for what any could do, nil if none is live.
func (g *group) lead() *conn {
	if takers := g.members.Load().takers; len(takers) > 0 {
		return takers[0]
	}
	return nil
}

// all returns the live connections and the lost ones. The supervisor's, or the
// caller holds Session.mu.
func (g *group) all() []*conn {
	if len(g.lost) == 0 {
		return g.conns()
	}
	return slices.Concat(g.conns(), g.lost)
}

// add makes a connection one of the live ones. The caller holds Session.mu, or
// nobody else knows the group yet.
func (g *group) add(c *conn) {
	c.group = g
	g.set(append(slices.Clone(g.conns()), c))
}

// lose makes a live connection one of the lost ones. The caller holds
// Session.mu.
func (g *group) lose(c *conn) {
	g.set(slices.DeleteFunc(slices.Clone(g.conns()), func(p *conn) bool { return p == c }))
	g.lost = append(g.lost, c)
}

// byCID returns the connection with a connection identifier, live or lost, nil if
// there is none. The caller holds Session.mu.
func (g *group) byCID(cid uint16) *conn {
	for _, c := range g.all() {
		if c.cid == cid {
			return c
		}
	}
	return nil
}

// nextCID returns an identifier that no connection of the group has. They go
// round, so that one is not used again soon after the target was told to forget it.
func (g *group) nextCID() uint16 {
	for {
		g.lastCID++
		if !slices.ContainsFunc(g.all(), func(c *conn) bool { return c.cid == g.lastCID }) {
			return g.lastCID
		}
	}
}

// pick returns the connection for the next command: they take turns. The command
// keeps to it (RFC 7143 section 4.2.5.1, connection allegiance). The caller holds
// mu; there is a live connection that takes it.
func (g *group) pick() *conn {
	takers := g.members.Load().takers
	if len(takers) == 1 {
		return takers[0]
	}
	if g.turn++; g.turn >= len(takers) {
		g.turn = 0
	}
	return takers[g.turn]
}

// flush sends what was appended, on whichever connection of the session. It does
// not block.
func (g *group) flush() {
	for _, c := range g.conns() {
		c.write()
	}
}

// fail ends all connections because of err. It does not block.
func (g *group) fail(err error) {
	for _, c := range g.conns() {
		c.fail(err)
	}
}

// failed takes notice that a connection has failed with err: the supervisor is to
// see to it. What is wrong with more than the connection ends all at once.
func (g *group) failed(err error) {
	if endsSession(err) {
		g.fail(err)
	}
	g.look()
}

// look has the supervisor look after the connections.
func (g *group) look() {
	select {
	case g.hurt <- struct{}{}:
	default:
	}
}

// endsSession reports whether a failure of one connection is one of the session,
// too: a target that violates the protocol is to be left on all connections (RFC
// 7143 section 7.7), and it may announce that it drops them all.
func endsSession(err error) bool {
	if drop := (*dropError)(nil); errors.As(err, &drop) {
		return drop.session
	}
	return errors.Is(err, ErrProtocol)
}

// wait waits until nobody uses the connections, and with them the tasks' buffers,
// any more. They have failed.
func (g *group) wait() {
	for _, c := range g.conns() {
		c.wait()
	}
}

// join makes the further connections of a session that has been made, as many as
// were agreed on. A target that refuses one gets no more.
func (s *Session) join(ctx context.Context, g *group, res *loginResult, connectTimeout time.Duration) {
	for g.want < res.params.MaxConnections {
		c, err := s.joinOne(ctx, g, res, g.nextCID(), connectTimeout)
		if err != nil {
			s.log.Warn("session has fewer connections than agreed on", "portal", g.portal.Address(), "connections", g.want, "of", res.params.MaxConnections, "err", err)
			return
		}
		g.add(c)
		g.want++
	}
}

// joinOne makes a further connection of the session that res is about.
func (s *Session) joinOne(ctx context.Context, g *group, res *loginResult, cid uint16, connectTimeout time.Duration) (*conn, error) {
	t, more, err := s.est.join(ctx, g.portal, res, cid, connectTimeout)
	if err != nil {
		return nil, err
	}
	c := newConn(s, t, more, g.portal)
	c.cid, c.group = cid, g
	return c, nil
}
