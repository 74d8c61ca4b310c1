package control

import (
	"context"
	"slices"
)

// Peer are the credentials of the process at the other end of the socket, as
// the kernel noted them when it connected.
type Peer struct {
	PID    int
	UID    int
	GID    int
	Groups []int // supplementary groups
}

// InGroup reports whether gid is one of the peer's groups.
func (p Peer) InGroup(gid int) bool { return p.GID == gid || slices.Contains(p.Groups, gid) }

type peerKey struct{}

// WithPeer returns a context that carries the peer of a connection. The
// server does it for unix sockets; a test that calls ServeHTTP does it itself.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFrom returns the peer of the request that ctx belongs to.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}
