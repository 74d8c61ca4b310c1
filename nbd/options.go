//go:build linux

package nbd

import (
	"log/slog"
	"time"
)

// ServerOptions tune ServeConn and Server. The zero value of a field, and a nil
// pointer, mean the defaults.
type ServerOptions struct {
	// MaxRequests bounds the requests in flight per connection; 0 means 256.
	// The kernel sends up to 128 per socket.
	MaxRequests int
	// MaxBytes bounds the payload in flight per connection, reads and writes
	// together; 0 means 32 MiB. One request is served whatever its size.
	MaxBytes int64
	// ReadBuffer is the size of the buffer that requests are read into; 0
	// means 64 KiB.
	ReadBuffer int
	// SendBuffer is the socket's SO_SNDBUF; 0 means 2 MiB and a negative value
	// leaves it alone. Unix sockets have 208 KiB by default, over which large
	// reads stall. Without CAP_NET_ADMIN the kernel bounds it by
	// net.core.wmem_max.
	SendBuffer int
	// DrainTimeout bounds how long an ending connection waits for a peer that
	// neither finishes its last request nor reads its replies; 0 means 10 s.
	// The backend is waited for as long as it takes.
	DrainTimeout time.Duration
	// HandshakeTimeout bounds a Server's negotiation with a client; 0 means
	// 10 s.
	HandshakeTimeout time.Duration
	// MaxConns bounds a Server's connections; 0 means 256. More are closed at
	// once.
	MaxConns int
	// Pool holds the payload buffers; nil means one of its own for every Server
	// and every ServeConn.
	Pool *BufferPool
	// Logger gets a line for every connection that ends with an error; nil
	// means none.
	Logger *slog.Logger
}

// withDefaults returns a copy of o, which may be nil, with its defaults filled in.
func (o *ServerOptions) withDefaults() ServerOptions {
	var r ServerOptions
	if o != nil {
		r = *o
	}
	if r.MaxRequests <= 0 {
		r.MaxRequests = 256
	}
	if r.MaxBytes <= 0 {
		r.MaxBytes = 32 << 20
	}
	if r.ReadBuffer <= 0 {
		r.ReadBuffer = 64 << 10
	}
	r.ReadBuffer = max(r.ReadBuffer, 4*RequestSize)
	if r.SendBuffer == 0 {
		r.SendBuffer = 2 << 20
	}
	if r.DrainTimeout <= 0 {
		r.DrainTimeout = 10 * time.Second
	}
	if r.HandshakeTimeout <= 0 {
		r.HandshakeTimeout = 10 * time.Second
	}
	if r.MaxConns <= 0 {
		r.MaxConns = 256
	}
	if r.Pool == nil {
		r.Pool = NewBufferPool(0)
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	return r
}
