package initiator

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/goiscsi/goiscsi/initiator/internal/rawsock"
	"github.com/goiscsi/goiscsi/pdu"
)

// Tuning of the send queue.
const (
	// flushRounds is how many batches in a row somebody who wanted to send
	// something of their own writes for others before the sender goroutine
	// takes over.
	flushRounds = 8
	// writeChunk is how many buffers the sender goroutine writes at a time;
	// between two chunks it notes progress.
	writeChunk = 64
)

// A sendQueue is the sending end of a connection. PDUs are appended to the
// pending batch; flush writes batch after batch, one writev each.
//
// Batches are numbered from 1. What batch a PDU went into tells later whether
// it was begun to be sent (begun) and whether its payload is still referenced
// (done).
type sendQueue struct {
	nc     net.Conn
	vector *rawsock.Writer // nil: no non-blocking write
	tap    *tapPoint

	mu      sync.Mutex
	idle    sync.Cond   // on mu: flushing became false
	pending *pdu.Writer // gathers
	active  *pdu.Writer // is being written, or empty
	batch   uint64      // number of the pending batch
	begun   uint64      // highest batch of which a byte may have been sent
	rest    [][]byte    // of the active batch: what is left for the sender goroutine
	chunk   net.Buffers // what the sender goroutine is writing; a field, as it escapes
	handed  bool        // the sender goroutine is the one who flushes
	err     error       // sticky; nothing is sent any more

	// flushing: somebody writes, without the lock. Only they touch active,
	// and rest once it is handed over.
	flushing bool

	// waiting are slots whose tasks are finished but for a batch; written are
	// those for which that batch is done.
	waiting, written []*slot

	done     atomic.Uint64 // all batches up to this one are written
	octets   atomic.Uint64 // bytes written
	progress atomic.Uint64 // writes that succeeded: a sign of life

	// wake tells the sender goroutine of something to do: rest, pending
	// batches after flushRounds, written slots. Never closed.
	wake chan struct{}

	// Scratch PDUs for appending without allocation, protected by mu.
	cmd pdu.SCSICommand
	out pdu.DataOut
}

func (q *sendQueue) init(nc net.Conn, first *pdu.Writer, tap *tapPoint, headerDigest, dataDigest bool) {
	q.nc, q.tap = nc, tap
	q.vector = rawsock.NewWriter(nc)
	q.idle.L = &q.mu
	q.pending, q.active = first, pdu.NewWriter(nc)
	q.active.SetDigests(headerDigest, dataDigest)
	q.batch = 1
	q.wake = make(chan struct{}, 1)
}

// append adds a PDU and returns the number of its batch. The caller holds mu.
// The error, a *pdu.FormatError, leaves the queue as it was.
func (q *sendQueue) append(p pdu.PDU) (uint64, error) {
	if err := q.pending.Append(p); err != nil {
		return q.batch, err
	}
	q.tap.sent(p)
	return q.batch, nil
}

// post adds a PDU that comes alone.
func (q *sendQueue) post(p pdu.PDU) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, err := q.append(p)
	return err
}

// begin makes the pending batch the active one. The caller holds mu and flushes.
func (q *sendQueue) begin() [][]byte {
	q.pending, q.active = q.active, q.pending
	q.begun = q.batch
	q.batch++
	return q.active.Buffers()
}

// end notes that the active batch is written. The caller holds mu and flushes.
func (q *sendQueue) end() {
	q.octets.Add(uint64(q.active.Buffered()))
	q.progress.Add(1)
	q.active.Reset()
	q.done.Store(q.begun)
	if len(q.waiting) == 0 {
		return
	}
	kept := q.waiting[:0]
	for _, s := range q.waiting {
		if s.dataBatch <= q.begun {
			q.written = append(q.written, s)
		} else {
			kept = append(kept, s)
		}
	}
	clear(q.waiting[len(kept):])
	q.waiting = kept
	if len(q.written) > 0 {
		q.signal()
	}
}

// stop ends a flush. The caller holds mu and flushes.
func (q *sendQueue) stop(err error) {
	if q.err == nil {
		q.err = err
	}
	q.flushing, q.handed = false, false
	q.idle.Broadcast()
}

// hand passes the flush, in the middle of a batch or between two, on to the
// sender goroutine. The caller holds mu and flushes.
func (q *sendQueue) hand(rest [][]byte) {
	q.rest, q.handed = rest, true
	q.signal()
}

func (q *sendQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// flush writes what is pending as far as that goes without blocking; the sender
// goroutine does the rest. If somebody flushes already, they take it along. The
// error is that of the connection.
func (q *sendQueue) flush() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.flushing || q.err != nil || q.pending.Buffered() == 0 {
		return nil
	}
	q.flushing = true
	for round := 0; q.err == nil && q.pending.Buffered() > 0; round++ {
		if q.vector == nil || round == flushRounds {
			q.hand(nil)
			return nil
		}
		bufs := q.begin()
		q.mu.Unlock()
		rest, err := q.vector.Write(bufs)
		q.mu.Lock()
		if err != nil {
			err = transportError(err)
			q.stop(err)
			return err
		}
		if len(rest) > 0 {
			q.hand(rest)
			return nil
		}
		q.end()
	}
	q.stop(nil)
	return nil
}

// run is the sender goroutine: it writes what others handed over, blocking, and
// gives slots whose data are written to finish, until quit is closed or the
// connection fails.
func (q *sendQueue) run(quit <-chan struct{}, finish func([]*slot)) error {
	var written []*slot
	for {
		select {
		case <-quit:
			return nil
		case <-q.wake:
		}
		if err := q.drain(); err != nil {
			return err
		}
		q.mu.Lock()
		written, q.written = q.written, written[:0]
		q.mu.Unlock()
		if len(written) > 0 {
			finish(written)
			clear(written)
		}
	}
}

// drain writes until nothing is pending, if the flush was handed over.
func (q *sendQueue) drain() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.handed {
		return nil
	}
	rest := q.rest
	q.rest = nil
	for q.err == nil {
		if len(rest) == 0 {
			if q.active.Buffered() > 0 {
				q.end()
			}
			if q.pending.Buffered() == 0 {
				break
			}
			rest = q.begin()
		}
		n := min(len(rest), writeChunk)
		q.chunk, rest = rest[:n], rest[n:]
		q.mu.Unlock()
		_, err := q.chunk.WriteTo(q.nc)
		q.progress.Add(1)
		q.mu.Lock()
		if err != nil {
			err = transportError(err)
			q.stop(err)
			return err
		}
	}
	q.stop(nil)
	return nil
}

// written reports whether a batch is done, so that nothing references its
// payloads any more; if it is not, the slot is given to finish later.
func (q *sendQueue) await(s *slot) bool {
	if s.dataBatch <= q.done.Load() {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.dataBatch <= q.done.Load() {
		return true
	}
	q.waiting = append(q.waiting, s)
	return false
}

// shut waits until nobody writes any more. The connection is closed and the
// sender goroutine has ended. Then it lets go of all payloads and returns the
// highest batch of which a byte may have been sent.
func (q *sendQueue) shut(err error) (begun uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
	for q.flushing && !q.handed {
		q.idle.Wait()
	}
	q.flushing, q.handed, q.rest = false, false, nil
	q.pending.Reset()
	q.active.Reset()
	q.waiting, q.written = nil, nil
	return q.begun
}
