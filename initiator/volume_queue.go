package initiator

import (
	"sync"
	"time"
)

// An ioQueue carries out the requests of a volume. Requests wait in two queues
// in the order in which they came: those that transfer their data or flush, and
// those over ranges of any size. As long as fewer than depth commands are with
// the session, a piece is cut off the first request and sent; pieces that come
// back to be sent again go before new ones.
//
// Volume.mu protects all of it. Nothing here waits, allocates or calls back,
// save where a request fails.
type ioQueue struct {
	v *Volume

	data requestList // OpRead, OpWrite, OpFlush
	bulk requestList // OpDiscard, OpWriteZeroes

	tasks   []ioTask
	buffer  func(*Task) []byte // taskBuffer; made once
	free    ioList             // last in, first out
	ready   ioList             // to be sent as soon as may be
	waiting ioList             // to be sent when their time has come

	depth, maxDepth int // commands in flight: at present, at most
	good            int // commands that succeeded since depth changed

	inFlight   int  // commands with the session
	bulkPieces int  // pieces of bulk requests that are cut off and not done
	held       bool // nothing may be sent: the device must be identified
	unsent     bool // tasks were submitted to the session since the last Kick

	done       requestList // finished, to be given back
	owners     flushList   // whom to flush
	delivering int         // goroutines that give back finished requests

	deferred error // cached writes were lost; the next flush reports it

	// idle tells Close that inFlight and delivering may have become 0.
	idle sync.Cond

	// timer runs when the first of waiting is due, at timerAt; zero when it is
	// not set. A run that is due counts in Volume.running.
	timer   *time.Timer
	timerAt time.Time
}

// init makes the tasks.
func (q *ioQueue) init(v *Volume, depth int) {
	q.v, q.depth, q.maxDepth = v, depth, depth
	q.idle.L = &v.mu
	q.buffer = v.taskBuffer
	q.tasks = make([]ioTask, depth)
	for i := range q.tasks {
		io := &q.tasks[i]
		io.task.LUN = v.lun
		io.task.Owner = (*volumeCompleter)(v)
		io.task.Private = io
		io.task.Replay = true // every command of a piece may be carried out twice
		q.free.pushBack(io)
	}
	q.timer = time.AfterFunc(time.Hour, q.onTimer)
	q.timer.Stop()
}

// bulkShare is what part of the depth ranges may take from reads and writes.
func (q *ioQueue) bulkShare() int { return max(q.depth/4, 1) }

// dispatch sends what may be sent.
func (q *ioQueue) dispatch() {
	for q.inFlight < q.depth && !q.held {
		io := q.ready.popFront()
		if io != nil && io.req.stopped {
			q.abandon(io)
			continue
		}
		if io == nil {
			if io = q.nextPiece(); io == nil {
				return
			}
		}
		q.v.split.build(io, q.v)
		io.state = ioInFlight
		q.inFlight++
		q.unsent = true
		io.task.asOf = q.v.asOf
		q.v.port.Submit(&io.task)
	}
}

// nextPiece cuts a piece off the request whose turn it is. It returns nil if
// there is none or no task for it.
func (q *ioQueue) nextPiece() *ioTask {
	for q.free.head != nil {
		r := q.data.head
		if q.bulk.head != nil && (q.bulkPieces == 0 || r == nil && q.bulkPieces < q.bulkShare()) {
			r = q.bulk.head
		}
		if r == nil {
			return nil
		}
		kind := pieceSync
		if !r.syncing {
			kind = q.v.split.kindOf(r)
		}
		if kind != pieceNone {
			return q.cut(r, kind)
		}
		// The device turned out not to have the command after r was accepted.
		q.stop(r, ErrUnsupported)
	}
	return nil
}

// cut cuts a piece off r, which is done with its queue when nothing is left.
func (q *ioQueue) cut(r *Request, kind pieceKind) *ioTask {
	io := q.free.popFront()
	io.req, io.kind, io.retries = r, kind, retries{}
	io.off, io.left = r.Offset+r.issued, 0
	if kind != pieceSync {
		io.left = q.v.split.cut(kind, io.off, r.size-r.issued)
		r.issued += io.left
	}
	if isBulk(r) {
		q.bulkPieces++
	}
	r.pending++
	if r.issued == r.size {
		r.queue.remove(r)
	}
	return io
}

