package iscsitest_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// once returns a handler that acts on the first PDU only.
func once(a iscsitest.Action) iscsitest.Handler {
	done := false
	return func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		if done {
			return iscsitest.Pass()
		}
		done = true
		return a
	}
}

func TestDropRequest(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	srv.Handle(pdu.OpSCSICommand, once(iscsitest.Drop()))
	lost, next := c.command(1, scsi.TestUnitReady, 0), c.command(1, scsi.TestUnitReady, 0)
	c.send(lost, next)
	// It is as if it had never come: the next one waits for it.
	c.send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: c.tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.expStat})
	expect[*pdu.NOPIn](c)
	if c.lastExp != lost.CmdSN {
		t.Errorf("ExpCmdSN %d, want %d", c.lastExp, lost.CmdSN)
	}
	lost.ExpStatSN = c.expStat
	c.send(lost)
	c.outcome(lost).good(t)
	c.outcome(next).good(t)
	noViolations(t, srv)
}

func TestDropResponse(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	srv.Handle(pdu.OpSCSIResponse, once(iscsitest.Drop()))
	c.send(c.command(1, scsi.TestUnitReady, 0))
	c.expStat++ // its StatSN is used up
	c.in(1, scsi.TestUnitReady, 0).good(t)
}

func TestDelayLetsOthersPass(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv, kv("InitialR2T", "No"), kv("FirstBurstLength", "4096"))
	release := make(chan struct{})
	srv.Handle(pdu.OpSCSICommand, once(iscsitest.Delay(release)))
	// A write with unsolicited data, which come while it is held up.
	data := pattern(4096, 4)
	slow := c.command(1, writeCDB(0, 8), 4096)
	slow.Write, slow.Final = true, false
	c.send(slow)
	c.sendSequence(slow, pdu.ReservedTag, data, 0, 4096, 1024)
	c.in(1, scsi.TestUnitReady, 0).good(t)
	close(release)
	c.outcome(slow).good(t)
	if o := c.in(1, readCDB(0, 8), 4096).good(t); !bytes.Equal(o.data, data) {
		t.Error("the data of the delayed write are lost")
	}
	noViolations(t, srv)
}

func TestDelayedCommandCanBeAborted(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	release := make(chan struct{})
	defer close(release)
	srv.Handle(pdu.OpSCSICommand, once(iscsitest.Delay(release)))
	slow := c.command(1, scsi.TestUnitReady, 0)
	c.send(slow)
	if got := c.manage(pdu.TaskAbortTask, 1, slow); got != pdu.TaskFunctionComplete {
		t.Errorf("abort: %v", got)
	}
	c.in(1, scsi.TestUnitReady, 0).good(t)
	if n := c.maxCmd - c.lastExp + 1; n != 128 {
		t.Errorf("a window of %d is left", n)
	}
}

func TestDelayedCommandEndsWithItsConnection(t *testing.T) {
	srv, lun := newServer(t, nil)
	held := make(chan *iscsitest.Conn, 1)
	srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action {
		held <- c
		return iscsitest.Delay(c.Done())
	})
	for range 50 {
		c := login(t, srv)
		p := c.command(1, writeCDB(0, 1), 512)
		p.Write, p.Data = true, pattern(512, 1)
		c.send(p)
		conn := <-held
		c.send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: c.tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.expStat})
		expect[*pdu.NOPIn](c) // the command is held up by now
		conn.Close()
	}
	srv.Close()
	got := make([]byte, 512)
	if _, err := lun.Store.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, 512)) {
		t.Errorf("it was executed: %v", err)
	}
}

func TestDelayFor(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	srv.Handle(pdu.OpSCSICommand, once(iscsitest.DelayFor(time.Millisecond)))
	c.in(1, scsi.TestUnitReady, 0).good(t)
}

func TestReply(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		return iscsitest.Reply(&pdu.SCSIResponse{InitiatorTaskTag: p.(*pdu.SCSICommand).InitiatorTaskTag, Status: 0x28})
	})
	for range 200 { // more than the window
		if o := c.in(1, scsi.TestUnitReady, 0); o.status != scsi.StatusTaskSetFull {
			t.Fatalf("status %v", o.status)
		}
	}
	srv.Handle(pdu.OpSCSICommand, nil)
	c.in(1, scsi.TestUnitReady, 0).good(t)
	noViolations(t, srv)
}

func TestChangeResponse(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	srv.Handle(pdu.OpDataIn, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		p.(*pdu.DataIn).BufferOffset = 4711
		return iscsitest.Pass()
	})
	p := c.command(1, readCDB(0, 1), 512)
	p.Read = true
	c.send(p)
	if d := expect[*pdu.DataIn](c); d.BufferOffset != 4711 {
		t.Errorf("buffer offset %d", d.BufferOffset)
	}
}

