package initiator

import (
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// maxSense is the most sense data that SPC-5 knows, in bytes.
const maxSense = 252

// A Task is one SCSI command. It belongs to the caller, who may use it again
// when it is finished; between Submit (or Do) and TaskDone (or the return of
// Do) neither the task nor its buffers may be touched.
//
// A task with DataIn reads, one with DataOut writes, one with both is
// bidirectional, one without either transfers nothing.
type Task struct {
	// LUN is the logical unit.
	LUN pdu.LUN

	// CDB is the command descriptor block, filled with zeros at its end.
	CDB [16]byte

	// ExtendedCDB is what follows the first 16 bytes of a longer CDB.
	ExtendedCDB []byte

	// Attr is the task attribute. The zero value, pdu.AttrUntagged, is sent
	// as pdu.AttrSimple.
	Attr pdu.TaskAttribute

	// DataOut is written to the device. Its length is the expected data
	// transfer length.
	DataOut []byte

	// DataIn is filled by the device. Its length is the expected data transfer
	// length. After an error its contents are undefined.
	DataIn []byte

	// Buffer, if it is not nil, is called for DataIn when the first data have
	// come, and not at all if none do: so memory is in use for as long as it
	// must be only. DataIn is nil at Submit then, and DataInLength the expected
	// data transfer length, which is also the length of what Buffer returns.
	// The call comes from a goroutine of the session and must not block, nor
	// call methods of the session.
	Buffer       func(t *Task) []byte
	DataInLength int

	// Timeout is the time to carry out the task, counted from Submit; while
	// the session has no connection, or verifies after a recovery that the
	// unit is still the same, the clock stands still, and afterwards it starts
	// anew. Then the task is aborted and fails with
	// ErrTimeout. Zero means no limit.
	Timeout time.Duration

	// Replay says that the task may be carried out twice, so that it may be
	// sent again after the connection was lost. Reads and writes of a disk may.
	// Unless there is a Volume of the logical unit, which makes sure, nobody
	// knows whether that is still the same device then.
	Replay bool

	// Owner is told when the task is finished. Do uses its own.
	Owner Completer

	// Private is the caller's.
	Private any

	// The fields from here on are results.

	// Status is the SCSI status. It is valid if Err is nil.
	Status scsi.Status

	// Sense is the sense data that came with a CHECK CONDITION, raw. It
	// lies in the task itself and is valid until the task is submitted again.
	Sense []byte

	// Transferred is how many bytes of DataIn are valid or of DataOut were
	// taken; of a bidirectional task, how many of DataIn.
	Transferred int

	// Residual is how many bytes of the expected length were not transferred,
	// negative if the device would have transferred more (overflow).
	Residual int64

	// Err is why there is no Status: nil if the device finished the command,
	// whatever its status.
	Err error

	// What follows is the session's while the task is submitted.
	next     *Task
	guard    *guard        // whose task it is, nil if nobody's
	probe    bool          // of a verification: passes guards and dies with its connection
	cause    error         // why it is being aborted
	begun    bool          // sent once, on a connection that was lost
	asOf     time.Duration // the session's clock at Submit; 0: it has to look
	came     time.Duration // when the response came, on the same; 0: nobody has looked
	deadline time.Duration // on the same; 0: none
	senseBuf [maxSense]byte
}

// A Completer receives finished tasks.
//
// The calls come from goroutines of the session, never from within Submit or
// Kick. While a session is connected it is one goroutine for each of its
// connections; during recovery, timeouts and the end of the session there may be
// one more at a time, always with different tasks. They must not block, nor call Do, Logout or Close; they may
// call Submit and Kick.
type Completer interface {
	// TaskDone gives back a finished task.
	TaskDone(t *Task)

	// Flush is called after the last of one or more calls of TaskDone that
	// followed one another without waiting for the target: the time to pass on
	// what was gathered.
	Flush()
}

// reads returns the bytes that the task expects to read.
func (t *Task) reads() int {
	if t.DataIn == nil && t.Buffer != nil {
		return t.DataInLength
	}
	return len(t.DataIn)
}

// reset clears the results.
func (t *Task) reset() {
	t.Status, t.Sense, t.Transferred, t.Residual, t.Err = 0, nil, 0, 0, nil
	t.next, t.cause, t.begun, t.probe = nil, nil, false, false
	t.asOf, t.came, t.deadline = 0, 0, 0
}

// setSense copies sense data into the task.
func (t *Task) setSense(b []byte) {
	n := copy(t.senseBuf[:], b)
	t.Sense = t.senseBuf[:n:n]
}

// A taskList is a queue of tasks, linked through them.
type taskList struct {
	head, tail *Task
	n          int
}

func (l *taskList) pushBack(t *Task) {
	t.next = nil
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
	l.n++
}

func (l *taskList) popFront() *Task {
	t := l.head
	if t == nil {
		return nil
	}
	l.head = t.next
	if l.head == nil {
		l.tail = nil
	}
	t.next = nil
	l.n--
	return t
}

// prepend puts the tasks of m before those of l and empties m.
func (l *taskList) prepend(m *taskList) {
	if m.head == nil {
		return
	}
	m.tail.next = l.head
	if l.tail == nil {
		l.tail = m.tail
	}
	l.head = m.head
	l.n += m.n
	*m = taskList{}
}

// take removes and returns all tasks.
func (l *taskList) take() taskList {
	all := *l
	*l = taskList{}
	return all
}

// remove takes out the tasks for which f returns true and returns them in
// order.
func (l *taskList) remove(f func(*Task) bool) taskList {
	var kept, out taskList
	for t := l.popFront(); t != nil; t = l.popFront() {
		if f(t) {
			out.pushBack(t)
		} else {
			kept.pushBack(t)
		}
	}
	*l = kept
	return out
}
