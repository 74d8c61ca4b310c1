package daemon

import (
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
)

// connection names the session in the log, in open-iscsi's words.
func (s *supervisor) connection() string {
	return connectionText(s.sid, s.key)
}

// view is the session as listings show it. pending says whether its first
// login is not complete.
func (s *supervisor) view(q control.SessionQuery) control.Session {
	s.mu.Lock()
	p, live, devices, again := s.phase, s.live, slices.Clone(s.devices), s.again
	scan, trouble := s.scanned, s.trouble
	s.mu.Unlock()

	c := &s.set.config
	v := control.Session{
		SID: s.sid, Host: s.host, Target: s.key.Target, TPGT: s.set.tpgt,
		Portal:     control.Portal{Address: s.key.Address, Port: s.key.Port},
		Persistent: control.Portal{Address: s.key.Address, Port: s.key.Port},
		Iface: control.Iface{
			Name: s.key.Iface, Transport: s.set.transport, InitiatorName: c.InitiatorName,
			NetIface: s.set.netIface, HWAddress: s.set.hwAddress,
		},
		Pending: p == phaseLogin || p == phaseScan && !s.restored,
		Timeouts: control.Timeouts{
			Recovery: s.set.recoveryTimeout, TargetReset: s.set.targetResetTimeout,
			LUNReset: s.set.lunResetTimeout, Abort: s.set.abortTimeout,
		},
		CHAP:    chapView(&c.CHAP, q.Secrets),
		Devices: devices,
		Created: s.created,
	}
	if q.Record {
		v.Record = maps.Clone(s.rec)
		if !q.Secrets {
			hideSecrets(v.Record)
		}
	}
	if scan.Total > 0 {
		v.Scan = &scan
	}
	if live == nil {
		v.LastError = trouble
		v.ConnState, v.SessionState, v.InternalState = "IN LOGIN", "FREE", control.InternalNoChange
		if p == phaseRestore {
			v.ConnState, v.SessionState, v.InternalState = "TRANSPORT WAIT", "FAILED", "REOPEN"
			v.Outage, v.FailedLogins = time.Since(again.since).Seconds(), again.failed
			if again.err != nil {
				v.LastError = again.err.Error()
			}
		}
		return v
	}
	i := live.info()
	v.TPGT = i.TPGT
	if i.Portal.Host != "" {
		v.Portal = control.Portal{Address: i.Portal.Host, Port: int(i.Portal.Port)}
	}
	if a, ok := i.LocalAddr.(*net.TCPAddr); ok {
		v.LocalAddress = a.AddrPort().Addr().Unmap().String()
	}
	v.ConnState = connWord(i.ConnState)
	v.SessionState, v.InternalState = sessionWords(i.State)
	if p == phaseLogout {
		v.ConnState, v.InternalState = "IN LOGOUT", "CLEANUP"
	}
	v.Negotiated = negotiatedView(&i.Negotiated)
	v.Recoveries, v.LastRecovery = int(i.Recoveries), i.LastRecovery
	v.ConnRecoveries = int(i.ConnectionRecoveries)
	v.Outage, v.FailedLogins = i.Outage.Seconds(), i.Attempts
	if i.LastError != nil {
		v.LastError = i.LastError.Error()
	}
	for n := range devices {
		devices[n].State = shownState(devices[n].State, i.State)
	}
	return v
}

// connWord is open-iscsi's word for the state of a connection.
func connWord(c initiator.ConnState) string {
	switch c {
	case initiator.ConnWait, initiator.ConnConnecting:
		return "TRANSPORT WAIT"
	case initiator.ConnLoggingIn:
		return "IN LOGIN"
	case initiator.ConnLoggedIn:
		return control.ConnLoggedIn
	case initiator.ConnLogoutRequested:
		return "LOGOUT REQUESTED"
	case initiator.ConnLoggingOut:
		return "IN LOGOUT"
	}
	return "FREE"
}

// sessionWords are open-iscsi's words for the state of a session, the
// kernel's and the daemon's.
func sessionWords(s initiator.SessionState) (session, internal string) {
	switch s {
	case initiator.StateLoggedIn:
		return control.SessionLoggedIn, control.InternalNoChange
	case initiator.StateLoggingIn, initiator.StateReconnecting, initiator.StateFailed:
		return "FAILED", "REOPEN"
	case initiator.StateLoggingOut:
		return control.SessionLoggedIn, "CLEANUP"
	}
	return "FREE", "CLEANUP"
}

func chapView(c *initiator.CHAP, secrets bool) *control.CHAP {
	v := &control.CHAP{Username: c.Username, PasswordSet: c.Password != "", UsernameIn: c.UsernameIn, PasswordInSet: c.PasswordIn != ""}
	if secrets {
		v.Password, v.PasswordIn = c.Password.Reveal(), c.PasswordIn.Reveal()
	}
	return v
}

func hideSecrets(rec map[string]string) {
	for name := range rec {
		if strings.HasSuffix(name, ".password") || strings.HasSuffix(name, ".password_in") {
			delete(rec, name)
		}
	}
}

func negotiatedView(p *initiator.Params) *control.Negotiated {
	digest := func(d []initiator.Digest) string {
		if len(d) == 0 {
			return initiator.DigestNone.String()
		}
		return d[0].String()
	}
	return &control.Negotiated{
		HeaderDigest: digest(p.HeaderDigest), DataDigest: digest(p.DataDigest),
		MaxRecvDataSegmentLength: p.MaxRecvDataSegmentLength, MaxXmitDataSegmentLength: p.MaxXmitDataSegmentLength,
		FirstBurstLength: p.FirstBurstLength, MaxBurstLength: p.MaxBurstLength,
		ImmediateData: !p.NoImmediateData, InitialR2T: p.InitialR2T,
		MaxOutstandingR2T: p.MaxOutstandingR2T, MaxConnections: p.MaxConnections,
		DefaultTime2Wait: int(p.DefaultTime2Wait.Seconds()), DefaultTime2Retain: int(p.DefaultTime2Retain.Seconds()),
	}
}
