package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// A target that violates the protocol with a task fails that task, not the
// session, and touches no memory but the task's.
func TestHostileTarget(t *testing.T) {
	tag := func(p pdu.PDU) uint32 { return p.(*pdu.SCSICommand).InitiatorTaskTag }
	for _, tc := range []struct {
		name  string
		write bool
		reply func(c pdu.PDU) []pdu.PDU
		// replayed: the task is not to blame and is carried out in the end.
		replayed bool
	}{
		{"data beyond the buffer", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.DataIn{InitiatorTaskTag: tag(c), TargetTransferTag: pdu.ReservedTag, Final: true, Data: make([]byte, 8192)}}
		}, false},
		{"data far beyond the buffer", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.DataIn{InitiatorTaskTag: tag(c), TargetTransferTag: pdu.ReservedTag, Final: true, BufferOffset: 0xfffffff0, Data: make([]byte, 4096)}}
		}, false},
		{"data with a hole", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.DataIn{InitiatorTaskTag: tag(c), TargetTransferTag: pdu.ReservedTag, Final: true, BufferOffset: 512, Data: make([]byte, 512)}}
		}, false},
		{"data for a write", true, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.DataIn{InitiatorTaskTag: tag(c), TargetTransferTag: pdu.ReservedTag, Final: true, Data: make([]byte, 512)}}
		}, false},
		{"DataSN out of order", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.DataIn{InitiatorTaskTag: tag(c), TargetTransferTag: pdu.ReservedTag, Final: true, DataSN: 1, Data: make([]byte, 512)}}
		}, true},
		{"R2T beyond the buffer", true, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.R2T{InitiatorTaskTag: tag(c), TargetTransferTag: 1, BufferOffset: 4096, DesiredDataTransferLength: 512}}
		}, false},
		{"R2T at the end of numbers", true, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.R2T{InitiatorTaskTag: tag(c), TargetTransferTag: 1, BufferOffset: 0xfffffe00, DesiredDataTransferLength: 0x400}}
		}, false},
		{"R2T above MaxBurstLength", true, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.R2T{InitiatorTaskTag: tag(c), TargetTransferTag: 1, DesiredDataTransferLength: 4096}}
		}, false},
		{"R2T for a read", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.R2T{InitiatorTaskTag: tag(c), TargetTransferTag: 1, DesiredDataTransferLength: 512}}
		}, false},
		{"R2TSN out of order", true, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.R2T{InitiatorTaskTag: tag(c), TargetTransferTag: 1, R2TSN: 3, DesiredDataTransferLength: 512}}
		}, true},
		{"R2T without length", true, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.R2T{InitiatorTaskTag: tag(c), TargetTransferTag: 1}}
		}, true},
		{"response to a tag never issued", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.SCSIResponse{InitiatorTaskTag: tag(c) + 0x5000}}
		}, true},
		{"response to a tag outside of the table", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.SCSIResponse{InitiatorTaskTag: tag(c) | 0xffe}}
		}, true},
		{"StatSN skipped", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.SCSIResponse{InitiatorTaskTag: tag(c), StatSN: 0x7000}}
		}, true},
		{"task management response to a command", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.TaskManagementResponse{InitiatorTaskTag: tag(c)}}
		}, true},
		{"login response", false, func(pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.LoginResponse{}}
		}, true},
		{"initiator opcode", false, func(pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.NOPOut{}}
		}, true},
		{"reject of nothing", false, func(pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.Reject{Reason: pdu.RejectProtocolError}}
		}, true},
		{"too long a segment", false, func(c pdu.PDU) []pdu.PDU {
			return []pdu.PDU{&pdu.DataIn{InitiatorTaskTag: tag(c), TargetTransferTag: pdu.ReservedTag, Final: true, Data: make([]byte, 1<<20)}}
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			var used atomic.Bool
			r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				if !used.CompareAndSwap(false, true) {
					return iscsitest.Pass()
				}
				replies := tc.reply(p)
				if resp, ok := replies[0].(*pdu.SCSIResponse); ok && resp.StatSN != 0 {
					return iscsitest.ReplyAsIs(replies...)
				}
				return iscsitest.Reply(replies...)
			})
			cfg := r.config(t)
			cfg.Params.InitialR2T, cfg.Params.NoImmediateData = true, true
			cfg.Params.MaxBurstLength, cfg.Params.FirstBurstLength = 2048, 2048
			s := r.dial(t, cfg)
			memory := bytes.Repeat([]byte{0xaa}, 3*4096)
			task := readTask(0, 4096)
			task.DataIn = memory[4096:8192:8192]
			if tc.write {
				task = writeTask(0, memory[4096:8192])
			}
			err := s.Do(context.Background(), task)
			if tc.replayed {
				if err == nil {
					err = good(task)
				}
				if err != nil {
					t.Error(err)
				}
			} else {
				is(t, err, initiator.ErrProtocol)
			}
			if !bytes.Equal(memory[:4096], bytes.Repeat([]byte{0xaa}, 4096)) || !bytes.Equal(memory[8192:], memory[:4096]) {
				t.Error("memory around the buffer was written")
			}
			do(t, s, readTask(0, 4096))
			if n := s.Info().Recoveries; n != 1 {
				t.Errorf("%d recoveries, want 1", n)
			}
		})
	}
}

