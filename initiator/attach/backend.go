//go:build linux

package attach

import (
	"slices"
	"sync"
	"syscall"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/nbd"
)

// A backend gives the requests of NBD connections to a volume and the answers
// back. It allocates once for each nbd.Request, which the connection uses
// again and again, and never for a request.
//
// Batches pass through in both directions: the reader's Kick becomes the
// session's, and when the session has no more answers in memory, each
// connection that got one is flushed once.
type backend struct {
	vol Submitter

	// mu guards dirty and spare. Answers come from the session's receive
	// goroutine, and during a recovery from a second one.
	mu    sync.Mutex
	dirty []*nbd.Conn // have answers that are not flushed
	spare []*nbd.Conn // the other array, so that Flush allocates nothing
}

var _ nbd.Backend = (*backend)(nil)

// A Submitter takes requests as an initiator.Volume does: none of its methods
// waits.
type Submitter interface {
	Submit(*initiator.Request)
	Kick()
}

var _ Submitter = (*initiator.Volume)(nil)

// NewBackend returns a backend for an NBD server that answers the requests of
// its connections from a volume. One backend serves any number of connections.
func NewBackend(vol Submitter) nbd.Backend { return newBackend(vol) }

func newBackend(vol Submitter) *backend { return &backend{vol: vol} }

// A pending is the volume's side of an nbd.Request, kept in its Private.
type pending struct {
	req initiator.Request
	nbd *nbd.Request
}

// Submit implements nbd.Backend.
func (b *backend) Submit(r *nbd.Request) {
	p, ok := r.Private.(*pending)
	if !ok {
		p = &pending{nbd: r}
		p.req.Private = p
		r.Private = p
	}
	q := &p.req
	q.Owner = b
	q.Offset, q.Length, q.Data = int64(r.Offset), int64(r.Length), r.Data
	q.Buffer = readBuffer
	q.FUA = r.Flags&nbd.CmdFlagFUA != 0
	q.NoUnmap = r.Flags&nbd.CmdFlagNoHole != 0
	q.Err = nil
	switch r.Cmd {
	case nbd.CmdRead:
		q.Op = initiator.OpRead
		q.FUA = false // a read from the medium is not what clients mean by it
	case nbd.CmdWrite:
		q.Op = initiator.OpWrite
	case nbd.CmdFlush:
		q.Op = initiator.OpFlush
	case nbd.CmdTrim:
		q.Op = initiator.OpDiscard
	case nbd.CmdWriteZeroes:
		q.Op = initiator.OpWriteZeroes
	default:
		r.Complete(syscall.EINVAL)
		return
	}
	b.vol.Submit(q)
}

// readBuffer is the Buffer of all requests.
func readBuffer(q *initiator.Request) []byte { return q.Private.(*pending).nbd.Buffer() }

// Kick implements nbd.Backend.
func (b *backend) Kick() { b.vol.Kick() }

// RequestDone implements initiator.RequestCompleter.
func (b *backend) RequestDone(q *initiator.Request) {
	p := q.Private.(*pending)
	conn := p.nbd.Conn()
	p.nbd.Complete(initiator.Errno(q.Err))
	b.mu.Lock()
	if !slices.Contains(b.dirty, conn) {
		b.dirty = append(b.dirty, conn)
	}
	b.mu.Unlock()
}

// Flush implements initiator.RequestCompleter.
func (b *backend) Flush() {
	b.mu.Lock()
	list := b.dirty
	b.dirty, b.spare = b.spare, nil
	b.mu.Unlock()
	for _, c := range list {
		c.Flush()
	}
	clear(list)
	b.mu.Lock()
	if b.spare == nil {
		b.spare = list[:0]
	}
	b.mu.Unlock()
}