func TestReplyRawAndAsIs(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	nop := &pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag, StatSN: 1, ExpCmdSN: 2, MaxCmdSN: 3}
	raw, err := nop.AppendHeader(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []iscsitest.Action{iscsitest.ReplyAsIs(nop), iscsitest.ReplyRaw(raw)} {
		srv.Handle(pdu.OpSCSICommand, once(a))
		c.send(c.command(1, scsi.TestUnitReady, 0))
		if got := expect[*pdu.NOPIn](c); got.StatSN != 1 || got.ExpCmdSN != 2 || got.MaxCmdSN != 3 {
			t.Errorf("nop-in %+v", got)
		}
	}
}

func TestEndConnection(t *testing.T) {
	for name, a := range map[string]iscsitest.Action{"close": iscsitest.CloseConn(), "reset": iscsitest.ResetConn()} {
		for _, op := range []pdu.Opcode{pdu.OpSCSICommand, pdu.OpSCSIResponse} {
			t.Run(name+" "+op.String(), func(t *testing.T) {
				srv, _ := newServer(t, nil)
				c := login(t, srv)
				srv.Handle(op, once(a))
				c.send(c.command(1, scsi.TestUnitReady, 0))
				c.closed()
				login(t, srv).in(1, scsi.TestUnitReady, 0).good(t)
			})
		}
	}
}

func TestBadDigests(t *testing.T) {
	srv, _ := newServer(t, nil)
	keys := []pdu.KeyValue{kv("HeaderDigest", "CRC32C"), kv("DataDigest", "CRC32C")}
	c := login(t, srv, keys...)
	var de *pdu.DigestError
	srv.Handle(pdu.OpDataIn, once(iscsitest.BadDataDigest()))
	p := c.command(1, readCDB(0, 1), 512)
	p.Read = true
	c.send(p)
	if _, err := c.tryRecv(); !errors.As(err, &de) || de.Header {
		t.Errorf("received with %v", err)
	}
	c.expStat++
	srv.Handle(pdu.OpSCSIResponse, once(iscsitest.BadHeaderDigest()))
	c.send(c.command(1, scsi.TestUnitReady, 0))
	if _, err := c.tryRecv(); !errors.As(err, &de) || !de.Header {
		t.Errorf("received with %v", err)
	}
}

func TestTruncate(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	srv.Handle(pdu.OpDataIn, once(iscsitest.Truncate()))
	p := c.command(1, readCDB(0, 1), 512)
	p.Read = true
	c.send(p)
	c.closed()
}

func TestDropAndResetConnections(t *testing.T) {
	srv, _ := newServer(t, nil)
	for _, end := range []func(){srv.DropConnections, srv.ResetConnections} {
		c := login(t, srv)
		end()
		c.closed()
	}
}

func TestPause(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	resume := srv.Pause()
	p := c.command(1, scsi.TestUnitReady, 0)
	c.send(p)
	if err := c.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nc.Read(make([]byte, 1)); err == nil {
		t.Fatal("a paused server answers")
	}
	if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	resume()
	resume()
	c.outcome(p).good(t)
}

func TestCloseWhilePaused(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	srv.Pause()
	c.send(c.command(1, scsi.TestUnitReady, 0))
	srv.Close()
	srv.Close()
	c.closed()
}

func TestStopListening(t *testing.T) {
	srv, _ := newServer(t, nil)
	addr := srv.Portal()
	c := login(t, srv)
	srv.StopListening()
	c.in(1, scsi.TestUnitReady, 0).good(t)
	if _, err := srv.Listen(addr); err != nil {
		t.Fatal(err)
	}
	login(t, srv).in(1, scsi.TestUnitReady, 0).good(t)
	srv.Close()
	if _, err := srv.Listen(addr); !errors.Is(err, iscsitest.ErrServerClosed) {
		t.Errorf("Listen after Close: %v", err)
	}
}

func TestCounters(t *testing.T) {
	srv, lun := newServer(t, nil)
	c := login(t, srv)
	c.in(1, readCDB(0, 1), 512).good(t)
	c.in(1, readCDB(0, 1), 512).good(t)
	if srv.Received(pdu.OpSCSICommand) != 2 || srv.Sent(pdu.OpDataIn) != 2 || srv.Received(pdu.OpLoginRequest) != 1 ||
		lun.Commands() != 2 || srv.Accepted() != 1 {
		t.Error("counters are wrong")
	}
}
