package conformance

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// levelOne asks for error recovery level 1.
func levelOne(cfg *initiator.Config) { cfg.Params.ErrorRecoveryLevel = 1 }

// snack returns the next PDU, a SNACK, and checks its fields.
func (c *conn) snack(want pdu.SNACK) {
	c.t.Helper()
	got := *expect[*pdu.SNACK](c)
	want.ExpStatSN = got.ExpStatSN
	if got != want {
		c.t.Errorf("%+v, want %+v", got, want)
	}
}

func (c *conn) dataSNACK(cmd *pdu.SCSICommand, from uint32) {
	c.t.Helper()
	c.snack(pdu.SNACK{InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BegRun: from})
}

// A command that the target does not acknowledge is sent again as it was, and no
// other in its place.
func TestFFP_4_1_CommandRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newPipeStation(t).logIn(func(cfg *initiator.Config) {
			levelOne(cfg)
			cfg.Timeouts.NoopInterval, cfg.Timeouts.NoopTimeout = -1, -1
		})
		c.alive(s)
		task := writeTask(pattern(1, 512))
		r := start(t, s, task)
		first := c.command()
		sent := time.Now()
		c.expCmdSN--         // it was lost
		c.wait = time.Minute // the initiator looks every ten seconds, and must see it twice
		again := c.command()
		if after := time.Since(sent); after < 4*time.Second || after > 15*time.Second {
			t.Errorf("sent again after %v", after)
		}
		if again.CmdSN != first.CmdSN || again.InitiatorTaskTag != first.InitiatorTaskTag || again.CDB != first.CDB || string(again.Data) != string(first.Data) {
			t.Errorf("%+v\nin place of\n%+v", again, first)
		}
		c.respond(again)
		r.succeeds()
		c.quiet(s)
	})
}

// A hole in the data is asked for from its beginning on, once for all that comes
// behind it; the data are taken in order, and the status is not acknowledged
// before they are complete.
func TestFFP_13_1_SNACKBegRun(t *testing.T) {
	s, c := operational(t, levelOne)
	task := readTask(2048)
	r := start(t, s, task)
	cmd := c.command()
	data := pattern(3, 2048)
	at := func(sn int) *pdu.DataIn { return dataIn(cmd, uint32(sn), sn*512, data[sn*512:][:512]) }
	last := lastDataIn(cmd, 3, 1536, data[1536:])
	acked := c.statSN
	c.send(at(0), at(2), last)
	c.dataSNACK(cmd, 1)
	c.quiet(s)
	if c.expStatSN != acked {
		t.Error("the status is acknowledged though data is missing")
	}
	c.sendAsIs(at(1), at(2), last)
	r.succeeds()
	same(t, task.DataIn, data)
	c.quiet(s)
	c.alive(s)
	if c.expStatSN == acked {
		t.Error("the status is not acknowledged")
	}
}

// The A bit is answered when the data before it are complete.
func TestFFP_13_2_SNACKDataACK(t *testing.T) {
	s, c := operational(t, levelOne)
	r := start(t, s, readTask(2048))
	cmd := c.command()
	asking := func(sn int) *pdu.DataIn {
		d := dataIn(cmd, uint32(sn), sn*512, make([]byte, 512))
		d.Acknowledge, d.Final, d.LUN, d.TargetTransferTag = true, true, lun1, uint32(70+sn)
		return d
	}
	ack := func(sn int) pdu.SNACK {
		return pdu.SNACK{Type: pdu.SNACKDataACK, LUN: lun1, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: uint32(70 + sn), BegRun: uint32(sn + 1)}
	}
	c.send(asking(0))
	c.snack(ack(0))
	c.send(asking(2)) // with a hole before it
	c.dataSNACK(cmd, 1)
	c.quiet(s)
	c.send(asking(1), asking(2))
	c.snack(ack(1))
	c.snack(ack(2))
	c.send(lastDataIn(cmd, 3, 1536, make([]byte, 512)))
	r.succeeds()
}

// Statuses that are missing are asked for by their numbers, as soon as the target
// shows that there were some; those that have come are not given up for them.
func TestFFP_13_5_StatusSNACK(t *testing.T) {
	s, c := operational(t, levelOne)
	a, b, d := start(t, s, noData()), start(t, s, noData()), start(t, s, noData())
	cmds := []*pdu.SCSICommand{c.command(), c.command(), c.command()}
	var rsps []*pdu.SCSIResponse
	for _, cmd := range cmds {
		r := &pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag}
		c.number(r)
		rsps = append(rsps, r)
	}
	lost := pdu.SNACK{Type: pdu.SNACKStatus, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag, BegRun: rsps[0].StatSN, RunLength: 2}
	c.sendAsIs(rsps[2])
	c.snack(lost)
	c.sendAsIs(rsps[1], rsps[0], rsps[1]) // one of them twice
	a.succeeds()
	b.succeeds()
	d.succeeds()
	c.alive(s)

	// A NOP-In that asks nothing shows it too, and so does the answer to a ping.
	for _, shows := range []func(){
		func() {
			c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag})
		},
		func() { ping(s); c.pong(expect[*pdu.NOPOut](c)) },
	} {
		r := start(t, s, noData())
		rsp := &pdu.SCSIResponse{InitiatorTaskTag: c.command().InitiatorTaskTag}
		c.number(rsp)
		shows()
		c.snack(pdu.SNACK{Type: pdu.SNACKStatus, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag, BegRun: rsp.StatSN, RunLength: 1})
		c.sendAsIs(rsp)
		r.succeeds()
		c.alive(s)
	}
}

// R2Ts that are missing are asked for; one that asks for the same data again gets
// them again.
func TestFFP_13_6_R2TRecovery(t *testing.T) {
	s, c, r, data := write(t, 2048, func(cfg *initiator.Config) {
		levelOne(cfg)
		cfg.Params.MaxOutstandingR2T = 4
	}, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=1024")
	cmd := c.command()
	c.send(r2t(cmd, 1, 11, 1024, 1024))
	c.dataSNACK(cmd, 0)
	c.send(r2t(cmd, 0, 10, 0, 1024), r2t(cmd, 1, 11, 1024, 1024))
	same(t, c.burst(cmd, 10, 0, 1024), data[:1024])
	same(t, c.burst(cmd, 11, 1024, 1024), data[1024:])
	c.send(r2t(cmd, 0, 10, 0, 1024)) // came before
	c.quiet(s)
	c.send(r2t(cmd, 2, 12, 512, 512)) // the recovery R2T
	same(t, c.burst(cmd, 12, 512, 512), data[512:1024])
	c.respond(cmd)
	r.succeeds()
}

// A target that cannot send it again is logged in to again.
func TestFFP_13_7_RejectedSNACK(t *testing.T) {
	s, c := operational(t, levelOne)
	r := start(t, s, replayed(readTask(1024)))
	cmd := c.command()
	c.send(dataIn(cmd, 1, 512, make([]byte, 512)))
	snack := expect[*pdu.SNACK](c)
	h, err := snack.AppendHeader(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.send(&pdu.Reject{Reason: pdu.RejectSNACK, Data: h})
	c.ended()
	c2 := c.st.accept()
	c2.logIn()
	c2.send(lastDataIn(c2.command(), 0, 0, make([]byte, 1024)))
	r.succeeds()
	c2.alive(s)
}
