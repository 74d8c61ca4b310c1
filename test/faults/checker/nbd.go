package checker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// From the NBD project's doc/proto.md.
const (
	nbdServer  = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOption  = 0x49484156454f5054 // "IHAVEOPT"
	nbdRequest = 0x25609513
	nbdReply   = 0x67446698

	nbdFixedNewstyle = 1 << 0
	nbdNoZeroes      = 1 << 1
	nbdExportName    = 1

	nbdRead, nbdWrite, nbdDisc, nbdFlush = 0, 1, 2, 3

	nbdSendFlush = 1 << 2
)

// An Export is an NBD export on a unix socket, with any number of requests in
// flight on one connection.
type Export struct {
	conn  net.Conn
	size  int64
	flush bool          // the server has a cache to be flushed
	done  chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards writing, the cookies and err
	cookie  uint64
	pending map[uint64]*call
	err     error // why the connection has ended
}

type call struct {
	into []byte // of a read
	done chan error
}

// OpenExport connects to the export without a name on a socket.
func OpenExport(socket string) (*Export, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	e := &Export{conn: conn, done: make(chan struct{}), pending: make(map[uint64]*call)}
	r := bufio.NewReaderSize(conn, 64<<10)
	if err := e.handshake(r); err != nil {
		conn.Close()
		return nil, fmt.Errorf("nbd handshake: %w", err)
	}
	go e.receive(r) // ends with the connection; Close waits
	return e, nil
}

func (e *Export) handshake(r *bufio.Reader) error {
	var hello struct {
		Magic, Option uint64
		Flags         uint16
	}
	if err := binary.Read(r, binary.BigEndian, &hello); err != nil {
		return err
	}
	if hello.Magic != nbdServer || hello.Option != nbdOption || hello.Flags&nbdFixedNewstyle == 0 || hello.Flags&nbdNoZeroes == 0 {
		return errors.New("not the handshake that is understood here")
	}
	b := binary.BigEndian.AppendUint32(nil, nbdFixedNewstyle|nbdNoZeroes)
	b = binary.BigEndian.AppendUint64(b, nbdOption)
	b = binary.BigEndian.AppendUint32(b, nbdExportName)
	b = binary.BigEndian.AppendUint32(b, 0)
	if _, err := e.conn.Write(b); err != nil {
		return err
	}
	var export struct {
		Size  uint64
		Flags uint16
	}
	if err := binary.Read(r, binary.BigEndian, &export); err != nil {
		return err
	}
	e.size, e.flush = int64(export.Size), export.Flags&nbdSendFlush != 0
	return nil
}

// receive hands the replies to those who wait.
func (e *Export) receive(r *bufio.Reader) {
	defer close(e.done)
	err := func() error {
		var h [16]byte
		for {
			if _, err := io.ReadFull(r, h[:]); err != nil {
				return err
			}
			if binary.BigEndian.Uint32(h[:]) != nbdReply {
				return fmt.Errorf("not a simple reply: % x", h)
			}
			cookie := binary.BigEndian.Uint64(h[8:])
			e.mu.Lock()
			c := e.pending[cookie]
			delete(e.pending, cookie)
			e.mu.Unlock()
			if c == nil {
				return fmt.Errorf("a reply to no request, cookie %d", cookie)
			}
			if errno := binary.BigEndian.Uint32(h[4:]); errno != 0 {
				c.done <- syscall.Errno(errno)
				continue
			}
			if _, err := io.ReadFull(r, c.into); err != nil {
				c.done <- err
				return err
			}
			c.done <- nil
		}
	}()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = fmt.Errorf("nbd connection: %w", err)
	for cookie, c := range e.pending {
		delete(e.pending, cookie)
		c.done <- e.err
	}
}

// request sends a request and waits for the reply.
func (e *Export) request(cmd uint16, off int64, n int, payload, into []byte) error {
	c := &call{into: into, done: make(chan error, 1)}
	e.mu.Lock()
	if e.err != nil {
		defer e.mu.Unlock()
		return e.err
	}
	e.cookie++
	b := make([]byte, 0, 28)
	b = binary.BigEndian.AppendUint32(b, nbdRequest)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, cmd)
	b = binary.BigEndian.AppendUint64(b, e.cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	e.pending[e.cookie] = c
	bufs := net.Buffers{b, payload}
	_, err := bufs.WriteTo(e.conn)
	if err != nil {
		delete(e.pending, e.cookie)
	}
	e.mu.Unlock()
	if err != nil {
		return err
	}
	return <-c.done
}

// ReadAt reads as io.ReaderAt does.
func (e *Export) ReadAt(p []byte, off int64) (int, error) {
	if err := e.request(nbdRead, off, len(p), nil, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt writes as io.WriterAt does.
func (e *Export) WriteAt(p []byte, off int64) (int, error) {
	if err := e.request(nbdWrite, off, len(p), p, nil); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush has the disk write its cache out, if it has one.
func (e *Export) Flush() error {
	if !e.flush {
		return nil
	}
	return e.request(nbdFlush, 0, 0, nil, nil)
}

// Size is the size in bytes at the time of the handshake.
func (e *Export) Size() int64 { return e.size }

// Close says goodbye and waits for the end of the connection.
func (e *Export) Close() error {
	e.mu.Lock()
	b := binary.BigEndian.AppendUint32(nil, nbdRequest)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, nbdDisc)
	_, _ = e.conn.Write(append(b, make([]byte, 20)...)) // the connection may have ended
	e.mu.Unlock()
	err := e.conn.Close()
	<-e.done
	return err
}
