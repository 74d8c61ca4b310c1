package initiator

import (
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// A volumeCompleter is a Volume in its role as the owner of tasks.
type volumeCompleter Volume

// TaskDone takes back a command. It runs on goroutines of the session.
func (c *volumeCompleter) TaskDone(t *Task) {
	v := (*Volume)(c)
	v.mu.Lock()
	v.asOf = t.came
	v.queue.taskDone(t.Private.(*ioTask))
	v.queue.dispatch()
	v.asOf = 0
	v.unlockAndComplete()
}

// Flush sends what the completions gave rise to and flushes the owners.
func (c *volumeCompleter) Flush() { (*Volume)(c).flush() }

// unlockAndComplete releases v.mu and gives back the requests that are
// finished.
func (v *Volume) unlockAndComplete() {
	if v.queue.done.empty() {
		if v.closed {
			v.queue.idle.Broadcast()
		}
		v.mu.Unlock()
		return
	}
	v.queue.takeDelivery()
	done := v.queue.takeDone()
	v.mu.Unlock()
	v.deliver(done)
}

// takeDelivery announces a call of deliver, for which Close waits.
func (q *ioQueue) takeDelivery() { q.delivering++ }

// takeDone removes and returns the finished requests.
func (q *ioQueue) takeDone() requestList {
	l := q.done
	q.done = requestList{}
	for r := l.head; r != nil; r = r.next {
		r.queue = nil
	}
	return l
}

// deliver gives back requests and marks their owners to be flushed. The mark
// comes after RequestDone, else a flush by another goroutine could take it
// before there is anything to flush.
func (v *Volume) deliver(done requestList) {
	for r := done.head; r != nil; {
		owner, next := r.Owner, r.next
		r.next, r.prev = nil, nil
		if owner != nil {
			owner.RequestDone(r)
		}
		r = next
		if owner == nil {
			continue
		}
		v.mu.Lock()
		marked := v.queue.owners.add(owner)
		v.mu.Unlock()
		if !marked {
			owner.Flush()
		}
	}
	v.mu.Lock()
	v.queue.delivering--
	if v.closed {
		v.queue.idle.Broadcast()
	}
	v.mu.Unlock()
}

// flush sends what is queued and flushes the owners that got requests back.
func (v *Volume) flush() {
	v.mu.Lock()
	kick := v.queue.unsent
	v.queue.unsent = false
	owners := v.queue.owners
	v.queue.owners = flushList{}
	v.mu.Unlock()
	if kick {
		v.port.Kick()
	}
	for _, o := range owners.list[:owners.n] {
		o.Flush()
	}
}

// A flushList is a small set of owners to be flushed. There is rarely more
// than one.
type flushList struct {
	list [4]RequestCompleter
	n    int
}

// add puts an owner into the set. It returns false if the set is full.
func (l *flushList) add(o RequestCompleter) bool {
	for _, have := range l.list[:l.n] {
		if have == o {
			return true
		}
	}
	if l.n == len(l.list) {
		return false
	}
	l.list[l.n] = o
	l.n++
	return true
}

// taskDone decides what becomes of a piece whose command came back.
func (q *ioQueue) taskDone(io *ioTask) {
	v, r := q.v, io.req
	q.inFlight--
	if io.kind != pieceRead && io.kind != pieceWrite && io.kind != pieceZeroes {
		io.task.Residual = 0 // parameters: how much of them was looked at says nothing
	}
	j, sense := judge(&io.task)
	if j.attention&attnDeferred != 0 && q.deferred == nil {
		q.deferred = v.pieceError(io, j, nil)
	}
	if j.attention != 0 {
		v.note(j.attention, sense)
	}
	switch {
	case j.verdict == verdictDone:
		q.advance(io)
	case j.verdict == verdictUnsupported && v.broken == nil && !v.closed && !r.stopped:
		q.degrade(io, j, sense)
	default:
		q.retry(io, j)
	}
}

// advance moves a piece on by the command that succeeded.
func (q *ioQueue) advance(io *ioTask) {
	r := io.req
	if q.good++; q.depth < q.maxDepth && q.good >= 16*q.depth {
		q.depth, q.good = q.depth+1, 0
	}
	switch {
	case io.kind == pieceSync:
		if err := q.deferred; err != nil {
			q.deferred = nil
			q.failPiece(io, err)
			return
		}
	case r.FUA && !io.fua && (r.Op == OpWrite || r.Op == OpWriteZeroes):
		r.needSync = q.v.state.writeCache
	}
	io.off += io.size
	io.left -= io.size
	io.retries = retries{}
	switch {
	case io.left <= 0:
		q.release(io)
	case r.stopped:
		q.abandon(io)
	default:
		q.makeReady(io)
	}
}

func (q *ioQueue) makeReady(io *ioTask) {
	io.state = ioReady
	q.ready.pushBack(io)
}

// retry sends a command again, or fails its piece.
func (q *ioQueue) retry(io *ioTask, j judgement) {
	v, r := q.v, io.req
	switch {
	case r.stopped:
		q.abandon(io)
		return
	case v.closed:
		q.failPiece(io, v.pieceError(io, judgement{kind: ErrVolumeClosed}, ErrVolumeClosed))
		return
	case v.broken != nil:
		q.failPiece(io, v.broken)
		return
	}
	if j.verdict == verdictHold {
		q.held = true
	}
	if j.verdict == verdictFull {
		// What the device has accepted is what it can take.
		q.depth, q.good = max(min(q.depth, q.inFlight), 1), 0
	}
	now := time.Now()
	delay, again := io.retries.next(j.verdict, now, v.patience)
	if again {
		v.counters.retries.Add(1)
	}
	switch {
	case !again:
		q.failPiece(io, v.pieceError(io, j, nil))
	case delay == 0:
		q.makeReady(io)
	default:
		q.delay(io, now.Add(delay))
	}
}

// degrade finds another way for a piece whose command the device does not
// know, and remembers it.
func (q *ioQueue) degrade(io *ioTask, j judgement, sense scsi.Sense) {
	v, s := q.v, &q.v.split
	switch {
	case io.kind == pieceSync && sense.ASC == 0x20 && !v.state.cachingPage:
		// It does not know the command and has not said that it has a write
		// cache; that was only our assumption.
		v.log.Warn("no SYNCHRONIZE CACHE: taken to have no write cache", "target", v.prober.target, "lun", v.lun)
		v.state.writeCache = false
		q.advance(io)
		return
	case io.fua:
		v.log.Warn("no FUA bit after all: writes are followed by flushes", "target", v.prober.target, "lun", v.lun)
		v.state.dpofua = false
	case io.ndob:
		s.ndob = false
	case io.kind == pieceSameUnmap && io.req.Op == OpWriteZeroes:
		s.zeroUnmap = s.zeroData
		io.kind = s.zeroData
	case io.kind == pieceSameAnchor:
		s.zero = s.zeroData
		io.kind = s.zeroData
	case io.kind == pieceSame:
		s.zeroData = pieceZeroes
		for _, k := range []*pieceKind{&s.zero, &s.zeroUnmap} {
			if *k == pieceSame {
				*k = pieceZeroes
			}
		}
		io.kind = pieceZeroes
	case io.kind == pieceUnmap && unmapsBySame(v.state):
		s.discard = pieceSameUnmap
		io.kind = pieceSameUnmap
	default:
		if io.kind == pieceUnmap || io.kind == pieceSameUnmap {
			s.discard = pieceNone
		}
		q.failPiece(io, v.pieceError(io, j, nil))
		return
	}
	q.makeReady(io)
}

// pieceError makes the error of a piece. err may be nil: then it is what the
// task failed with.
func (v *Volume) pieceError(io *ioTask, j judgement, err error) error {
	if err == nil {
		err = taskError(&io.task, j.kind)
	}
	if j.kind == nil {
		j.kind = kindOf(err)
	}
	return &VolumeError{
		Op: io.req.Op.String(), Target: v.prober.target, LUN: v.lun,
		Offset: io.off, Length: io.size, Kind: j.kind, Err: err,
	}
}