func isBulk(r *Request) bool { return r.Op == OpDiscard || r.Op == OpWriteZeroes }

// release gives back a piece's task, and the request if it was its last.
func (q *ioQueue) release(io *ioTask) {
	r := io.req
	if isBulk(r) {
		q.bulkPieces--
	}
	io.req, io.state = nil, ioFree
	io.task.DataIn, io.task.DataOut, io.task.Buffer = nil, nil, nil
	io.next = q.free.head
	if q.free.tail == nil {
		q.free.tail = io
	}
	q.free.head = io
	r.pending--
	q.settle(r)
}

// settle finishes a request of which nothing is left to do. Where a flush is
// left to do, it goes before all that waits.
func (q *ioQueue) settle(r *Request) {
	switch {
	case !r.active || r.pending > 0 || r.queue != nil:
	case r.needSync && !r.syncing && r.failure == nil:
		r.syncing = true
		q.data.pushFront(r)
	default:
		q.finish(r)
	}
}

// finish puts a request among those to be given back.
func (q *ioQueue) finish(r *Request) {
	r.active = false
	r.Err = r.failure
	r.failure = nil
	if r.Err == nil {
		r.good = r.size
	}
	q.v.counters.end(r.Op, r.size, q.v.present()-r.began, r.Err)
	q.done.pushBack(r)
}

// stop ends a request with err, except for the pieces that are in flight.
func (q *ioQueue) stop(r *Request, err error) {
	if r.failure == nil {
		r.failure, r.good = q.v.requestError(r, err), min(r.good, r.issued)
	}
	r.stopped = true
	if r.queue != nil {
		r.queue.remove(r)
	}
	q.settle(r)
}

// abandon gives up a piece of a request that was stopped.
func (q *ioQueue) abandon(io *ioTask) {
	io.req.good = min(io.req.good, io.off-io.req.Offset)
	q.release(io)
}

// failPiece ends a piece, and thereby its request, with err. Of several
// failures the one with the lowest offset counts.
func (q *ioQueue) failPiece(io *ioTask, err error) {
	r := io.req
	if at := io.off - r.Offset; r.failure == nil || at < r.good {
		r.failure, r.good = err, at
	}
	r.stopped = true
	if r.queue != nil {
		r.queue.remove(r)
	}
	q.release(io)
	q.abandonDelayed(r)
}

// abandonDelayed gives up the pieces of a stopped request that wait for their
// time or their turn.
func (q *ioQueue) abandonDelayed(r *Request) {
	if !r.active {
		return
	}
	mine := func(io *ioTask) bool { return io.req == r }
	for _, l := range []*ioList{&q.waiting, &q.ready} {
		out := l.extract(mine)
		for io := out.popFront(); io != nil; io = out.popFront() {
			q.abandon(io)
		}
	}
}

// failAll ends all requests with err, except for pieces that are in flight.
func (q *ioQueue) failAll(err error) {
	for _, l := range []*ioList{&q.waiting, &q.ready} {
		for io := l.popFront(); io != nil; io = l.popFront() {
			q.failPiece(io, err)
		}
	}
	for _, l := range []*requestList{&q.data, &q.bulk} {
		for r := l.head; r != nil; r = l.head {
			q.stop(r, err)
		}
	}
}

// abort aborts the commands of r, or of all requests if r is nil, that are with
// the session. It holds Volume.mu all along: a task that came back in between
// would be in use for another request.
func (q *ioQueue) abort(r *Request, cause error) {
	s, ok := q.v.port.(abandoner)
	if !ok {
		return
	}
	for i := range q.tasks {
		if io := &q.tasks[i]; io.state == ioInFlight && (r == nil || io.req == r) {
			s.abandon(&io.task, cause)
		}
	}
}
