package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// openTrace opens a trace that ends with the test.
func openTrace(t *testing.T, s *initiator.Session, o initiator.TraceOptions) *initiator.Trace {
	t.Helper()
	tr, err := s.Trace(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

// nextOf returns the next traced PDU that was sent or received and has the opcode.
func nextOf(t *testing.T, tr *initiator.Trace, sent bool, op pdu.Opcode) initiator.TracedPDU {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		p, err := tr.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %v: %v", op, err)
		}
		if p.Sent == sent && pdu.Opcode(p.Bytes[0]&0x3f) == op {
			return p
		}
	}
}

func TestTraceHasWholePDUs(t *testing.T) {
	for _, digest := range []initiator.Digest{initiator.DigestNone, initiator.DigestCRC32C} {
		t.Run(digest.String(), func(t *testing.T) {
			r := newRig(t, nil)
			cfg := r.config(t)
			cfg.Params.HeaderDigest = []initiator.Digest{digest}
			cfg.Params.DataDigest = []initiator.Digest{digest}
			s := r.dial(t, cfg)
			tr := openTrace(t, s, initiator.TraceOptions{})
			data := pattern(1, 1<<10)
			do(t, s, writeTask(4096, data))
			do(t, s, readTask(4096, 1<<10))

			cmd := nextOf(t, tr, true, pdu.OpSCSICommand)
			if want := pdu.BHSLen + len(data); len(cmd.Bytes) != want || !bytes.Equal(cmd.Bytes[pdu.BHSLen:], data) {
				t.Errorf("command of %d bytes, want %d with immediate data and no digest", len(cmd.Bytes), want)
			}
			if cmd.Local == nil || cmd.Remote.String() != r.srv.Portal() || cmd.Conn != 1 || cmd.Time.IsZero() {
				t.Errorf("%+v: want the first connection with its ends and a time", cmd)
			}
			nextOf(t, tr, false, pdu.OpSCSIResponse)
			nextOf(t, tr, true, pdu.OpSCSICommand)
			in := nextOf(t, tr, false, pdu.OpDataIn)
			if !bytes.Equal(in.Bytes[pdu.BHSLen:], data) {
				t.Error("the Data-In PDU has other data")
			}
			if tr.Dropped() != 0 {
				t.Errorf("%d dropped", tr.Dropped())
			}
		})
	}
}

func TestTraceIsOneAtATime(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	tr := openTrace(t, s, initiator.TraceOptions{})
	if _, err := s.Trace(initiator.TraceOptions{}); !errors.Is(err, initiator.ErrTraced) {
		t.Errorf("second trace: %v, want ErrTraced", err)
	}
	tr.Close()
	openTrace(t, s, initiator.TraceOptions{})
}

func TestTraceEndsWithItsSession(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	tr := openTrace(t, s, initiator.TraceOptions{})
	if err := s.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	nextOf(t, tr, true, pdu.OpLogoutRequest)
	nextOf(t, tr, false, pdu.OpLogoutResponse)
	if _, err := tr.Next(t.Context()); err != io.EOF {
		t.Errorf("Next: %v, want io.EOF", err)
	}
	if _, err := s.Trace(initiator.TraceOptions{}); !errors.Is(err, initiator.ErrClosed) {
		t.Errorf("trace of an ended session: %v, want ErrClosed", err)
	}
}

func TestSlowTraceDropsAndHoldsNobodyUp(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	const memory = 64 << 10
	tr := openTrace(t, s, initiator.TraceOptions{Memory: memory})
	for range 20 {
		do(t, s, readTask(0, 32<<10)) // nobody calls Next
	}
	if tr.Dropped() == 0 {
		t.Error("nothing dropped of ten times what the trace may keep")
	}
	tr.Close()
	kept := 0
	for {
		p, err := tr.Next(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kept += len(p.Bytes)
	}
	if kept == 0 || kept > memory {
		t.Errorf("%d bytes kept, want some and at most %d", kept, memory)
	}
}

func TestTraceFollowsARecoveryAndHidesSecrets(t *testing.T) {
	creds := iscsitest.CHAP{Username: "user", Password: "secretsecret12", MutualUsername: "tgt", MutualPassword: "othersecret123"}
	r := newRig(t, func(c *iscsitest.Config) { c.Targets[0].CHAP = creds })
	cfg := r.config(t)
	cfg.CHAP = initiator.CHAP{Username: "user", Password: "secretsecret12", UsernameIn: "tgt", PasswordIn: "othersecret123"}
	s := r.dial(t, cfg)
	tr := openTrace(t, s, initiator.TraceOptions{})
	r.srv.DropConnections()
	do(t, s, readTask(0, 512))

	responses := 0
	for _, sent := range []bool{true, false} {
		for {
			op := pdu.OpLoginResponse
			if sent {
				op = pdu.OpLoginRequest
			}
			p := nextOf(t, tr, sent, op)
			if p.Conn != 2 {
				t.Errorf("login on connection %d, want 2", p.Conn)
			}
			_, value, ok := bytes.Cut(p.Bytes[pdu.BHSLen:], []byte("CHAP_R="))
			if !ok {
				continue
			}
			value, _, _ = bytes.Cut(value, []byte{0})
			if len(bytes.Trim(value, "*")) != 0 || len(value) < 16 {
				t.Errorf("CHAP_R=%q is not masked", value)
			}
			responses++
			break
		}
	}
	if responses != 2 {
		t.Errorf("%d responses, want one of each side", responses)
	}
	nextOf(t, tr, true, pdu.OpSCSICommand)
}
