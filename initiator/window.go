package initiator

import "github.com/goiscsi/goiscsi/pdu"

// A window is the command window of a session (RFC 7143 section 4.2.2.1): which
// CmdSN comes next, and up to which the target takes commands. All comparisons
// are those of RFC 1982, so the numbers may wrap. Session.mu protects it.
type window struct {
	next   uint32 // CmdSN of the next command that is not immediate
	expCmd uint32 // ExpCmdSN: the target has all commands before it
	maxCmd uint32 // MaxCmdSN: the last CmdSN that the target takes
}

// open reports whether a command may be sent.
func (w *window) open() bool { return pdu.SerialLessEqual(w.next, w.maxCmd) }

// take returns the CmdSN for a command and advances it.
func (w *window) take() uint32 {
	n := w.next
	w.next++
	return n
}

// update takes ExpCmdSN and MaxCmdSN from a PDU of the target, by the rules of
// RFC 7143 section 4.2.2.1: both are ignored if MaxCmdSN is less than
// ExpCmdSN-1, and each is ignored if it does not exceed what is known. An
// ExpCmdSN that acknowledges what was never sent is ignored with its MaxCmdSN.
func (w *window) update(expCmd, maxCmd uint32) {
	if pdu.SerialLess(maxCmd, expCmd-1) || pdu.SerialLess(w.next, expCmd) {
		return
	}
	if pdu.SerialLess(w.expCmd, expCmd) {
		w.expCmd = expCmd
	}
	if pdu.SerialLess(w.maxCmd, maxCmd) {
		w.maxCmd = maxCmd
	}
}
