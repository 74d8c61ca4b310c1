package initiator

import (
	"fmt"
	"time"
)

// An Op is what a Request does.
type Op uint8

// The operations of a Request.
const (
	OpRead        Op = iota + 1 // fill Data from Offset on
	OpWrite                     // write Data at Offset
	OpFlush                     // make all writes that are finished durable
	OpDiscard                   // tell the device that Length bytes from Offset on are not needed
	OpWriteZeroes               // make Length bytes from Offset on read as zeroes
)

// String returns the operation in a word or two.
func (o Op) String() string {
	switch o {
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	case OpFlush:
		return "flush"
	case OpDiscard:
		return "discard"
	case OpWriteZeroes:
		return "write zeroes"
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// A Request is one asynchronous operation on a Volume. It belongs to the
// caller, who may use it again when it is finished; between Submit and
// RequestDone neither the request nor Data may be touched.
type Request struct {
	Op Op

	// FUA makes the effect of a write or of writing zeroes durable before the
	// request is finished: by the FUA bit where the device has it, by a flush
	// after the write where not, by nothing where writes are durable anyway.
	FUA bool

	// NoUnmap makes OpWriteZeroes keep the blocks allocated.
	NoUnmap bool

	// Offset is the first byte, a multiple of the block size.
	Offset int64

	// Length is the number of bytes, a multiple of the block size, for
	// OpDiscard, OpWriteZeroes, and reads with Buffer. Other reads and writes go
	// by Data and leave it alone, and so does OpFlush.
	Length int64

	// Data is what is read or written; its length is a multiple of the block
	// size. After a failed read its contents are undefined.
	Data []byte

	// Buffer, if it is not nil and Data is, returns what a read has to fill,
	// Length bytes: it is called when the first data have come, and not at all
	// if none do, so that memory is in use for as long as it must be only.
	// Data is the result. The call comes from a goroutine of the session and must
	// not block, nor call methods of the volume or the session.
	Buffer func(r *Request) []byte

	// Owner is told when the request is finished. It is compared with others,
	// so its dynamic type must be comparable, such as a pointer.
	Owner RequestCompleter

	// Private is the caller's.
	Private any

	// Err is the result: nil, or a *VolumeError.
	Err error

	// What follows is the volume's while the request is submitted, protected
	// by Volume.mu.
	next, prev *Request
	queue      *requestList  // the list it waits in, nil if none
	began      time.Duration // when it was submitted, on the volume's clock
	size       int64         // bytes: len(Data) or Length
	issued     int64         // bytes handed to pieces so far
	good       int64         // bytes before the first failure
	pending    int           // pieces that are not finished
	failure    error         // of the first piece in order of offset that failed
	active     bool          // submitted and not finished
	stopped    bool          // no further commands: failed or cancelled
	needSync   bool          // a flush must follow the last piece
	syncing    bool          // only the flush is left
}

// late reports whether the request gets its Data when the first of them come.
func (r *Request) late() bool { return r.Op == OpRead && r.Data == nil && r.Buffer != nil }

// A RequestCompleter receives finished requests.
//
// The calls come from goroutines of the session or the volume, and from within
// Kick for requests that need no command; never from within Submit. There may
// be several at a time, with different requests. They must not block, nor call
// methods of a Session or Volume that wait; they may call Submit and Kick.
type RequestCompleter interface {
	// RequestDone gives back a finished request.
	RequestDone(r *Request)

	// Flush is called after one or more calls of RequestDone that followed one
	// another without waiting: the time to pass on what was gathered.
	Flush()
}

// A requestList is a queue of requests, linked through them. Volume.mu
// protects it.
type requestList struct {
	head, tail *Request
}

func (l *requestList) empty() bool { return l.head == nil }

func (l *requestList) pushBack(r *Request) {
	r.next, r.prev, r.queue = nil, l.tail, l
	if l.tail == nil {
		l.head = r
	} else {
		l.tail.next = r
	}
	l.tail = r
}

func (l *requestList) pushFront(r *Request) {
	r.next, r.prev, r.queue = l.head, nil, l
	if l.head == nil {
		l.tail = r
	} else {
		l.head.prev = r
	}
	l.head = r
}

func (l *requestList) remove(r *Request) {
	if r.prev == nil {
		l.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		l.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.next, r.prev, r.queue = nil, nil, nil
}
