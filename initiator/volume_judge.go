package initiator

import (
	"errors"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// A verdict says what to do with a command that came back.
type verdict uint8

const (
	// verdictDone: the command succeeded.
	verdictDone verdict = iota
	// verdictAttention: a unit attention was reported instead of carrying the
	// command out; send it again at once.
	verdictAttention
	// verdictHold: the same, but the device must be identified first.
	verdictHold
	// verdictAgain: something came between; send it again a few times.
	verdictAgain
	// verdictBusy: send it again after a back-off, while patience lasts.
	verdictBusy
	// verdictFull: the same, and send fewer commands at a time.
	verdictFull
	// verdictWait: the device is getting ready; ask again, while patience lasts.
	verdictWait
	// verdictUnsupported: the device does not know the command or one of its
	// options; another way may be open.
	verdictUnsupported
	// verdictFail: the command failed for good.
	verdictFail
)

// An attention is something that sense data tell about the device rather than
// about a command. They are bits, so that any number of them can wait in a
// word for the goroutine that deals with them.
type attention uint32

const (
	attnReset     attention = 1 << iota // 29/xx: power on, reset, nexus loss
	attnReplaced                        // 28/00, 3F/03, 3F/05: perhaps another device
	attnCapacity                        // 2A/09, or an LBA out of range
	attnMode                            // 2A/01: mode parameters changed
	attnLUNs                            // 3F/0E: the target's inventory changed
	attnThreshold                       // 38/07: thin provisioning threshold
	attnDeferred                        // a deferred error: cached writes were lost
	attnAccess                          // 2A/06: the access state of the path changed
)

// attnIdentify are the attentions after which no command may go to the device
// until it is known to be the same.
const attnIdentify = attnReset | attnReplaced

// A judgement is a verdict with what belongs to it.
type judgement struct {
	verdict   verdict
	attention attention
	kind      error // the sentinel that sums up a failure, may be nil
}

func fail(kind error) judgement { return judgement{verdict: verdictFail, kind: kind} }

// judge decides about a finished task. docs/disk.md has it as a table. The
// sense data come along decoded; they are the zero Sense where there are none.
func judge(t *Task) (judgement, scsi.Sense) {
	if t.Err != nil {
		return judgeError(t.Err), scsi.Sense{}
	}
	switch t.Status {
	case scsi.StatusGood, scsi.StatusConditionMet:
		if t.Residual > 0 {
			// The device claims success with less than all of the data.
			return judgement{verdict: verdictAgain, kind: ErrDevice}, scsi.Sense{}
		}
		return judgement{}, scsi.Sense{}
	case scsi.StatusCheckCondition:
		s, err := scsi.ParseSense(t.Sense)
		if err != nil {
			// No usable sense data: nobody can know what it was.
			return judgement{verdict: verdictAgain, kind: ErrDevice}, scsi.Sense{}
		}
		j := judgeSense(s)
		if j.verdict == verdictDone && t.Residual > 0 {
			return judgement{verdict: verdictAgain, kind: ErrDevice}, s
		}
		return j, s
	case scsi.StatusBusy, scsi.StatusACAActive:
		return judgement{verdict: verdictBusy, kind: ErrBusy}, scsi.Sense{}
	case scsi.StatusTaskSetFull:
		return judgement{verdict: verdictFull, kind: ErrBusy}, scsi.Sense{}
	case scsi.StatusTaskAborted:
		return judgement{verdict: verdictAgain, kind: ErrDevice}, scsi.Sense{}
	case scsi.StatusReservationConflict:
		return fail(ErrReservationConflict), scsi.Sense{}
	}
	return fail(ErrDevice), scsi.Sense{}
}

// judgeError decides about a task that got no status. A task that timed out or
// was ended by a reset was aborted at the target before it came back, so it
// cannot come in the way of its successor. The rest has been retried by the
// session as far as that makes sense.
func judgeError(err error) judgement {
	switch {
	case errors.Is(err, errUnidentified):
		return judgement{verdict: verdictHold, attention: attnReplaced}
	case errors.Is(err, ErrClosed), errors.Is(err, ErrRecoveryTimeout):
		return fail(nil)
	case errors.Is(err, ErrTimeout), errors.Is(err, ErrAborted), errors.Is(err, ErrInterrupted):
		return judgement{verdict: verdictAgain}
	}
	return fail(nil)
}

// judgeSense decides by sense data.
func judgeSense(s scsi.Sense) judgement {
	if s.Deferred() {
		// The command itself was not carried out (SPC-5 section 4.4.7); what
		// failed are writes that were answered long ago.
		return judgement{verdict: verdictAgain, attention: attnDeferred, kind: ErrDevice}
	}
	switch s.Key {
	case scsi.KeyNoSense, scsi.KeyRecoveredError, scsi.KeyCompleted:
		j := judgement{}
		if s.Code() == 0x3807 {
			j.attention = attnThreshold
		}
		return j
	case scsi.KeyNotReady:
		return judgeNotReady(s)
	case scsi.KeyMediumError, scsi.KeyBlankCheck:
		return fail(ErrMedium)
	case scsi.KeyIllegalRequest:
		return judgeIllegal(s)
	case scsi.KeyUnitAttention:
		return judgeAttention(s)
	case scsi.KeyDataProtect:
		return judgeProtect(s)
	case scsi.KeyAbortedCommand:
		if s.ASC == 0x10 {
			// Protection information does not match: it will not next time.
			return fail(ErrMedium)
		}
		return judgement{verdict: verdictAgain, kind: ErrDevice}
	case scsi.KeyMiscompare:
		return fail(ErrMiscompare)
	case scsi.KeyVolumeOverflow:
		return fail(ErrNoSpace)
	}
	return fail(ErrDevice)
}

func judgeNotReady(s scsi.Sense) judgement {
	wait := judgement{verdict: verdictWait, kind: ErrNotReady}
	switch s.ASC {
	case 0x04:
		switch s.ASCQ {
		case 0x01, // becoming ready
			0x04, 0x05, 0x06, 0x07, 0x08, 0x09, // format … self-test in progress
			0x0a,       // asymmetric access state transition
			0x11,       // notify (enable spinup) required
			0x13, 0x14, // SA creation, space allocation in progress
			0x1a, 0x1b, 0x1c, 0x1d, // start/stop, sanitize, power, configuration
			0x24: // depopulation in progress
			return wait
		}
		return fail(ErrNotReady)
	case 0x3a:
		return fail(ErrNoMedium)
	case 0x3e:
		if s.ASCQ == 0 { // has not self-configured yet
			return wait
		}
	}
	return fail(ErrNotReady)
}

func judgeIllegal(s scsi.Sense) judgement {
	switch s.ASC {
	case 0x20:
		if s.ASCQ == 0x02 {
			return fail(ErrAccess)
		}
		return judgement{verdict: verdictUnsupported, kind: ErrUnsupported}
	case 0x24, 0x26:
		return judgement{verdict: verdictUnsupported, kind: ErrUnsupported}
	case 0x21:
		return judgement{verdict: verdictFail, kind: ErrOutOfRange, attention: attnCapacity}
	case 0x25:
		return judgement{verdict: verdictFail, kind: ErrNoDevice, attention: attnLUNs}
	}
	return fail(ErrDevice)
}

func judgeAttention(s scsi.Sense) judgement {
	j := judgement{verdict: verdictAttention, kind: ErrDevice}
	switch {
	case s.ASC == 0x29:
		j.verdict, j.attention = verdictHold, attnReset
	case s.ASC == 0x28 && s.ASCQ == 0x00, s.ASC == 0x3f && (s.ASCQ == 0x03 || s.ASCQ == 0x05):
		j.verdict, j.attention = verdictHold, attnReplaced
	case s.Code() == 0x2a09:
		j.attention = attnCapacity
	case s.Code() == 0x2a01:
		j.attention = attnMode
	case s.Code() == 0x2a06:
		j.attention = attnAccess
	case s.Code() == 0x3f0e:
		// What has the number now may be another unit.
		j.verdict, j.attention = verdictHold, attnLUNs|attnReplaced
	case s.Code() == 0x3807:
		j.attention = attnThreshold
	}
	return j
}

func judgeProtect(s scsi.Sense) judgement {
	switch {
	case s.Code() == 0x2707:
		return fail(ErrNoSpace)
	case s.ASC == 0x27:
		return judgement{verdict: verdictFail, kind: ErrReadOnly, attention: attnMode}
	case s.Code() == 0x2002:
		return fail(ErrAccess)
	}
	return fail(ErrDevice)
}
