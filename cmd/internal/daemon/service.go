package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// A service answers the control API. Its methods are called concurrently.
type service struct {
	m        *machine
	log      *slog.Logger
	identity func() (identity, error) // reads the initiatorname file
	kernel   func() bool              // whether the kernel has nbd
	safe     bool                     // iscsid.safe_logout
	shutdown context.CancelFunc
	level    *slog.LevelVar // nil: cannot be changed

	wg      sync.WaitGroup // the supervisors' goroutines
	tracing sync.Map       // sid → *initiator.Trace
}

var _ control.Service = (*service)(nil)

func connectionText(sid int, k sessionKey) string {
	return fmt.Sprintf("Connection%d:0 to [target: %s, portal: %s,%d] through [iface: %s]", sid, k.Target, k.Address, k.Port, k.Iface)
}

// Login implements control.Service.
func (v *service) Login(ctx context.Context, req *control.LoginRequest) (*control.Session, error) {
	who, err := v.identity()
	if err != nil {
		v.log.Warn("initiator name", "err", err)
	}
	set, err := readSettings(req.Record, who, v.log)
	if err != nil {
		return nil, err
	}
	if _, _, err := v.m.choose(set.attach); err != nil {
		return nil, err
	}
	s, err := v.m.reg.claim(set.key, req.Multiple, req.Limit, func(sid, host int) *supervisor {
		return newSupervisor(v.m, sid, host, set, req.Record)
	})
	if err != nil {
		return nil, err
	}
	v.wg.Go(s.run)
	if req.NoWait {
		return new(s.view(control.SessionQuery{Pending: true})), nil
	}
	select {
	case <-s.ready:
		return new(s.view(control.SessionQuery{})), nil
	case <-s.done:
		return nil, loginFailure(s)
	case <-ctx.Done():
		s.cancelLogin(refuse(errcode.SessionNotConnected, "the login was cancelled: %w", context.Cause(ctx)))
		return nil, context.Cause(ctx)
	}
}

// loginFailure makes the error of a login that did not come to be.
func loginFailure(s *supervisor) error {
	e := control.FromError(s.failure)
	if e == nil {
		e = control.NewError(errcode.Internal, "the session ended during its login")
	}
	e.Target, e.Portal = s.key.Target, s.set.config.Portal.Address()
	if e.Hint == "" {
		e.Hint = hint(errcode.Code(e.Code))
	}
	return e
}

// hint says what to try next.
func hint(c errcode.Code) string {
	switch c {
	case errcode.LoginAuthFailed:
		return "check node.session.auth.username and password, and that the target's access list has this initiator's name"
	case errcode.FatalLogin:
		return "check the target name: run discovery again"
	case errcode.TransTimeout, errcode.PDUTimeout:
		return "check that the portal answers: address, port, firewall, target service"
	case errcode.Trans:
		return "check the portal's host name"
	case errcode.TransNotFound:
		return "run modprobe nbd, or set node.session.attach to socket"
	}
	return ""
}

// Sessions implements control.Service.
func (v *service) Sessions(_ context.Context, q control.SessionQuery) ([]control.Session, error) {
	out := []control.Session{}
	for _, s := range v.m.reg.all() {
		if view := s.view(q); q.Pending || s.listed() {
			out = append(out, view)
		}
	}
	return out, nil
}

// listed reports whether the session is shown without being asked for: not
// before the first login has succeeded, as there is no session yet.
func (s *supervisor) listed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase != phaseLogin && s.phase != phaseGone
}

// Session implements control.Service.
func (v *service) Session(_ context.Context, sid int, q control.SessionQuery) (*control.Session, error) {
	s, err := v.m.reg.get(sid)
	if err != nil {
		return nil, err
	}
	return new(s.view(q)), nil
}

// Logout implements control.Service.
func (v *service) Logout(ctx context.Context, sid int, safe bool) error {
	s, err := v.m.reg.get(sid)
	if err != nil {
		return err
	}
	return s.logout(ctx, safe || v.safe)
}

// Rescan implements control.Service.
func (v *service) Rescan(ctx context.Context, sid int) (*control.RescanResult, error) {
	s, err := v.m.reg.get(sid)
	if err != nil {
		return nil, err
	}
	return s.rescan(ctx)
}

// RescanLUN implements control.Service.
func (v *service) RescanLUN(ctx context.Context, sid int, lun uint64) (*control.RescanResult, error) {
	s, err := v.m.reg.get(sid)
	if err != nil {
		return nil, err
	}
	return s.rescanUnit(ctx, lun)
}

// RemoveLUN implements control.Service.
func (v *service) RemoveLUN(ctx context.Context, sid int, lun uint64, safe bool) error {
	s, err := v.m.reg.get(sid)
	if err != nil {
		return err
	}
	return s.removeUnit(ctx, lun, safe || v.safe)
}

// Stats implements control.Service.
func (v *service) Stats(_ context.Context, sid int) (*control.Stats, error) {
	s, err := v.m.reg.get(sid)
	if err != nil {
		return nil, err
	}
	return s.stats(), nil
}

// Initiator implements control.Service.
func (v *service) Initiator(context.Context) (*control.Initiator, error) {
	who, err := v.identity()
	if err != nil {
		return nil, refuse(errcode.Inval, "initiator name: %w", err)
	}
	return &control.Initiator{Name: who.name, Alias: who.alias, NBD: v.kernel()}, nil
}

// Shutdown implements control.Service.
func (v *service) Shutdown(context.Context) error {
	v.log.Info("stop requested")
	v.shutdown()
	return nil
}

// restore starts a supervisor for each session on file. They log in at once, and
// touch devices when surveyed is closed.
func (v *service) restore(states []*sessionState, surveyed <-chan struct{}) {
	for _, st := range states {
		set, err := readSettings(st.Record, identity{name: st.Name}, v.log)
		if err != nil {
			v.log.Error("session of an earlier iscsid cannot be taken up", "sid", st.SID, "err", err)
			continue
		}
		s := newSupervisor(v.m, st.SID, st.Host, set, st.Record)
		s.created, s.restored, s.phase = st.Created, true, phaseRestore
		v.m.reg.enter(s)
		v.wg.Go(func() { s.restore(st, surveyed) })
	}
}

// onEvent is the session's callback. It must not block. Losses and failures
// are logged by the session itself.
func (s *supervisor) onEvent(ev initiator.Event) {
	switch ev.Type {
	case initiator.EventLoginFailed:
		s.tellTrouble(ev.Err)
	case initiator.EventRecovered:
		s.log.Info(fmt.Sprintf("connection%d:0 is operational after recovery (%d attempts)", s.sid, ev.Attempts), "outage", ev.Outage)
	case initiator.EventRedirected:
		s.log.Info(fmt.Sprintf("connection%d:0 is redirected", s.sid), "portal", ev.Portal.String())
	case initiator.EventAsync:
		s.log.Info(fmt.Sprintf("connection%d:0 asynchronous message", s.sid), "event", ev.Async.Event)
		if ev.Async.Event == pdu.AsyncSCSIEvent {
			s.notify(eventInventory)
		}
	}
}
