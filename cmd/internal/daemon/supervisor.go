package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// A phase is the state of a supervisor; docs/daemon.md has the events that
// lead from one to the other.
type phase int

const (
	phaseLogin   phase = iota // logging in for the first time
	phaseScan                 // logged in, units are being attached
	phaseUp                   // the login has been answered
	phaseRestore              // an earlier daemon's session, being logged in again
	phaseLogout               // devices leave, then the session
	phaseParked               // the daemon stops, devices stay
	phaseGone
)

// A machine is what all supervisors of a daemon share.
type machine struct {
	log  *slog.Logger
	dial dialFunc
	reg  *registry
	// store holds the state files; each supervisor touches its own only.
	store    *store
	links    *linkKeeper
	udev     *udevStore
	lunDir   string
	choose   func(attachKind) (attachKind, attacher, error)
	byPath   string        // directory of the links, for listings
	instance string        // part of the backend identifier of our devices
	retry    time.Duration // between the logins of a session to be restored
}

// A supervisor owns one session from its claim to its end. Its goroutine, run,
// is the only one that touches sess, units and state.
type supervisor struct {
	m       *machine
	log     *slog.Logger
	key     sessionKey
	sid     int
	host    int
	created time.Time
	// restored: an earlier daemon has had the session. It is set before run or
	// restore is started.
	restored bool
	rec      map[string]string
	set      *settings
	name     string // initiator name in use

	// ctx ends with the session's life: errLogout or errStopping is the cause.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// loginCtx ends earlier when nobody waits for the login any more.
	loginCtx    context.Context
	cancelLogin context.CancelCauseFunc

	jobs   chan job      // requests to run
	wake   chan struct{} // something in events; capacity 1
	events atomic.Uint32 // eventXxx bits, set by the session's callbacks
	ready  chan struct{} // closed by run when the login is complete
	done   chan struct{} // closed by run when gone or parked

	// failure is why the session is gone; valid after done is closed.
	failure error

	// The goroutine's own.
	sess    session
	units   map[pdu.LUN]*unit
	removed map[pdu.LUN]bool // taken away by request: scans of our own leave them alone
	ending  bool             // teardown has begun
	left    []attachment     // given up, to be waited for at the end
	closing sync.WaitGroup   // volumes that are being closed

	// claiming is held by the logout or removal that looks whether devices are
	// in use, by the latter until the device is gone.
	claiming sync.Mutex

	// mu guards what follows, which run writes and listings read.
	mu      sync.Mutex
	phase   phase
	live    session // sess, for its info and stats, which may be called any time
	devices []control.Device
	scanned control.Scan // how far a scan is; Total 0: none goes on
	trouble string       // why the last attempt of the first login failed
	volumes []volume     // of devices, by index; nil where none is open
	claims  []*claim     // devices that a safe logout holds
	again   relogin      // valid in phaseRestore
}

// A relogin is how it stands with the login of a session to be taken up again.
type relogin struct {
	since  time.Time
	failed int   // logins
	err    error // of the last one
}

// What the session's events ask of the supervisor.
const (
	eventGeometry  uint32 = 1 << iota // a volume has another size or write protection
	eventInventory                    // units may have come or gone
	eventLost                         // the service of a device has ended
)

