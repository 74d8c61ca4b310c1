package initiator

import (
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// An ioTask is a piece of a request with the command that carries it out. A
// volume has as many as its queue depth, made once.
//
// A piece covers a range and carries it out by one command after the other;
// mostly it is one. It keeps its ioTask from when it was cut off its request
// until all of its range is done or one of its commands failed for good.
// Volume.mu protects it, except that the session has task while state is
// ioInFlight.
type ioTask struct {
	task Task
	next *ioTask

	req   *Request
	kind  pieceKind
	state ioState
	off   int64 // first byte that is not done
	left  int64 // bytes that are not done
	size  int64 // bytes that the command at hand covers
	fua   bool  // the command at hand has the FUA bit
	ndob  bool  // the command at hand is a WRITE SAME without data

	retries retries
	due     time.Time // when to send it again, while ioWaiting

	param [scsi.UnmapHeaderLength + scsi.UnmapDescriptorLength]byte
}

// An ioState says where an ioTask is.
type ioState uint8

const (
	ioFree     ioState = iota // in the list of free ones
	ioReady                   // to be sent, again or for the next command of its piece
	ioWaiting                 // to be sent at a time
	ioInFlight                // with the session
)

// data returns n bytes of the request's buffer from where the piece is.
func (io *ioTask) data(n int64) []byte {
	i := io.off - io.req.Offset
	return io.req.Data[i : i+n : i+n]
}

// taskBuffer is the Buffer of tasks that read for a request without Data. The first
// of them to get data provides for all.
func (v *Volume) taskBuffer(t *Task) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	io := t.Private.(*ioTask)
	if r := io.req; r.late() {
		r.Data = r.Buffer(r)
	}
	return io.data(io.size)
}

// An ioList is a queue of ioTasks, linked through them.
type ioList struct {
	head, tail *ioTask
}

func (l *ioList) pushBack(io *ioTask) {
	io.next = nil
	if l.tail == nil {
		l.head = io
	} else {
		l.tail.next = io
	}
	l.tail = io
}

func (l *ioList) popFront() *ioTask {
	io := l.head
	if io != nil {
		l.head = io.next
		if l.head == nil {
			l.tail = nil
		}
		io.next = nil
	}
	return io
}

// extract removes the tasks for which f holds and returns them in order.
func (l *ioList) extract(f func(*ioTask) bool) ioList {
	var kept, out ioList
	for io := l.popFront(); io != nil; io = l.popFront() {
		if f(io) {
			out.pushBack(io)
		} else {
			kept.pushBack(io)
		}
	}
	*l = kept
	return out
}
