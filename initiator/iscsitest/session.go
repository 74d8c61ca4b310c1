package iscsitest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// A nexus identifies an I_T nexus: initiator port and target port (RFC 7143
// section 4.4.1). At most one session exists for it.
type nexus struct {
	initiator string
	isid      [6]byte
	target    string
	tpgt      uint16
}

func newTarget(t Target) *target {
	if t.TPGT == 0 {
		t.TPGT = 1
	}
	tt := &target{Target: t}
	tt.LUNs = maps.Clone(t.LUNs)
	if tt.LUNs == nil {
		tt.LUNs = map[uint64]*LUN{}
	}
	if t.Controller && tt.LUNs[0] == nil {
		tt.LUNs[0] = &LUN{Type: scsi.TypeController, BlockSize: 512}
	}
	for n, l := range tt.LUNs {
		l.identify(t.Name, n)
	}
	tt.sort()
	return tt
}

// sort renews numbers. t.mu is held, or t is not shared yet.
func (t *target) sort() { t.numbers = slices.Sorted(maps.Keys(t.LUNs)) }

// lun returns the logical unit behind a LUN field.
func (t *target) lun(l pdu.LUN) *LUN {
	n, ok := l.Number()
	if !ok {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.LUNs[n]
}

// allows reports whether the initiator may log in.
func (t *target) allows(initiator string) bool {
	return len(t.Initiators) == 0 || slices.Contains(t.Initiators, initiator)
}

// SetLUN adds, replaces or, with nil, removes a logical unit of a target.
// Sessions learn of it by a unit attention, "reported LUNs data has changed".
func (s *Server) SetLUN(targetName string, number uint64, l *LUN) error {
	t := s.targets[targetName]
	if t == nil {
		return fmt.Errorf("iscsitest: no target %q", targetName)
	}
	if l != nil {
		if err := l.check(); err != nil {
			return fmt.Errorf("iscsitest: lun %d: %w", number, err)
		}
		l.identify(targetName, number)
	}
	t.mu.Lock()
	if l == nil {
		delete(t.LUNs, number)
	} else {
		t.LUNs[number] = l
	}
	t.sort()
	t.mu.Unlock()
	for _, c := range s.normalSessions(nil) {
		if c.target == t {
			c.attentionAll(ascLUNsChanged)
		}
	}
	return nil
}

// UnitAttention has every session of the target find a unit attention
// condition on a logical unit: sense key UNIT ATTENTION with this code.
func (s *Server) UnitAttention(targetName string, number uint64, asc, ascq uint8) {
	for _, c := range s.normalSessions(nil) {
		if c.target.Name == targetName {
			c.uas.add(pdu.LUNFromNumber(number), uint16(asc)<<8|uint16(ascq))
		}
	}
}

// normalSessions returns the normal sessions in full feature phase but one.
// Their nexus and target can be read without a lock.
func (s *Server) normalSessions(but *Conn) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var conns []*Conn
	for _, c := range s.sessions {
		if but == nil || c != but.lead {
			conns = append(conns, c)
		}
	}
	return conns
}

// admit registers c as the session of its nexus, assigns its TSIH, and
// returns the session that it replaces, if any (session reinstatement, RFC
// 7143 section 6.3.5).
func (s *Server) admit(c *Conn) (old *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.sessions[c.nexus]
	if old != nil {
		s.endSession(old)
	}
	for {
		s.lastTSIH++
		if s.lastTSIH != 0 && s.tsihs[s.lastTSIH] == nil {
			break
		}
	}
	c.tsih = s.lastTSIH
	s.tsihs[c.tsih] = c
	if !c.discovery {
		s.sessions[c.nexus] = c
	}
	return old
}

// A SessionInfo describes a session in full feature phase.
type SessionInfo struct {
	Initiator, InitiatorAlias, Target string  // names, as the login had them
	ISID                              [6]byte // the initiator's part of the session identifier
	TSIH                              uint16  // our part
	Discovery                         bool    // a discovery session
	Negotiated                        Negotiated
	// Conn is the leading connection. It may be lost.
	Conn *Conn
	// CIDs are the connections' identifiers, in the order of their logins.
	CIDs []uint16
}

// Sessions returns the sessions in full feature phase in the order of their
// connections, discovery sessions too.
func (s *Server) Sessions() []SessionInfo {
	s.mu.Lock()
	leads := slices.Collect(maps.Values(s.tsihs))
	s.mu.Unlock()
	var infos []SessionInfo
	for _, c := range leads {
		c.mu.Lock()
		if c.phase != phaseLogin && !c.over {
			var cids []uint16
			for _, o := range c.conns {
				cids = append(cids, o.cid)
			}
			infos = append(infos, SessionInfo{
				CIDs:      cids,
				Initiator: c.nexus.initiator, InitiatorAlias: c.alias, Target: c.nexus.target,
				ISID: c.nexus.isid, TSIH: c.tsih, Discovery: c.discovery, Negotiated: c.neg, Conn: c,
			})
		}
		c.mu.Unlock()
	}
	slices.SortFunc(infos, func(a, b SessionInfo) int { return int(a.Conn.id) - int(b.Conn.id) })
	return infos
}
