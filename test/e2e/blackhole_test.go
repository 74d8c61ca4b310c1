//go:build integration

package e2e

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
)

// A blackHole is a portal that accepts connections and never says a word.
type blackHole struct {
	listener net.Listener
	opened   chan struct{} // gets a value for each connection
	closed   chan struct{} // gets a value for each that the other end closed
}

// openBlackHole starts one that ends with the test.
func openBlackHole(t *testing.T) *blackHole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &blackHole{listener: l, opened: make(chan struct{}, 100), closed: make(chan struct{}, 100)}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // protects conns
		conns []net.Conn
	)
	wg.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			b.opened <- struct{}{}
			wg.Go(func() { // ends with the connection
				buf := make([]byte, 4096)
				for {
					if _, err := c.Read(buf); err != nil {
						b.closed <- struct{}{}
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return b
}

// portal is where it listens, as for iscsiadm -p.
func (b *blackHole) portal() string { return b.listener.Addr().String() }

// slowTarget is the name of the target that the record of a black hole has.
const slowTarget = "iqn.2026-11.com.example:slow"

// record makes a node record for the portal whose login takes up to the given
// seconds in all.
func (b *blackHole) record(h *lab.Host, timeout, tries int) []string {
	node := []string{"-m", "node", "-T", slowTarget, "-p", b.portal()}
	h.Must(append(node, "-o", "new")...)
	h.Must(append(node, "-o", "update",
		"-n", "node.conn[0].timeo.login_timeout", "-v", fmt.Sprint(timeout),
		"-n", "node.session.initial_login_retry_max", "-v", fmt.Sprint(tries))...)
	return node[:len(node):len(node)]
}