// A target that reports success without having moved the data is not believed.
func TestStatusWithoutDataIsShort(t *testing.T) {
	r := newRig(t, nil)
	r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		return iscsitest.Reply(&pdu.SCSIResponse{InitiatorTaskTag: p.(*pdu.SCSICommand).InitiatorTaskTag})
	})
	cfg := r.config(t)
	cfg.Params.InitialR2T, cfg.Params.NoImmediateData = true, true
	s := r.dial(t, cfg)
	for _, task := range []*initiator.Task{readTask(0, 4096), writeTask(0, make([]byte, 4096))} {
		if err := s.Do(context.Background(), task); err != nil {
			t.Fatal(err)
		}
		if task.Transferred != 0 || task.Residual != 4096 {
			t.Errorf("%d transferred, residual %d", task.Transferred, task.Residual)
		}
	}
}

// Pings without end make the session neither grow nor hang.
func TestFloodOfPings(t *testing.T) {
	r := newRig(t, nil)
	events := make(eventLog, 100)
	cfg := r.config(t)
	cfg.OnEvent = events.add
	s, err := initiator.Dial(context.Background(), cfg) // without rig.dial's check: the pings are not the server's own
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn := r.srv.Conns()[0]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	resume := r.srv.Pause() // it asks, but does not listen
	for i := range 200000 {
		if err := conn.Send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: uint32(i)}, false); err != nil {
			break
		}
	}
	resume()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("%d bytes more", grown)
	}
	do(t, s, readTask(0, 512))
}

// Whatever bytes come in full feature phase, the session neither panics nor hangs.
func FuzzFullFeature(f *testing.F) {
	seed := func(p pdu.PDU) {
		b, err := p.AppendHeader(nil)
		if err != nil {
			f.Fatal(err)
		}
		b[7] = byte(len(p.Payload()))
		b = append(b, p.Payload()...)
		f.Add(b)
	}
	seed(&pdu.DataIn{InitiatorTaskTag: 1 << 12, TargetTransferTag: pdu.ReservedTag, Data: []byte("abcd"), Final: true, HasStatus: true})
	seed(&pdu.DataIn{InitiatorTaskTag: 1 << 12, TargetTransferTag: 5, Data: []byte("abcd"), Final: true, Acknowledge: true})
	seed(&pdu.DataIn{InitiatorTaskTag: 1 << 12, TargetTransferTag: pdu.ReservedTag, DataSN: 2, BufferOffset: 8, Data: []byte("abcd")})
	seed(&pdu.SCSIResponse{InitiatorTaskTag: 1 << 12, StatSN: 3, ExpDataSN: 2})
	seed(&pdu.R2T{InitiatorTaskTag: 1 << 12, TargetTransferTag: 1, R2TSN: 4, DesiredDataTransferLength: 16})
	seed(&pdu.SCSIResponse{InitiatorTaskTag: 1 << 12, Data: []byte{0, 2, 0x70, 0}})
	seed(&pdu.R2T{InitiatorTaskTag: 1 << 12, TargetTransferTag: 1, DesiredDataTransferLength: 16})
	seed(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 1})
	seed(&pdu.AsyncMessage{Event: pdu.AsyncSCSIEvent, Data: []byte{0, 2, 0x70, 0}})
	seed(&pdu.Reject{Reason: pdu.RejectTaskInProgress, Data: make([]byte, 48)})
	seed(&pdu.LogoutResponse{InitiatorTaskTag: 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for level := range 3 {
			answerCommands(t, b, level, 1)
		}
		answerCommands(t, b, 2, 2)
	})
}

// answerCommands has the target of a session of an error recovery level answer
// every command with b.
func answerCommands(t *testing.T, b []byte, level, connections int) {
	r := unstartedRig(t, func(c *iscsitest.Config) {
		c.Params.ErrorRecoveryLevel, c.Params.MaxConnections = uint32(level), uint32(connections)
	})
	r.srv.Handle(pdu.OpSCSICommand, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.ReplyRaw(b) })
	cfg := r.pipeConfig(t)
	cfg.Logger = nil
	cfg.Params.ErrorRecoveryLevel, cfg.Params.MaxConnections = level, connections
	cfg.Params.DefaultTime2Wait = initiator.Immediately
	cfg.Timeouts.Replacement = initiator.Immediately
	if level == 2 {
		cfg.Timeouts.Replacement = 50 * time.Millisecond
	}
	cfg.ReopenMax = 1
	// Where the bytes promise more than comes, the pings find it out.
	cfg.Timeouts.NoopInterval, cfg.Timeouts.NoopTimeout = 20*time.Millisecond, 20*time.Millisecond
	s, err := initiator.Dial(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := newCollector(2)
	submit(s, c, readTask(0, 512))
	submit(s, c, writeTask(0, make([]byte, 512)))
	if err := s.Ping(context.Background()); err != nil && !errors.Is(err, initiator.ErrTransport) && !errors.Is(err, initiator.ErrClosed) {
		var rej *initiator.RejectError
		if !errors.As(err, &rej) && !errors.Is(err, initiator.ErrRecoveryTimeout) && !errors.Is(err, initiator.ErrProtocol) {
			t.Errorf("ping: %v", err)
		}
	}
	s.Close()
	c.wait(t)
	c.wait(t)
	r.srv.Close()
}
