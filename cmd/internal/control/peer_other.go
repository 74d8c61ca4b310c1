//go:build !linux

package control

import (
	"errors"
	"net"
)

// peerOf cannot tell who connected; the server then refuses all but reading.
func peerOf(net.Conn) (Peer, error) { return Peer{}, errors.ErrUnsupported }
