package initiator

import (
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// retryPeriod is how long a command may be without acknowledgement before it is
// sent again, where pings do not set a time.
const retryPeriod = 5 * time.Second

// An ackWatch notices that the target is stuck before a command that it did not
// get (error recovery level 1). Session.mu protects it.
type ackWatch struct {
	at     time.Duration // when to look again; 0: not looking
	expCmd uint32        // what the target waited for when looked at last
	next   uint32        // CmdSN that came next then
}

// retry sends a command again as it was: with its tag and its CmdSN, so that the
// target ignores it if it has it (RFC 7143 section 7.2.1); not on a connection that
// is lost or left. The caller holds mu and has c flushed later.
func (s *Session) retry(c *conn, sl *slot) {
	if c.hasFailed() || c.parted.Load() {
		return
	}
	s.log.Warn("command was lost, sending it again", "lun", sl.task.LUN, "cmdsn", sl.cmdSN)
	sent, batch := sl.sent, sl.cmdBatch
	s.transmit(c, sl)
	sl.sent = max(sl.sent, sent)
	sl.cmdBatch = batch // for the target may have it since then
}

// retryLost sends the command again that the target waits for, if it has waited
// for it over a whole period, and returns when to look again. In that time a
// silent target was pinged, and has said what it waits for. The caller holds mu.
func (s *Session) retryLost(c *conn, now time.Duration) time.Duration {
	if !c.recovers() || c.group.isLeaving() {
		return never
	}
	w := &s.ackWatch
	if w.at > now {
		return w.at
	}
	if w.at != 0 && w.expCmd == s.win.expCmd && pdu.SerialLess(w.expCmd, w.next) {
		s.slots.each(func(sl *slot) {
			if sl.state == slotSent && sl.cmdSN == w.expCmd && !sl.aborting {
				s.retry(sl.conn, sl)
			}
		})
	}
	period := retryPeriod
	if t := &s.cfg.Timeouts; t.NoopInterval > 0 && t.NoopTimeout > 0 {
		period = max(t.NoopInterval, time.Millisecond) + max(t.NoopTimeout, time.Millisecond)
	}
	*w = ackWatch{at: now + period, expCmd: s.win.expCmd, next: s.win.next}
	return w.at
}