func newSupervisor(m *machine, sid, host int, set *settings, rec map[string]string) *supervisor {
	s := &supervisor{
		m: m, log: slog.New(newFloodgate(m.log.Handler())).With("sid", sid), key: set.key, sid: sid, host: host, created: time.Now(),
		rec: maps.Clone(rec), set: set, name: set.config.InitiatorName,
		jobs:    make(chan job),
		wake:    make(chan struct{}, 1),
		ready:   make(chan struct{}),
		done:    make(chan struct{}),
		units:   make(map[pdu.LUN]*unit),
		removed: make(map[pdu.LUN]bool),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.loginCtx, s.cancelLogin = context.WithCancelCause(s.ctx)
	s.set.config.ISID = initiator.OpenISCSIISID(uint32(sid))
	s.set.config.OnEvent = s.onEvent
	s.set.config.Logger = slog.New(quieter{s.log.Handler()})
	return s
}

// run is the goroutine of a new session.
func (s *supervisor) run() {
	defer close(s.done)
	sess, err := s.m.dial(s.loginCtx, s.set.config)
	if err == nil && s.loginCtx.Err() != nil {
		// Whoever waited has gone: nobody would know of the session.
		s.quickLogout(sess)
		err = context.Cause(s.loginCtx)
	}
	if err != nil {
		if cause := context.Cause(s.loginCtx); cause != nil {
			err = cause
		}
		s.failure = err
		s.setPhase(phaseGone)
		s.m.reg.forget(s)
		s.log.Error("Login failed", "target", s.key.Target, "portal", s.set.config.Portal.Address(), "err", err)
		return
	}
	s.begin(sess, phaseScan)
	s.log.Info(s.connection() + " is operational now")
	if err := s.save(); err != nil {
		s.log.Error("the session would not survive a restart of iscsid", "err", err)
	}
	if s.set.scan {
		s.firstScan(false)
	}
	s.announce()
	s.finish(s.serve())
}

// restore is the goroutine of a session that an earlier daemon had. It touches
// devices when surveyed is closed.
func (s *supervisor) restore(st *sessionState, surveyed <-chan struct{}) {
	defer close(s.done)
	s.inherit(st)
	if st.Ending {
		<-surveyed
		s.finish(errLogout)
		return
	}
	sess, err := s.loginAgain()
	<-surveyed // soon: nobody else is waited for
	if err != nil {
		s.finish(err)
		return
	}
	s.begin(sess, phaseScan)
	s.log.Info(s.connection() + " is operational after a restart of iscsid")
	s.takeUp(s.ctx)
	s.firstScan(!s.set.scan)
	s.announce()
	s.finish(s.serve())
}

// loginAgain tries until it works: devices wait for this session. A refusal
// by the target is no reason to give up, as it is none for a session that
// recovers; only reopen_max bounds it.
func (s *supervisor) loginAgain() (session, error) {
	cfg := s.set.config
	cfg.LoginRetryWindow = 0
	begin := time.Now()
	s.tell(relogin{since: begin})
	for n := 1; ; n++ {
		sess, err := s.m.dial(s.ctx, cfg)
		if err == nil {
			return sess, nil
		}
		if cause := context.Cause(s.ctx); cause != nil {
			return nil, cause
		}
		s.tell(relogin{begin, n, err})
		if cfg.ReopenMax > 0 && n >= cfg.ReopenMax {
			return nil, err
		}
		if n&(n-1) == 0 { // ever more seldom
			s.log.Warn("session cannot be taken up again yet", "attempts", n, "err", err)
		}
		select {
		case <-time.After(s.m.retry):
		case <-s.ctx.Done():
			return nil, context.Cause(s.ctx)
		}
	}
}

// tell makes how it stands with the login what listings show.
func (s *supervisor) tell(r relogin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = r
}

func (s *supervisor) begin(sess session, p phase) {
	s.sess = sess
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live, s.phase = sess, p
}

// firstScan finds and attaches the units. What fails is logged: the login
// itself has succeeded.
func (s *supervisor) firstScan(known bool) {
	if _, err := s.scan(s.ctx, known); err != nil && s.ctx.Err() == nil {
		s.log.Error("scan for logical units", "err", err)
	}
}

func (s *supervisor) announce() {
	if s.ctx.Err() != nil {
		return
	}
	s.setPhase(phaseUp)
	close(s.ready)
}

// serve answers requests until the session is to end, and returns why.
func (s *supervisor) serve() error {
	for {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		var again <-chan time.Time
		if s.waiting() {
			again = time.After(s.m.retry)
		}
		select {
		case <-s.ctx.Done():
		case <-again:
			s.firstScan(true)
		case <-s.sess.done():
			if err := s.sess.err(); err != nil {
				return err
			}
			return initiator.ErrClosed
		case j := <-s.jobs:
			res, err := j.do()
			j.reply <- outcome{res, err}
		case <-s.wake:
			s.react(s.events.Swap(0))
		}
	}
}

// react does what the session's events asked for.
func (s *supervisor) react(ev uint32) {
	var err error
	if ev&eventLost != 0 {
		s.reattach()
	}
	switch {
	case ev&eventInventory != 0 && s.set.scan:
		_, err = s.scan(s.ctx, false)
	case ev&eventInventory != 0:
		err = s.refresh(s.ctx, true)
	case ev&eventGeometry != 0:
		err = s.refresh(s.ctx, false)
	}
	if err != nil && s.ctx.Err() == nil {
		s.log.Warn("rescan", "err", err)
	}
}

// notify is called from anywhere; it does not block.
func (s *supervisor) notify(ev uint32) {
	s.events.Or(ev)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// logout ends the session in whatever state it is, and waits until its
// devices are gone. safe refuses where a device is in use.
func (s *supervisor) logout(ctx context.Context, safe bool) error {
	if safe {
		if err := s.claimDevices(); err != nil {
			return err
		}
	}
	s.cancel(errLogout)
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop ends the work and leaves the devices.
func (s *supervisor) stop() { s.cancel(errStopping) }

// claimDevices opens each block device exclusively and keeps it, so that
// none comes into use between the check and the logout.
func (s *supervisor) claimDevices() error {
	// One logout at a time claims; a second one would find the first one's
	// claims and take them for a user's.
	s.claiming.Lock()
	defer s.claiming.Unlock()
	s.mu.Lock()
	devices, ending := slices.Clone(s.devices), s.ctx.Err() != nil
	s.mu.Unlock()
	if ending {
		return nil
	}
	var claims []*claim
	for _, d := range devices {
		if d.Name == "" {
			continue
		}
		c, err := claimDevice(d.Path)
		if errors.Is(err, errInUse) {
			for _, c := range claims {
				c.release()
			}
			s.log.Warn("session is actively in use for mounted storage, and a safe logout is asked for", "device", d.Path)
			return refuse(errcode.Busy, "session %d: %w", s.sid, err)
		}
		if err == nil {
			c.name = d.Name
			claims = append(claims, c)
		}
	}
	s.mu.Lock()
	s.claims = claims
	s.mu.Unlock()
	s.cancel(errLogout)
	return nil
}

// releaseClaim gives up the exclusive open of a device, or of all for "".
func (s *supervisor) releaseClaim(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims = slices.DeleteFunc(s.claims, func(c *claim) bool {
		if name != "" && c.name != name {
			return false
		}
		c.release()
		return true
	})
}

func (s *supervisor) setPhase(p phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = p
}

// tellScan notes how far a scan is, 0 of 0 at its end.
func (s *supervisor) tellScan(done, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scanned = control.Scan{Done: done, Total: total}
}

// tellTrouble notes why an attempt to log in failed while there is no session.
func (s *supervisor) tellTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = err.Error()
}

// publish makes the units what listings show.
func (s *supervisor) publish() {
	devs := make([]control.Device, 0, len(s.units))
	vols := make([]volume, 0, len(s.units))
	for _, lun := range slices.Sorted(maps.Keys(s.units)) {
		devs = append(devs, s.units[lun].device(s.m))
		vols = append(vols, s.units[lun].vol)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices, s.volumes = devs, vols
}
