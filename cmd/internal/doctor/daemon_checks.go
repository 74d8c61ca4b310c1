package doctor

import (
	"fmt"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator/manager"
)

// daemon asks iscsid how it and its sessions are.
func (e *examination) daemon() {
	const check = "iscsid"
	v, err := e.Daemon.Version(e.ctx)
	switch {
	case manager.IsNotRunning(err):
		automatic := 0
		for _, n := range e.nodes {
			if n.Startup() != "manual" {
				automatic++
			}
		}
		advice := "systemctl enable --now iscsid.socket, or run iscsid"
		if automatic > 0 {
			e.problem(check, "does not run, and "+plural(automatic, "record")+" should be logged in to at boot", advice)
		} else {
			e.note(check, "does not run", advice)
		}
		return
	case err != nil:
		e.problem(check, err.Error(), "restart iscsid; disks in use wait for it")
		return
	case v.Version != e.Version:
		e.warning(check, fmt.Sprintf("is release %s, iscsiadm %s", v.Version, e.Version), "systemctl restart iscsid; disks in use wait for it")
	default:
		e.ok(check, "runs as process %d, release %s", v.PID, v.Version)
	}
	wanted := e.attach() != "socket" && e.attach() != "none"
	if in, err := e.Daemon.Initiator(e.ctx); err == nil && !in.NBD && wanted {
		e.warning(check, "it cannot make block devices: no nbd driver, or not enough rights", "run it as root; see the check of the kernel's driver")
	}
	l, err := e.Daemon.Sessions(e.ctx, control.SessionQuery{})
	if err != nil {
		e.problem("sessions", err.Error(), "")
		return
	}
	e.sessions(l)
}

// sessions looks at the state of each.
func (e *examination) sessions(l []control.Session) {
	const check = "sessions"
	bad := 0
	for i := range l {
		s := &l[i]
		who := fmt.Sprintf("session %d to %s", s.SID, s.Target)
		if s.SessionState != control.SessionLoggedIn {
			bad++
			text := who + " is " + s.ConnState
			if s.LastError != "" {
				text += ": " + s.LastError
			}
			e.problem(check, text, "see whether the target and the network to "+hostPort(s.Portal.Address, s.Portal.Port)+" are well; the session logs in again by itself")
		}
		for j := range s.Devices {
			if d := &s.Devices[j]; d.Error != "" {
				bad++
				e.problem(check, fmt.Sprintf("%s: logical unit %d is not offered: %s", who, d.LUN, d.Error), fmt.Sprintf("iscsiadm -m session -r %d --rescan tries again", s.SID))
			}
		}
		if s.Recoveries > 0 {
			e.note(check, fmt.Sprintf("%s lost its connection and recovered, %s since %s", who, times(s.Recoveries), s.Created.Format("2006-01-02 15:04")), "the log of iscsid says when and why")
		}
	}
	switch {
	case bad > 0:
	case len(l) == 0:
		e.ok(check, "none")
	default:
		e.ok(check, "%s, all logged in", plural(len(l), "session"))
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
