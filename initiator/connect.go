package initiator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/goiscsi/goiscsi/pdu"
)

// A Target is a disk and the way to it: what Connect needs to know. Name,
// Portals and InitiatorName are required; the zero value of everything else is a
// usable default.
type Target struct {
	// Name is the iSCSI name of the target, "iqn.2016-01-com.example:storage".
	Name string

	// Portals are where the target is reached. Connect tries them in this order
	// and stays with the first that lets us in.
	Portals []Portal

	// LUN is the number of the logical unit, as the target's administrator and
	// the kernel have it (pdu.LUNFromNumber).
	LUN uint64

	// InitiatorName is our own iSCSI name.
	InitiatorName string

	// CHAP holds the credentials; the zero value is no authentication.
	CHAP CHAP

	// NetIface is the network interface to go through, "" for any. See
	// TCP.NetIface.
	NetIface string

	// Session is everything else about the session. The fields InitiatorName,
	// Target, Portal, CHAP and TCP.NetIface are set from those above.
	Session Config

	// Volume is everything else about the disk, for example what it must be.
	Volume VolumeOptions
}

// String returns the name, the portals and the LUN, and no secret.
func (t Target) String() string {
	at := make([]string, len(t.Portals))
	for i, p := range t.Portals {
		at[i] = p.Address()
	}
	return fmt.Sprintf("%s LUN %d at %s", t.Name, t.LUN, strings.Join(at, ", "))
}

// Config returns what Dial needs to reach the target at one of its portals.
func (t Target) Config(at Portal) Config {
	c := t.Session
	c.InitiatorName, c.Target, c.Portal, c.CHAP = t.InitiatorName, t.Name, at, t.CHAP
	if t.NetIface != "" {
		c.TCP.NetIface = t.NetIface
	}
	return c
}

// Connect logs in to a target and opens its disk: one call for the common case.
// Volume.Disconnect undoes it. The end of ctx ends the attempts; it has no effect
// on the volume once Connect has returned.
//
// The error is one of Dial or Session.OpenVolume, or all of them where several
// portals were tried.
func Connect(ctx context.Context, t Target) (*Volume, error) {
	s, err := DialAny(ctx, t)
	if err != nil {
		return nil, err
	}
	v, err := s.OpenVolumeWith(ctx, pdu.LUNFromNumber(t.LUN), t.Volume)
	if err != nil {
		// The session is of no use to anybody. An orderly logout is tried
		// even if ctx has ended; the session bounds it.
		_ = s.Logout(context.WithoutCancel(ctx))
		return nil, err
	}
	return v, nil
}

// DialAny logs in to a target at the first of its portals that lets us in. It is
// Dial for a Target, whose LUN and Volume it does not look at. A portal that
// refuses our credentials is the last one that is tried: the others would, too,
// and some targets lock an account out after a few attempts.
func DialAny(ctx context.Context, t Target) (*Session, error) {
	if len(t.Portals) == 0 {
		return nil, &ConfigError{Field: "Portals", Reason: "missing"}
	}
	var failed portalErrors
	for _, p := range t.Portals {
		s, err := Dial(ctx, t.Config(p))
		if err == nil {
			return s, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil || errors.Is(err, ErrAuth) || errors.Is(err, ErrInvalid) {
			break
		}
	}
	if len(failed) == 1 {
		return nil, failed[0]
	}
	return nil, failed
}

// portalErrors are why the portals of a target could not be used, in the order
// in which they were tried.
type portalErrors []error

func (e portalErrors) Error() string {
	text := make([]string, len(e))
	for i, err := range e {
		text[i] = err.Error()
	}
	return strings.Join(text, "; ")
}

func (e portalErrors) Unwrap() []error { return e }

// ISCSICode returns the code of the last attempt: a refusal says more than the
// portals that could not be reached before it.
func (e portalErrors) ISCSICode() Code { return ErrorCode(e[len(e)-1]) }
