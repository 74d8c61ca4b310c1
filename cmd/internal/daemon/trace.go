package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/pcap"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// Trace implements control.Service. The session records into bounded memory and
// goes on whatever becomes of w.
func (v *service) Trace(ctx context.Context, sid int, o control.TraceOptions, w io.Writer) (*control.TraceResult, error) {
	s, err := v.m.reg.get(sid)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	live := s.live
	s.mu.Unlock()
	if live == nil {
		return nil, refuse(errcode.SessionNotConnected, "session %d has not logged in yet", sid)
	}
	tr, err := live.trace()
	if err != nil {
		return nil, fmt.Errorf("session %d: %w", sid, err)
	}
	defer tr.Close()
	v.tracing.Store(sid, tr)
	defer v.tracing.CompareAndDelete(sid, tr)
	s.log.Info("session is traced", "duration", o.Duration)
	if o.Duration > 0 {
		end := time.AfterFunc(o.Duration, tr.Close)
		defer end.Stop()
	}
	n, err := copyTrace(ctx, w, tr, fmt.Sprintf("session %d: %s", sid, s.key.Target))
	s.log.Info("session is not traced any more", "pdus", n, "dropped", tr.Dropped())
	if err != nil {
		return nil, err
	}
	return &control.TraceResult{PDUs: n, Dropped: tr.Dropped()}, nil
}

// copyTrace writes a trace to its end and returns how many PDUs it had.
func copyTrace(ctx context.Context, w io.Writer, tr *initiator.Trace, name string) (n uint64, err error) {
	out, err := pcap.NewWriter(w, name, time.Now())
	if err != nil {
		return 0, err
	}
	for {
		if !tr.Waiting() {
			// All that came is on its way before there is a wait.
			if err := out.Flush(); err != nil {
				return n, err
			}
		}
		p, err := tr.Next(ctx)
		if errors.Is(err, io.EOF) {
			return n, out.Close(tr.Dropped())
		}
		if err != nil {
			return n, err
		}
		if err := out.Write(&p); err != nil {
			return n, err
		}
		n++
	}
}

// EndTrace implements control.Service.
func (v *service) EndTrace(_ context.Context, sid int) error {
	if tr, ok := v.tracing.Load(sid); ok {
		tr.(*initiator.Trace).Close()
	}
	return nil
}
