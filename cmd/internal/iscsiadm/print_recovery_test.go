package iscsiadm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
)

// TestRecoveryIsShown wants what a session has gone through behind what
// open-iscsi prints, and nothing of it where there was nothing.
func TestRecoveryIsShown(t *testing.T) {
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.Local)
	for _, tc := range []struct {
		name   string
		change func(*control.Session)
		want   string
	}{
		{"never lost", func(*control.Session) {}, ""},
		{"recovered", func(s *control.Session) {
			s.Recoveries, s.LastRecovery, s.LastError, s.Outage = 3, at, "connection reset by peer", 0.25
		}, `
		*********
		Recovery:
		*********
		Recoveries: 3
		Last Recovery: ` + at.Format(time.RFC3339) + `
		Last Error: connection reset by peer
		Last Outage: 250ms
`},
		{"one connection of several lost", func(s *control.Session) {
			s.ConnRecoveries, s.LastError = 2, "connection reset by peer"
		}, `
		*********
		Recovery:
		*********
		Recoveries: 0
		Connection Recoveries: 2
		Last Recovery: none
		Last Error: connection reset by peer
		Last Outage: 0s
`},
		{"recovering", func(s *control.Session) {
			s.ConnState, s.SessionState, s.InternalState = "TRANSPORT WAIT", "FAILED", "REOPEN"
			s.LastError, s.Outage, s.FailedLogins = "connection refused", 65.5, 12
		}, `
		*********
		Recovery:
		*********
		Recoveries: 0
		Last Recovery: none
		Last Error: connection refused
		Failed Logins: 12
		Present Outage: 1m5.5s
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			l.mustRun(discovery...)
			l.mustRun("-m", "node", "-T", tg1, "-l")
			healthy := l.mustRun("-m", "session", "-P", "3")
			l.daemon.Update(1, tc.change)
			got := l.mustRun("-m", "session", "-P", "3")
			if !strings.HasSuffix(got, strings.TrimPrefix(tc.want, "\n")) || tc.want == "" && got != healthy {
				t.Errorf("prints\n%s\nwant at its end\n%s", got, tc.want)
			}
			if low := l.mustRun("-m", "session", "-P", "2"); strings.Contains(low, "Recovery:") {
				t.Errorf("-P 2 prints\n%s", low)
			}
		})
	}
}
