package initiator

import (
	"context"

	"github.com/goiscsi/goiscsi/pdu"
)

// A Session is a session with one target. It is made by Dial.
type Session struct {
	cfg Config
}

// Dial logs in to a target.
func Dial(ctx context.Context, cfg Config) (*Session, error) { panic("being written") }

// Submit queues a task. It never blocks.
func (s *Session) Submit(t *Task) { panic("being written") }

// Kick sends what Submit queued.
func (s *Session) Kick() { panic("being written") }

// Do carries out a task and waits for it; it returns t.Err.
func (s *Session) Do(ctx context.Context, t *Task) error { panic("being written") }

// Ping sends a NOP-Out and waits for the answer.
func (s *Session) Ping(ctx context.Context) error { panic("being written") }

// TaskManagement carries out a task management function on a logical unit.
func (s *Session) TaskManagement(ctx context.Context, fn pdu.TaskFunction, lun pdu.LUN) error {
	panic("being written")
}

// Logout ends the session in an orderly way.
func (s *Session) Logout(ctx context.Context) error { panic("being written") }

// Close ends the session abruptly.
func (s *Session) Close() error { panic("being written") }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { panic("being written") }

// Err returns why the session ended, nil before.
func (s *Session) Err() error { panic("being written") }

// Info describes the session.
func (s *Session) Info() Info { panic("being written") }

// Stats returns the counters.
func (s *Session) Stats() Stats { panic("being written") }
