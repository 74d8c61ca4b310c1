//go:build linux

package nbdtest

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/goiscsi/goiscsi/nbd"
)

// fragment is the size of the pieces in which the driver sends a write: one
// sendmsg for each page of the request.
const fragment = 4096

// A Peer is the client's end of a connection in the transmission phase. It
// sends requests as the kernel's driver does: the header with MSG_MORE, then the
// payload page by page, each with a system call of its own.
//
// Send and the methods that use it may be called concurrently with Recv, but not
// with themselves.
type Peer struct {
	nc   net.Conn
	next uint64
	hdr  []byte

	mu      sync.Mutex        // protects lengths
	lengths map[uint64]uint32 // of reads in flight, by cookie
}

// A Reply is a server's answer to a request.
type Reply struct {
	Cookie uint64 // the request's
	Err    error  // nil, or a syscall.Errno
	Data   []byte // of a read that succeeded
}

// NewPeer returns a peer on nc, a connection whose handshake is over.
func NewPeer(nc net.Conn) *Peer { return &Peer{nc: nc, lengths: make(map[uint64]uint32)} }

// Pair returns a peer and the server's end of a socketpair(2) of unix stream
// sockets, which is what the driver is connected by.
func Pair() (*Peer, net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "nbdtest")
		nc, cerr := net.FileConn(f)
		f.Close()
		if cerr != nil {
			err = cerr
		}
		ends[i] = nc
	}
	if err != nil {
		for _, nc := range ends {
			if nc != nil {
				nc.Close()
			}
		}
		return nil, nil, err
	}
	return NewPeer(ends[0]), ends[1], nil
}

// Conn returns the peer's end of the connection.
func (p *Peer) Conn() net.Conn { return p.nc }

// Close closes the connection without a word.
func (p *Peer) Close() error { return p.nc.Close() }

// Send sends a request and returns its cookie, which has the number of the
// request, from 1, in its upper half. data is the payload of a write, whose
// length it should be.
func (p *Peer) Send(cmd nbd.Command, flags nbd.CommandFlags, off uint64, length uint32, data []byte) (uint64, error) {
	p.next++
	// The driver's cookies are a sequence number above a tag.
	cookie := p.next<<32 | p.next%128
	h := nbd.RequestHeader{Flags: flags, Cmd: cmd, Cookie: cookie, Offset: off, Length: length}
	p.hdr = h.Append(p.hdr[:0])
	if cmd == nbd.CmdRead {
		p.mu.Lock()
		p.lengths[cookie] = length
		p.mu.Unlock()
	}
	if err := p.write(p.hdr, len(data) > 0); err != nil {
		return 0, err
	}
	for len(data) > 0 {
		n := min(fragment, len(data))
		if err := p.write(data[:n], n < len(data)); err != nil {
			return 0, err
		}
		data = data[n:]
	}
	return cookie, nil
}

// write writes b with one system call if the socket takes it, with MSG_MORE if
// more follows.
func (p *Peer) write(b []byte, more bool) error {
	sc, ok := p.nc.(syscall.Conn)
	if !ok {
		_, err := p.nc.Write(b)
		return err
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	flags := unix.MSG_NOSIGNAL
	if more {
		flags |= unix.MSG_MORE
	}
	var werr error
	err = rc.Write(func(fd uintptr) bool {
		for len(b) > 0 {
			n, err := unix.SendmsgN(int(fd), b, nil, nil, flags)
			switch err {
			case nil:
				b = b[n:]
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				werr = err
				return true
			}
		}
		return true
	})
	if err == nil {
		err = werr
	}
	return err
}

// Recv reads the next reply, of whichever request.
func (p *Peer) Recv() (Reply, error) {
	var b [nbd.ReplySize]byte
	if _, err := io.ReadFull(p.nc, b[:]); err != nil {
		return Reply{}, err
	}
	s, err := nbd.ParseSimpleReply(b[:])
	if err != nil {
		return Reply{}, err
	}
	r := Reply{Cookie: s.Cookie}
	p.mu.Lock()
	length, read := p.lengths[s.Cookie]
	delete(p.lengths, s.Cookie)
	p.mu.Unlock()
	if s.Error != 0 {
		r.Err = syscall.Errno(s.Error)
		return r, nil
	}
	if read {
		r.Data = make([]byte, length)
		if _, err := io.ReadFull(p.nc, r.Data); err != nil {
			return Reply{}, err
		}
	}
	return r, nil
}

// Do sends a request and waits for its reply, which must be the next.
func (p *Peer) Do(cmd nbd.Command, flags nbd.CommandFlags, off uint64, length uint32, data []byte) ([]byte, error) {
	cookie, err := p.Send(cmd, flags, off, length, data)
	if err != nil {
		return nil, err
	}
	r, err := p.Recv()
	if err != nil {
		return nil, err
	}
	if r.Cookie != cookie {
		return nil, fmt.Errorf("nbdtest: reply has cookie %#x, want %#x", r.Cookie, cookie)
	}
	return r.Data, r.Err
}

// Read reads n bytes at off.
func (p *Peer) Read(off uint64, n uint32) ([]byte, error) {
	return p.Do(nbd.CmdRead, 0, off, n, nil)
}

// Write writes b at off.
func (p *Peer) Write(b []byte, off uint64, flags nbd.CommandFlags) error {
	_, err := p.Do(nbd.CmdWrite, flags, off, uint32(len(b)), b)
	return err
}

// Flush asks for all completed writes to be made durable.
func (p *Peer) Flush() error {
	_, err := p.Do(nbd.CmdFlush, 0, 0, 0, nil)
	return err
}

// Trim discards n bytes at off.
func (p *Peer) Trim(off uint64, n uint32) error {
	_, err := p.Do(nbd.CmdTrim, 0, off, n, nil)
	return err
}

// WriteZeroes zeroes n bytes at off.
func (p *Peer) WriteZeroes(off uint64, n uint32, flags nbd.CommandFlags) error {
	_, err := p.Do(nbd.CmdWriteZeroes, flags, off, n, nil)
	return err
}

// Disconnect sends NBD_CMD_DISC, which has no reply.
func (p *Peer) Disconnect() error {
	_, err := p.Send(nbd.CmdDisconnect, 0, 0, 0, nil)
	return err
}
