package scsi

import (
	"fmt"
)

// A Status is the SCSI status of a finished command (SAM-6 §5.3).
type Status uint8

// The status codes of SAM-6.
const (
	StatusGood                Status = 0x00
	StatusCheckCondition      Status = 0x02
	StatusConditionMet        Status = 0x04
	StatusBusy                Status = 0x08
	StatusReservationConflict Status = 0x18
	StatusTaskSetFull         Status = 0x28
	StatusACAActive           Status = 0x30
	StatusTaskAborted         Status = 0x40
)

// String returns the standard's name of the status.
func (s Status) String() string {
	switch s {
	case StatusGood:
		return "GOOD"
	case StatusCheckCondition:
		return "CHECK CONDITION"
	case StatusConditionMet:
		return "CONDITION MET"
	case StatusBusy:
		return "BUSY"
	case StatusReservationConflict:
		return "RESERVATION CONFLICT"
	case StatusTaskSetFull:
		return "TASK SET FULL"
	case StatusACAActive:
		return "ACA ACTIVE"
	case StatusTaskAborted:
		return "TASK ABORTED"
	}
	return fmt.Sprintf("status 0x%02x", uint8(s))
}

// A StatusError is a command that the device finished with a status other than
// GOOD. Sense is the zero Sense where none came or what came did not parse.
type StatusError struct {
	Command string // name of the command, as CommandName gives it; may be empty
	Status  Status
	Sense   Sense
}

// Error implements error.
func (e *StatusError) Error() string {
	s := e.Status.String()
	if e.Status == StatusCheckCondition && e.Sense.Valid() {
		s = e.Sense.String()
	}
	if e.Command == "" {
		return s
	}
	return e.Command + ": " + s
}

// Is reports whether target is a *StatusError that e matches: the same status
// and, where target's sense has a key or an additional sense code, the same
// key, ASC and ASCQ. It lets callers write
//
//	errors.Is(err, &scsi.StatusError{Status: scsi.StatusReservationConflict})
func (e *StatusError) Is(target error) bool {
	t, ok := target.(*StatusError)
	if !ok || t.Status != e.Status {
		return false
	}
	if t.Sense.Key == 0 && t.Sense.ASC == 0 {
		return true
	}
	return t.Sense.Key == e.Sense.Key && t.Sense.ASC == e.Sense.ASC && t.Sense.ASCQ == e.Sense.ASCQ
}

// NewStatusError makes the error for a command that ended with status and the
// sense bytes of its response. It returns nil for GOOD and CONDITION MET.
// Sense that does not parse is left out: the status alone still says that the
// command failed.
func NewStatusError(cdb []byte, status Status, sense []byte) error {
	if status == StatusGood || status == StatusConditionMet {
		return nil
	}
	e := &StatusError{Command: CommandName(cdb), Status: status}
	if len(sense) > 0 {
		if s, err := ParseSense(sense); err == nil {
			e.Sense = s
		}
	}
	return e
}
