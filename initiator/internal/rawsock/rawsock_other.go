//go:build !linux

package rawsock

import "net"

// A Reader does not exist here: connections are read by Read of the net.Conn.
type Reader struct{}

// NewReader returns nil.
func NewReader(net.Conn) *Reader { return nil }

// Read reads nothing.
func (*Reader) Read([]byte, []byte, bool) (int, error) { return 0, ErrWouldBlock }

// A Writer does not exist here: connections are written to by Write of the
// net.Conn.
type Writer struct{}

// NewWriter returns nil.
func NewWriter(net.Conn) *Writer { return nil }

// Write writes nothing.
func (*Writer) Write(bufs [][]byte) ([][]byte, error) { return bufs, nil }
