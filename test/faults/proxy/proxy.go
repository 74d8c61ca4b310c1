// Package proxy is the network between an initiator and its target, and what
// can go wrong with it: connections that are reset, closed or cut off in the
// middle, bytes that arrive changed, and silence.
package proxy

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// safe is how many bytes of each direction are never changed: the login, which
// no digest protects.
const safe = 4 << 10

// A Proxy forwards TCP connections to a target.
type Proxy struct {
	listener net.Listener
	wg       sync.WaitGroup // the acceptor and all pipes
	accepted atomic.Int64

	mu      sync.Mutex // guards what follows
	to      string
	conns   map[*pair]bool
	silent  chan struct{} // closed when forwarding goes on; nil while it does
	corrupt [2]int        // how many pieces to change, by direction
	closed  bool
}

// A pair is one connection: [0] is the initiator's, [1] the target's.
type pair [2]*net.TCPConn

// A Direction is one of the two that bytes flow in.
type Direction int

// The directions.
const (
	ToTarget Direction = iota
	ToInitiator
)

// Start starts a proxy on a free port of 127.0.0.1 that ends with the test.
func Start(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, to: to, conns: make(map[*pair]bool)}
	p.wg.Go(p.accept)
	t.Cleanup(p.stop)
	return p
}

// Addr is where it listens, as "host:port".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Accepted returns how many connections were made to it.
func (p *Proxy) Accepted() int { return int(p.accepted.Load()) }

// Open returns how many connections there are now.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func (p *Proxy) stop() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Silence(false)
	p.Reset()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		p.wg.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(in *net.TCPConn) {
	p.wait() // a black hole swallows what is said to it, from the first byte
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	out, err := net.Dial("tcp", to)
	if err != nil {
		abort(in) // as the target's host would refuse it
		return
	}
	c := &pair{in, out.(*net.TCPConn)}
	p.mu.Lock()
	ok := !p.closed
	if ok {
		p.conns[c] = true
	}
	p.mu.Unlock()
	if !ok {
		abort(c[0])
		abort(c[1])
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.pipe(c, ToTarget) })
	wg.Go(func() { p.pipe(c, ToInitiator) })
	wg.Wait()
	c[0].Close()
	c[1].Close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// pipe forwards one direction.
func (p *Proxy) pipe(c *pair, d Direction) {
	from, to := c[d], c[1-d]
	buf := make([]byte, 64<<10)
	var total int64
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.wait()
			if p.takeCorrupt(d, total) {
				buf[rand.IntN(n)] ^= 1 << rand.IntN(8)
			}
			total += int64(n)
			if _, werr := to.Write(buf[:n]); werr != nil {
				abort(from)
				return
			}
		}
		if err == io.EOF {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			abort(to)
			return
		}
	}
}

// wait waits while the proxy is silent.
func (p *Proxy) wait() {
	for {
		p.mu.Lock()
		silent := p.silent
		p.mu.Unlock()
		if silent == nil {
			return
		}
		<-silent
	}
}

func (p *Proxy) takeCorrupt(d Direction, total int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.corrupt[d] == 0 || total < safe {
		return false
	}
	p.corrupt[d]--
	return true
}

// SetTarget forwards new connections to another address.
func (p *Proxy) SetTarget(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

// Reset ends all connections with a TCP reset in both directions.
func (p *Proxy) Reset() {
	for _, c := range p.all() {
		abort(c[0])
		abort(c[1])
	}
}

// Close ends all connections in order, wherever the stream is.
func (p *Proxy) Close() {
	for _, c := range p.all() {
		c[0].Close()
		c[1].Close()
	}
}

// Corrupt changes one bit of the next piece that flows in the direction, in
// whichever connection, but never in a login.
func (p *Proxy) Corrupt(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.corrupt[d]++
}

// Silence is a black hole while it is on: connections can be made and stay
// open, and nothing gets through. What was on its way arrives when it ends.
func (p *Proxy) Silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case on && p.silent == nil:
		p.silent = make(chan struct{})
	case !on && p.silent != nil:
		close(p.silent)
		p.silent = nil
	}
}

func (p *Proxy) all() []*pair {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*pair
	for c := range p.conns {
		list = append(list, c)
	}
	return list
}

// abort closes with a reset.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
