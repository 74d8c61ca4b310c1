package initiator

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// A taskPort carries out tasks: what the block layer needs of a Session.
type taskPort interface {
	Submit(t *Task)
	Kick()
	Do(ctx context.Context, t *Task) error
}

var _ taskPort = (*Session)(nil)

// Times for one command to be carried out, those of Linux's disks.
const (
	commandTimeout = 30 * time.Second  // data and information
	flushTimeout   = 60 * time.Second  // SYNCHRONIZE CACHE
	bulkTimeout    = 120 * time.Second // UNMAP and WRITE SAME
)

// A prober carries out single commands for a caller that waits, and sends them
// again by the rules of judge. It has no state of its own.
type prober struct {
	port     taskPort
	clock    clock // the port's
	target   string
	log      *slog.Logger
	patience time.Duration
	// attend is told what sense data say about the device; nil: nobody.
	attend func(attention, scsi.Sense)
	// hold waits until the device is known to be the same, after an attention
	// that leaves that open; nil: the caller does not care.
	hold func(context.Context) error
}

// prober returns one for commands outside of any volume.
func (s *Session) prober() *prober {
	return &prober{port: s, clock: s.clock, target: s.cfg.Target, log: s.cfg.logger(), patience: DefaultPatience}
}

// logger returns the logger, never nil.
func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return discardLogger
	}
	return c.Logger
}

// fail makes the error of an operation. kind may be nil.
func (p *prober) fail(op string, lun pdu.LUN, kind, err error) error {
	return &VolumeError{Op: op, Target: p.target, LUN: lun, Kind: kind, Err: err}
}

// run carries out a task and returns nil, or a *VolumeError once it failed for
// good. t.Transferred says how much of DataIn is valid. Data-In may be less
// than asked for: lengths of answers are only bounds.
func (p *prober) run(ctx context.Context, op string, t *Task) error {
	var r retries
	if t.Timeout == 0 {
		t.Timeout = commandTimeout
	}
	if p.hold != nil {
		if err := p.hold(ctx); err != nil {
			return p.fail(op, t.LUN, nil, err)
		}
	}
	for {
		if err := p.port.Do(ctx, t); err != nil && ctx.Err() != nil {
			return p.fail(op, t.LUN, nil, err)
		}
		short := t.Err == nil && len(t.DataIn) > 0
		if short {
			t.Residual = 0
		}
		j, sense := judge(t)
		if p.attend != nil && j.attention != 0 {
			p.attend(j.attention, sense)
		}
		if j.verdict == verdictDone {
			return nil
		}
		delay, again := r.next(j.verdict, time.Now(), p.patience)
		if !again || errors.Is(t.Err, ErrInterrupted) && !t.Replay {
			return p.fail(op, t.LUN, j.kind, taskError(t, j.kind))
		}
		if j.verdict == verdictHold && p.hold != nil {
			if err := p.hold(ctx); err != nil {
				return p.fail(op, t.LUN, nil, err)
			}
		}
		p.log.Debug("command is sent again", "op", op, "target", p.target, "lun", t.LUN, "delay", delay, "cause", taskError(t, j.kind))
		if err := sleep(ctx, delay); err != nil {
			return p.fail(op, t.LUN, j.kind, errors.Join(err, taskError(t, j.kind)))
		}
	}
}

// taskError returns what a finished task failed with: its error, its status,
// or kind where the status is good and yet not enough.
func taskError(t *Task, kind error) error {
	if t.Err != nil {
		return t.Err
	}
	if err := scsi.NewStatusError(t.CDB[:], t.Status, t.Sense); err != nil {
		return err
	}
	if t.Residual > 0 {
		return &shortTransferError{want: t.Transferred + int(t.Residual), got: t.Transferred}
	}
	return kind
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// read carries out a command that returns at most n bytes and returns those
// that came.
func (p *prober) read(ctx context.Context, op string, lun pdu.LUN, n int, build func(*scsi.CDB) int) ([]byte, error) {
	t := &Task{LUN: lun, DataIn: make([]byte, n), Replay: true}
	build(&t.CDB)
	if err := p.run(ctx, op, t); err != nil {
		return nil, err
	}
	return t.DataIn[:min(max(t.Transferred, 0), n)], nil
}

// readAll is read for answers of unknown length: it asks for first bytes, and
// once more if total, given the answer, says that there are more, but never
// for more than most.
func (p *prober) readAll(ctx context.Context, op string, lun pdu.LUN, first, most int,
	build func(cdb *scsi.CDB, n int) int, total func([]byte) uint64,
) ([]byte, error) {
	for {
		b, err := p.read(ctx, op, lun, first, func(cdb *scsi.CDB) int { return build(cdb, first) })
		if err != nil {
			return nil, err
		}
		n := int(min(total(b), uint64(most)))
		if n <= first || first >= most {
			return b, nil
		}
		first = n // grew in between? then the loop goes round again
	}
}
