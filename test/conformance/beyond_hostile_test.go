package conformance

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// hostile carries out a read or write of 1024 bytes in the midst of guarded memory,
// has the target answer it wrongly, and checks that the connection ends, no byte
// around the buffer is touched, and the session goes on. It returns how the task
// ended.
func hostile(t *testing.T, out bool, answer func(c *conn, cmd *pdu.SCSICommand)) error {
	t.Helper()
	memory := bytes.Repeat([]byte{0xaa}, 3*1024)
	task := readTask(1024)
	task.DataIn = memory[1024:2048:2048]
	if out {
		task = writeTask(memory[1024:2048:2048])
	}
	s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.MaxRecvDataSegmentLength = 8192 }, "InitialR2T=Yes", "ImmediateData=No")
	r := start(t, s, task)
	answer(c, c.command())
	if got := c.drained(); len(got) > 0 {
		t.Errorf("the initiator still sends %s", got[0].Opcode())
	}
	c2 := c.st.accept()
	c2.logIn()
	err := r.finished().Err
	c2.alive(s)
	if guard := bytes.Repeat([]byte{0xaa}, 1024); !bytes.Equal(memory[:1024], guard) || !bytes.Equal(memory[2048:], guard) {
		t.Error("memory around the buffer was written")
	}
	return err
}

// A segment longer than was declared is refused by its header: 16 MiB need not be
// sent, nor room made for them.
func TestBeyond_5_1_OversizedSegments(t *testing.T) {
	for name, op := range map[string]pdu.Opcode{
		"Data-In": pdu.OpDataIn, "response": pdu.OpSCSIResponse, "NOP-In": pdu.OpNOPIn, "async": pdu.OpAsyncMessage, "reject": pdu.OpReject, "text": pdu.OpTextResponse,
	} {
		t.Run(name, func(t *testing.T) {
			err := hostile(t, false, func(c *conn, cmd *pdu.SCSICommand) {
				b := c.wire(dataIn(cmd, 0, 0, nil))
				b[0], b[5], b[6], b[7] = byte(op), 0xff, 0xff, 0xff
				c.sendRaw(b)
			})
			is(t, err, initiator.ErrInterrupted)
		})
	}
}

// Data beyond the buffer go nowhere, and the task fails; so do data that were not
// asked for at all.
func TestBeyond_5_2_DataInBeyondTheBuffer(t *testing.T) {
	for name, tc := range map[string]struct {
		out            bool
		offset, length int
	}{
		"too long":             {false, 0, 1028},
		"across the end":       {false, 1020, 8},
		"behind the end":       {false, 1024, 4},
		"far beyond":           {false, 0x7ffffff0, 4096},
		"at the end of 32 bit": {false, 0xfffffff0, 4096},
		"for a write":          {true, 0, 512},
	} {
		t.Run(name, func(t *testing.T) {
			is(t, hostile(t, tc.out, func(c *conn, cmd *pdu.SCSICommand) {
				c.send(lastDataIn(cmd, 0, tc.offset, make([]byte, tc.length)))
			}), initiator.ErrProtocol)
		})
	}
}

// An R2T for a task that is finished is late: nothing is sent, nothing breaks.
func TestBeyond_5_3_R2TForAFinishedTask(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	r := start(t, s, writeTask(make([]byte, 512)))
	cmd := c.command()
	c.send(r2t(cmd, 0, 1, 0, 512))
	c.burst(cmd, 1, 0, 512)
	c.respond(cmd)
	r.succeeds()
	c.send(r2t(cmd, 1, 2, 0, 512))
	c.quiet(s)
	c.alive(s)
	is(t, hostile(t, false, func(c *conn, cmd *pdu.SCSICommand) { // and none for a read
		c.send(r2t(cmd, 0, 1, 0, 512))
	}), initiator.ErrProtocol)
}

// Tags that were never given out end the connection; other tasks are not touched.
func TestBeyond_5_4_UnknownTags(t *testing.T) {
	for name, answer := range map[string]func(c *conn, tag uint32){
		"response": func(c *conn, tag uint32) { c.send(&pdu.SCSIResponse{InitiatorTaskTag: tag}) },
		"Data-In": func(c *conn, tag uint32) {
			c.send(&pdu.DataIn{InitiatorTaskTag: tag, TargetTransferTag: pdu.ReservedTag, Final: true, Data: make([]byte, 8)})
		},
		"R2T": func(c *conn, tag uint32) {
			c.send(&pdu.R2T{InitiatorTaskTag: tag, TargetTransferTag: 1, DesiredDataTransferLength: 8})
		},
		"logout response": func(c *conn, tag uint32) { c.send(&pdu.LogoutResponse{InitiatorTaskTag: tag}) },
		"task management": func(c *conn, tag uint32) { c.send(&pdu.TaskManagementResponse{InitiatorTaskTag: tag}) },
	} {
		t.Run(name, func(t *testing.T) {
			err := hostile(t, false, func(c *conn, cmd *pdu.SCSICommand) { answer(c, cmd.InitiatorTaskTag+0x5000) })
			is(t, err, initiator.ErrInterrupted)
		})
	}
}

