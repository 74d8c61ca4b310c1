//go:build !linux

package initiator

import (
	"errors"
	"net"
)

// errWouldBlock is what a vectorReader returns that has nothing to read.
var errWouldBlock = errors.New("nothing to read")

// A vectorReader does not exist here: connections are read by Read.
type vectorReader struct{}

func newVectorReader(net.Conn) *vectorReader { return nil }

func (*vectorReader) read([]byte, []byte, bool) (int, error) { return 0, errWouldBlock }
