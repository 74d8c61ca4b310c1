//go:build !linux

package initiator

import "net"

// A vectorWriter does not exist here: the sender goroutine does all writing.
type vectorWriter struct{}

func newVectorWriter(net.Conn) *vectorWriter { return nil }

func (*vectorWriter) write(bufs [][]byte) ([][]byte, error) { return bufs, nil }
