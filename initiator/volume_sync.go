package initiator

import (
	"context"
	"io"
)

// A call is a Request that somebody waits for.
type call struct {
	req  Request
	done chan struct{} // one token when req is finished
}

// RequestDone implements RequestCompleter.
func (c *call) RequestDone(*Request) { c.done <- struct{}{} }

// Flush implements RequestCompleter.
func (c *call) Flush() {}

// do carries out a request and returns how many of its bytes, from the first
// one on, were done before the first failure, if there was one.
func (v *Volume) do(ctx context.Context, r Request) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, v.requestError(&r, context.Cause(ctx))
	}
	c, ok := v.calls.Get().(*call)
	if !ok {
		c = &call{done: make(chan struct{}, 1)}
	}
	c.req = r
	c.req.Owner = c
	v.Submit(&c.req)
	v.Kick()
	select {
	case <-c.done:
	case <-ctx.Done():
		v.cancel(&c.req, context.Cause(ctx))
		<-c.done
	}
	n, err := c.req.good, c.req.Err
	c.req = Request{}
	v.calls.Put(c)
	return n, err
}

// cancel ends a request with cause as soon as its data are out of use: what
// was not sent, at once; commands with the device are aborted.
func (v *Volume) cancel(r *Request, cause error) {
	v.mu.Lock()
	if !r.active || r.stopped {
		v.mu.Unlock()
		return
	}
	r.pending++ // r must not be finished before we are done with it
	v.queue.stop(r, cause)
	v.queue.abandonDelayed(r)
	v.queue.abort(r, cause)
	r.pending--
	v.queue.settle(r)
	v.queue.dispatch()
	v.unlockAndComplete()
	v.flush()
}

// abortAll aborts what is with the device. The volume is closed, or being so.
func (v *Volume) abortAll(cause error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true // nothing may be sent again
	v.queue.abort(nil, cause)
}

// An abandoner is a taskPort that can abort tasks. A task that is finished is
// ignored. Like Submit, abandon neither waits nor gives back tasks by itself.
type abandoner interface {
	abandon(t *Task, cause error)
}

var _ abandoner = (*Session)(nil)

// ReadAt reads len(p) bytes from offset off on, as io.ReaderAt says: n is less
// than len(p) only with an error, which is io.EOF at the end of the volume.
//
// Range and alignment are free; a range that is not aligned to the block size is
// read into a buffer of its own at either end. Other errors are *VolumeErrors; n
// then counts the bytes before the first that could not be read. If ctx ends,
// the commands under way are aborted, and ReadAt returns when p is out of use.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, v.wrap("read", ErrOutOfRange)
	}
	size := v.Size()
	if off >= size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	eof := false
	if int64(len(p)) > size-off {
		p, eof = p[:size-off], true
	}
	if (off|int64(len(p)))&int64(v.blockSize-1) != 0 {
		n, err = v.readUnaligned(ctx, p, off)
	} else {
		var done int64
		done, err = v.do(ctx, Request{Op: OpRead, Offset: off, Data: p})
		n = int(done)
	}
	if err == nil && eof {
		err = io.EOF
	}
	return n, err
}

// readUnaligned reads the blocks that are wanted in part into a buffer, and
// those between them straight into p.
func (v *Volume) readUnaligned(ctx context.Context, p []byte, off int64) (int, error) {
	var block []byte
	n := 0
	for n < len(p) {
		at, rest := off+int64(n), p[n:]
		skip := int(at & int64(v.blockSize-1))
		if whole := len(rest) &^ (v.blockSize - 1); skip == 0 && whole > 0 {
			done, err := v.do(ctx, Request{Op: OpRead, Offset: at, Data: rest[:whole]})
			n += int(done)
			if err != nil {
				return n, err
			}
			continue
		}
		if block == nil {
			block = make([]byte, v.blockSize)
		}
		if _, err := v.do(ctx, Request{Op: OpRead, Offset: at - int64(skip), Data: block}); err != nil {
			return n, err
		}
		n += copy(rest, block[skip:])
	}
	return n, nil
}

// WriteAt writes p at offset off. Both must be multiples of the block size,
// else it fails with ErrUnaligned: reading, changing and writing back the rest
// of a block would undo what others write there at the same time.
//
// n is less than len(p) only with an error, and counts the bytes before the
// first that may not have been written. A write that does not lie within the
// volume writes nothing. With the write cache that most devices have, data are
// durable after Sync only. If ctx ends, the commands under way are aborted, and
// WriteAt returns when p is out of use; any part of the range may then have been
// written.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	done, err := v.do(ctx, Request{Op: OpWrite, Offset: off, Data: p})
	return int(done), err
}

// Sync makes all writes that are finished durable. It costs nothing on a
// device without a write cache.
func (v *Volume) Sync(ctx context.Context) error {
	_, err := v.do(ctx, Request{Op: OpFlush})
	return err
}

// Discard tells the device that n bytes from off on are not needed any more.
// What they read as afterwards, Features.DiscardReadsZero tells; they may as
// well stay what they are. Offset and length are multiples of the block size. It
// fails with ErrUnsupported where the device has no command for it.
func (v *Volume) Discard(ctx context.Context, off, n int64) error {
	_, err := v.do(ctx, Request{Op: OpDiscard, Offset: off, Length: n})
	return err
}

// WriteZeroes makes n bytes from off on read as zeroes: by one command of the
// device where it has one that does it, which may also free the space, else by
// writing. Offset and length are multiples of the block size.
func (v *Volume) WriteZeroes(ctx context.Context, off, n int64) error {
	_, err := v.do(ctx, Request{Op: OpWriteZeroes, Offset: off, Length: n})
	return err
}

// VolumeIO is a Volume with a context, for the interfaces of package io.
type VolumeIO struct {
	v   *Volume
	ctx context.Context
}

// IO returns the volume as an io.ReaderAt and io.WriterAt whose operations end
// with ctx.
func (v *Volume) IO(ctx context.Context) *VolumeIO { return &VolumeIO{v: v, ctx: ctx} }

// ReadAt implements io.ReaderAt.
func (o *VolumeIO) ReadAt(p []byte, off int64) (int, error) { return o.v.ReadAt(o.ctx, p, off) }

// WriteAt implements io.WriterAt. Offset and length are multiples of the block
// size.
func (o *VolumeIO) WriteAt(p []byte, off int64) (int, error) { return o.v.WriteAt(o.ctx, p, off) }

// Sync makes all writes that are finished durable.
func (o *VolumeIO) Sync() error { return o.v.Sync(o.ctx) }

// Size returns the size in bytes.
func (o *VolumeIO) Size() int64 { return o.v.Size() }

var (
	_ io.ReaderAt = (*VolumeIO)(nil)
	_ io.WriterAt = (*VolumeIO)(nil)
)
