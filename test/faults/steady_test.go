//go:build integration

package faults

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
)

// A steadyExport is the client of an export that connects anew, and asks again,
// when its server has gone: what the kernel does for a device. A request that was
// not answered is the same when it is sent again, so nobody can tell.
type steadyExport struct {
	where func() string // the socket; it may not be there
	size  int64

	mu   sync.Mutex // guards what follows
	e    *checker.Export
	made int // connections
}

func newSteadyExport(where func() string) (*steadyExport, error) {
	s := &steadyExport{where: where}
	e, _, err := s.connection(0)
	if err != nil {
		return nil, err
	}
	s.size = e.Size()
	return s, nil
}

// connection returns the present connection and its number. One with the number
// broken is replaced.
func (s *steadyExport) connection(broken int) (*checker.Export, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.e != nil && s.made > broken {
		return s.e, s.made, nil
	}
	if s.e != nil {
		s.e.Close()
		s.e = nil
	}
	e, err := checker.OpenExport(s.where())
	if err != nil {
		return nil, broken, err
	}
	s.made++
	s.e = e
	return e, s.made, nil
}

// do repeats f until it succeeds, for as long as a recovery may take.
func (s *steadyExport) do(f func(e *checker.Export) error) error {
	begin, broken := time.Now(), 0
	for {
		e, n, err := s.connection(broken)
		if err == nil {
			if err = f(e); err == nil {
				return nil
			}
			broken = n
		}
		if time.Since(begin) > recoveryTime {
			return fmt.Errorf("for %v: %w", recoveryTime, err)
		}
		time.Sleep(2 * time.Millisecond) // the daemon is on its way
	}
}

func (s *steadyExport) ReadAt(p []byte, off int64) (n int, err error) {
	err = s.do(func(e *checker.Export) error { n, err = e.ReadAt(p, off); return err })
	return n, err
}

func (s *steadyExport) WriteAt(p []byte, off int64) (n int, err error) {
	err = s.do(func(e *checker.Export) error { n, err = e.WriteAt(p, off); return err })
	return n, err
}

func (s *steadyExport) Flush() error { return s.do((*checker.Export).Flush) }

func (s *steadyExport) Size() int64 { return s.size }

func (s *steadyExport) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.e != nil {
		s.e.Close()
	}
}

// TestDaemonKilledOnSocket kills or stops iscsid while it is busy and starts it
// again: the socket is there again under the same name, the session has the same id,
// nothing that was acknowledged is lost. It measures what a restart costs where system
// calls are quick; TestPlannedRestart and TestDaemonKilled are the same with a device.
func TestDaemonKilledOnSocket(t *testing.T) {
	r := newRig(t)
	tgt := own(t, r.Host)
	portal := tgt.Portal().String()
	r.record(portal)
	r.login(portal)
	socket, before := r.Socket(), r.Must("-m", "session")
	s, err := newSteadyExport(func() string { return socket })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := start(t, s, checker.Config{Workers: 4})
	for _, tc := range []struct {
		name string
		end  func()
	}{
		{"killed", func() { r.d.Kill() }},
		{"stopped", func() { r.d.Stop() }},
	} {
		var ended, back, longest []time.Duration
		for range times(5, 50) {
			pauseBetween()
			c.TakeLongest()
			begin := time.Now()
			tc.end()
			ended = append(ended, time.Since(begin))
			begin = time.Now()
			r.d = r.StartDaemon()
			await(t, c)
			back = append(back, time.Since(begin))
			longest = append(longest, c.TakeLongest())
			if now := r.Must("-m", "session"); now != before || r.Socket() != socket {
				t.Fatalf("%s: sessions\n%sbefore\n%ssocket %s, was %s", tc.name, now, before, r.Socket(), socket)
			}
		}
		for what, all := range map[string][]time.Duration{"end": ended, "I/O after the start": back, "longest request": longest} {
			text, _ := summary(all)
			t.Logf("%s, %s: %s", tc.name, what, text)
		}
	}
	verdict(t, c)
	r.Must("-m", "session", "-u")
}
