package conformance

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// A temporary redirection is followed at once; after a loss of the connection
// there the login begins at the first address again.
func TestLogin_25_1_TargetMovedTemporarily(t *testing.T) {
	testRedirection(t, pdu.RedirectionTemporary, []string{"192.0.2.1:3260", "192.0.2.7:3333", "192.0.2.1:3260"})
}

// After a permanent one it begins where the target has moved to.
func TestLogin_25_2_TargetMovedPermanently(t *testing.T) {
	testRedirection(t, pdu.RedirectionPermanent, []string{"192.0.2.1:3260", "192.0.2.7:3333", "192.0.2.7:3333"})
}

func testRedirection(t *testing.T, detail uint8, want []string) {
	t.Helper()
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	first := c.loginRequest()
	c.refuse(first, pdu.LoginRedirection, detail, "TargetAddress=192.0.2.7:3333,9")
	c.ended()
	c = st.accept()
	again := c.logIn()
	if again.ISID != first.ISID || again.TSIH != 0 {
		t.Errorf("ISID %x, TSIH %d after the redirection, want %x, 0", again.ISID, again.TSIH, first.ISID)
	}
	s := d.session()
	c.alive(s)
	if i := s.Info(); i.Portal.Address() != "192.0.2.7:3333" || i.Persistent.Host != "192.0.2.1" {
		t.Errorf("at %v, persistent %v", i.Portal, i.Persistent)
	}
	c.nc.Close()
	st.accept().logIn()
	if got := st.addresses(); !slices.Equal(got, want) {
		t.Errorf("connected to %v, want %v", got, want)
	}
}

// Addresses of all forms are understood.
func TestLogin_25_3_RedirectionAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7":            "192.0.2.7:3260",
		"192.0.2.7:1":          "192.0.2.7:1",
		"[2001:db8::7]":        "[2001:db8::7]:3260",
		"[2001:db8::7]:3261,2": "[2001:db8::7]:3261",
		"disk.example.com:99":  "disk.example.com:99",
	} {
		st := newStation(t)
		d := st.dial(st.config())
		c := st.accept()
		c.refuse(c.loginRequest(), pdu.LoginRedirection, pdu.RedirectionTemporary, "TargetAddress="+address)
		st.accept().logIn()
		d.session()
		if got := st.addresses()[1]; got != want {
			t.Errorf("%s: connected to %s", address, got)
		}
	}
}

// Targets that send each other's initiators in circles get no peace, but a bound.
func TestLogin_25_4_RedirectionWithoutEnd(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	n := 0
	for {
		select {
		case nc := <-st.conns:
			c := newConn(st, nc)
			c.refuse(c.loginRequest(), pdu.LoginRedirection, pdu.RedirectionTemporary, fmt.Sprintf("TargetAddress=192.0.2.%d", n%2+1))
			nc.Close()
			if n++; n > 100 {
				t.Fatal("a hundred redirections followed")
			}
			continue
		case <-d.done:
		}
		break
	}
	d.fails(initiator.ErrRedirect)
	if n < 2 {
		t.Errorf("%d logins", n)
	}
}

// A redirection that leads nowhere is an error of the login.
func TestLogin_25_5_RedirectionWithoutAddress(t *testing.T) {
	for name, keys := range map[string][]string{"none": nil, "nonsense": {"TargetAddress=a b c"}, "empty": {"TargetAddress="}} {
		t.Run(name, func(t *testing.T) {
			st := newStation(t)
			d := st.dial(st.config())
			c := st.accept()
			c.refuse(c.loginRequest(), pdu.LoginRedirection, pdu.RedirectionTemporary, keys...)
			d.fails()
			c.ended()
			st.unwanted()
		})
	}
}

// Status class 2 is final: no matter how long the caller would wait, there is one
// attempt, and the error has the status.
func TestLogin_26_1_InitiatorError(t *testing.T) {
	for detail := range uint8(0x0d) {
		t.Run(fmt.Sprintf("detail=%#02x", detail), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newPipeStation(t)
				cfg := st.config()
				cfg.LoginRetryWindow = time.Hour
				d := st.dial(cfg)
				c := st.accept()
				c.refuse(c.loginRequest(), pdu.LoginInitiatorError, detail)
				err := d.fails()
				var status *initiator.LoginError
				if !errors.As(err, &status) || status.Class != 2 || status.Detail != detail {
					t.Errorf("error %v", err)
				}
				if auth := detail == 1 || detail == 2; errors.Is(err, initiator.ErrAuth) != auth {
					t.Errorf("error %v is ErrAuth: %v", err, !auth)
				}
				if gone := detail == 3 || detail == 4; errors.Is(err, initiator.ErrTargetNotFound) != gone {
					t.Errorf("error %v is ErrTargetNotFound: %v", err, !gone)
				}
				c.ended()
				st.unwanted()
			})
		})
	}
}

// Status class 3 may pass: the login is tried again as long as the caller allows.
func TestLogin_26_2_TargetError(t *testing.T) {
	for detail := range uint8(3) {
		t.Run(fmt.Sprintf("detail=%#02x", detail), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newPipeStation(t)
				cfg := st.config()
				cfg.LoginRetryWindow = time.Minute
				d := st.dial(cfg)
				for range 3 {
					c := st.accept()
					c.refuse(c.loginRequest(), pdu.LoginTargetError, detail)
					c.ended()
				}
				st.accept().logIn()
				d.session()
			})
		})
	}
}

// A target that accepts the connection and says nothing more is given up after
// the login timeout.
func TestLogin_27_1_SilentTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		cfg := st.config()
		cfg.Timeouts.Login = 12 * time.Second
		begin := time.Now()
		d := st.dial(cfg)
		c := st.accept()
		c.loginRequest()
		d.fails(initiator.ErrTimeout)
		if took := time.Since(begin); took != 12*time.Second {
			t.Errorf("given up after %v, want 12s", took)
		}
		c.ended()
	})
}

// So is one that answers byte by byte.
func TestLogin_27_2_TricklingTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		cfg := st.config()
		cfg.Timeouts.Login = 12 * time.Second
		d := st.dial(cfg)
		c := st.accept()
		c.loginRequest()
		for range 48 {
			if _, err := c.nc.Write([]byte{byte(pdu.OpLoginResponse)}); err != nil {
				break
			}
			time.Sleep(time.Second) // in the bubble
		}
		d.fails(initiator.ErrTimeout)
	})
}

// A connection that ends within the login is a failed attempt, not more.
func TestLogin_27_3_ConnectionClosedDuringLogin(t *testing.T) {
	for name, half := range map[string][]byte{"at once": nil, "within a PDU": make([]byte, 20)} {
		t.Run(name, func(t *testing.T) {
			st := newStation(t)
			d := st.dial(st.config())
			c := st.accept()
			c.loginRequest()
			if half != nil {
				c.sendRaw(half)
			}
			c.nc.Close()
			d.fails(initiator.ErrTransport)
		})
	}
}
