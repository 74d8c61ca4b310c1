package iscsitest

import (
	"net"

	"github.com/goiscsi/goiscsi/initiator/internal/rawsock"
	"github.com/goiscsi/goiscsi/pdu"
)

// A socket moves the bytes of a Conn: by raw system calls where it is a TCP
// socket, so that what is measured of an initiator is not this target.
type socket struct {
	nc  net.Conn
	in  *rawsock.Reader // nil: Read of nc
	out *rawsock.Writer // nil: Write of nc

	rest net.Buffers // what out did not take; a field, as it escapes
}

func newSocket(nc net.Conn) socket {
	return socket{nc: nc, in: rawsock.NewReader(nc), out: rawsock.NewWriter(nc)}
}

// Read implements io.Reader.
func (s *socket) Read(p []byte) (int, error) {
	if s.in == nil {
		return s.nc.Read(p)
	}
	return s.in.Read(p, nil, true)
}

// flush sends what w has, and waits until the socket has taken it.
func (s *socket) flush(w *pdu.Writer) error {
	if s.out == nil {
		return w.Flush()
	}
	if w.Buffered() == 0 {
		return nil
	}
	defer w.Reset()
	rest, err := s.out.Write(w.Buffers())
	if err != nil || len(rest) == 0 {
		return err
	}
	s.rest = rest
	_, err = s.rest.WriteTo(s.nc)
	return err
}