// A StatSN that is not the next one, too high or one that was used, ends the
// connection.
func TestBeyond_5_5_WrongStatSN(t *testing.T) {
	for name, delta := range map[string]uint32{"skipped": 1, "far ahead": 0x7000, "used": ^uint32(0), "half around": 1 << 31} {
		t.Run(name, func(t *testing.T) {
			err := hostile(t, false, func(c *conn, cmd *pdu.SCSICommand) {
				c.statSN += delta
				c.respond(cmd)
			})
			is(t, err, initiator.ErrInterrupted)
		})
	}
}

// A response with the status GOOD for data that never moved is not taken for
// success.
func TestBeyond_5_6_StatusWithoutData(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	for _, task := range []*initiator.Task{readTask(4096), writeTask(make([]byte, 4096))} {
		r := start(t, s, task)
		c.respond(c.command())
		if good(r.finished()) == nil || task.Transferred != 0 {
			t.Errorf("%d bytes transferred", task.Transferred)
		}
	}
}

// Text that never ends is cut off: by its length, or by time.
func TestBeyond_5_7_TextThatNeverEnds(t *testing.T) {
	for name, piece := range map[string][]byte{
		"full pieces":  bytes.Repeat([]byte{'x'}, 65536),
		"empty pieces": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newPipeStation(t)
				d := st.discover(nil)
				c := st.accept()
				c.finishLogin(c.loginRequest())
				const most = 4000
				n := 0
				for ; n < most; n++ {
					p, err := c.read()
					if err != nil {
						break
					}
					time.Sleep(10 * time.Millisecond) // in the bubble
					c.send(&pdu.TextResponse{Continue: true, InitiatorTaskTag: p.(*pdu.TextRequest).InitiatorTaskTag, TargetTransferTag: 1, Data: piece})
				}
				if n == most || piece != nil && n > 300 {
					t.Fatalf("still asking after %d pieces", n)
				}
				<-d.done
				if d.err == nil {
					t.Error("no error")
				}
			})
		})
	}
}

// Bytes that are no iSCSI end the connection.
func TestBeyond_5_8_Garbage(t *testing.T) {
	for seed := range byte(8) {
		synctest.Test(t, func(t *testing.T) {
			s, c := newPipeStation(t).logIn(func(cfg *initiator.Config) {
				// A length that looks possible waits for more than comes.
				cfg.Timeouts.NoopInterval, cfg.Timeouts.NoopTimeout = 5*time.Second, 5*time.Second
			})
			r := start(t, s, replayed(noData()))
			c.command()
			c.sendRaw(pattern(seed, 4096))
			c2 := c.st.accept()
			c2.logIn()
			c2.respond(c2.command())
			r.succeeds()
		})
	}
}

// Responses have no additional header segments (RFC 7143 section 11.2).
func TestBeyond_5_9_AdditionalHeaderSegments(t *testing.T) {
	err := hostile(t, false, func(c *conn, cmd *pdu.SCSICommand) {
		b := c.wire(&pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag})
		b[4] = 255
		c.sendRaw(append(b, make([]byte, 255*4)...))
	})
	is(t, err, initiator.ErrInterrupted)
}

// Data-In PDUs without data are of no use and do no harm.
func TestBeyond_5_10_EmptyDataIn(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, readTask(512))
	cmd := c.command()
	for sn := range uint32(1000) {
		c.send(dataIn(cmd, sn, 0, nil))
	}
	data := pattern(5, 512)
	c.send(lastDataIn(cmd, 1000, 0, data))
	r.succeeds()
	same(t, r.DataIn, data)
}

// Data that come twice fill no hole: with unordered data the count alone would
// seem right.
func TestBeyond_5_11_OverlappingDataIn(t *testing.T) {
	s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.UnorderedPDUs = true })
	r := start(t, s, readTask(1024))
	cmd := c.command()
	c.send(dataIn(cmd, 0, 0, make([]byte, 512)), lastDataIn(cmd, 1, 0, make([]byte, 512)))
	if good(r.finished()) == nil {
		t.Error("1024 bytes are taken for read, of which 512 never came")
	}
}
