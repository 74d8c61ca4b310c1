package iscsitest_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// write sends a WRITE by the rules of the negotiated parameters and returns
// its outcome: immediate data, then unsolicited, then what R2Ts ask for.
func (c *client) write(lba uint64, data []byte, immediate, unsolicited, segment int) outcome {
	c.t.Helper()
	p := c.command(1, writeCDB(lba, uint32(len(data)/512)), len(data))
	p.Write = true
	p.Data = data[:min(immediate, len(data))]
	first := min(unsolicited, len(data))
	p.Final = first <= len(p.Data)
	c.send(p)
	c.sendSequence(p, pdu.ReservedTag, data, len(p.Data), first, segment)
	for {
		switch r := c.recv().(type) {
		case *pdu.R2T:
			if r.InitiatorTaskTag != p.InitiatorTaskTag || r.LUN != p.LUN {
				c.t.Fatalf("r2t %+v", r)
			}
			end := int(r.BufferOffset + r.DesiredDataTransferLength)
			c.sendSequence(p, r.TargetTransferTag, data, int(r.BufferOffset), end, segment)
		case *pdu.SCSIResponse:
			return outcome{
				status: scsi.Status(r.Status), overflow: r.Overflow, underflow: r.Underflow, residual: r.ResidualCount,
			}
		default:
			c.t.Fatalf("received %#v", r)
		}
	}
}

// sendSequence sends data[from:to] in Data-Out PDUs.
func (c *client) sendSequence(p *pdu.SCSICommand, ttt uint32, data []byte, from, to, segment int) {
	c.t.Helper()
	for sn := uint32(0); from < to; sn++ {
		n := min(segment, to-from)
		d := &pdu.DataOut{
			Final: from+n == to, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: ttt, ExpStatSN: c.expStat,
			DataSN: sn, BufferOffset: uint32(from), Data: data[from : from+n],
		}
		if ttt != pdu.ReservedTag {
			d.LUN = p.LUN
		}
		c.send(d)
		from += n
	}
}

// TestReadBackWhatWasWritten goes through the ways in which data can travel.
func TestReadBackWhatWasWritten(t *testing.T) {
	for _, digest := range []string{"None", "CRC32C"} {
		for _, initialR2T := range []string{"Yes", "No"} {
			for _, immediateData := range []string{"Yes", "No"} {
				for _, r2ts := range []string{"1", "4"} {
					name := fmt.Sprintf("digest=%s/InitialR2T=%s/ImmediateData=%s/MaxOutstandingR2T=%s", digest, initialR2T, immediateData, r2ts)
					t.Run(name, func(t *testing.T) {
						srv, _ := newServer(t, func(c *iscsitest.Config) { c.Params.MaxRecvDataSegmentLength = 3000 })
						c := login(t, srv,
							kv("HeaderDigest", digest), kv("DataDigest", digest), kv("InitialR2T", initialR2T),
							kv("ImmediateData", immediateData), kv("MaxOutstandingR2T", r2ts),
							kv("FirstBurstLength", "8192"), kv("MaxBurstLength", "20000"), kv("MaxRecvDataSegmentLength", "5000"))
						for i, n := range []int{512, 1024, 8192, 8704, 65536, 200 * 512} {
							immediate, unsolicited := 0, 0
							if immediateData == "Yes" {
								immediate = 2048
							}
							if initialR2T == "No" {
								unsolicited = 8192
							}
							data := pattern(n, byte(i))
							c.write(uint64(i), data, immediate, unsolicited, 3000).good(t)
							o := c.in(1, readCDB(uint64(i), uint32(n/512)), n).good(t)
							if !bytes.Equal(o.data, data) {
								t.Fatalf("%d bytes read back differ", n)
							}
							if want := dataIns(n, 5000, 20000); o.pdus != want {
								t.Errorf("%d bytes came in %d data-in, expected %d", n, o.pdus, want)
							}
						}
						noViolations(t, srv)
					})
				}
			}
		}
	}
}

// dataIns counts the Data-In PDUs of a read.
func dataIns(n, segment, burst int) int {
	count := 0
	for n > 0 {
		b := min(n, burst)
		count += (b + segment - 1) / segment
		n -= b
	}
	return count
}

func TestDataInFlags(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv, kv("MaxRecvDataSegmentLength", "512"), kv("MaxBurstLength", "1024"))
	p := c.command(1, readCDB(0, 5), 5*512)
	p.Read = true
	c.send(p)
	for i, final := range []bool{false, true, false, true, true} {
		d := expect[*pdu.DataIn](c)
		if d.Final != final || d.HasStatus != (i == 4) || d.TargetTransferTag != pdu.ReservedTag {
			t.Errorf("data-in %d: %+v", i, d)
		}
	}
}

func TestSeparateStatus(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) { c.Params.SeparateStatus = true })
	c := login(t, srv)
	p := c.command(1, readCDB(0, 2), 1024)
	p.Read = true
	c.send(p)
	if d := expect[*pdu.DataIn](c); d.HasStatus || !d.Final || len(d.Data) != 1024 {
		t.Errorf("data-in %+v", d)
	}
	if r := expect[*pdu.SCSIResponse](c); r.Status != 0 || r.ExpDataSN != 1 {
		t.Errorf("response %+v", r)
	}
}

func TestResiduals(t *testing.T) {
	tests := []struct {
		blocks, edtl        int
		overflow, underflow bool
		residual            uint32
	}{
		{2, 1024, false, false, 0},
		{2, 1500, false, true, 476},
		{2, 512, true, false, 512},
		{0, 512, false, true, 512},
		{2, 0, true, false, 1024},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("blocks=%d/expected=%d", tt.blocks, tt.edtl), func(t *testing.T) {
			srv, _ := newServer(t, nil)
			c := login(t, srv, kv("MaxRecvDataSegmentLength", "512"))
			check := func(o outcome) {
				t.Helper()
				if o.overflow != tt.overflow || o.underflow != tt.underflow || o.residual != tt.residual {
					t.Errorf("residual %+v", o)
				}
			}
			o := c.in(1, readCDB(0, uint32(tt.blocks)), tt.edtl).good(t)
			check(o)
			if want := min(tt.blocks*512, tt.edtl); len(o.data) != want {
				t.Errorf("%d bytes came, expected %d", len(o.data), want)
			}
			check(c.out(1, writeCDB(0, uint32(tt.blocks)), pattern(tt.edtl, 1)).good(t))
			noViolations(t, srv)
		})
	}
}

// TestDataOutViolations has one write for each rule about data.
func TestDataOutViolations(t *testing.T) {
	// Every write is of 4096 bytes with FirstBurstLength 2048, segments of
	// 1024, and unsolicited data allowed unless the test says otherwise.
	tests := []struct {
		name string
		keys []pdu.KeyValue
		run  func(c *client, p *pdu.SCSICommand)
		rule string
	}{
		{"immediate data not allowed", []pdu.KeyValue{kv("ImmediateData", "No")}, func(c *client, p *pdu.SCSICommand) {
			p.Data = make([]byte, 512)
			c.send(p)
		}, "ImmediateData=No"},
		{"unsolicited data not allowed", []pdu.KeyValue{kv("InitialR2T", "Yes")}, func(c *client, p *pdu.SCSICommand) {
			p.Final = false
			c.send(p)
			c.sendSequence(p, pdu.ReservedTag, make([]byte, 2048), 0, 2048, 1024)
		}, "InitialR2T=Yes"},
		{"first burst too long", nil, func(c *client, p *pdu.SCSICommand) {
			p.Final = false
			c.send(p)
			c.sendSequence(p, pdu.ReservedTag, make([]byte, 4096), 0, 3072, 1024)
		}, "exceed FirstBurstLength"},
		{"first burst too short", nil, func(c *client, p *pdu.SCSICommand) {
			p.Final = false
			c.send(p)
			c.sendSequence(p, pdu.ReservedTag, make([]byte, 4096), 0, 1024, 1024)
		}, "expected 2048"},
		{"DataSN", nil, func(c *client, p *pdu.SCSICommand) {
			p.Final = false
			c.send(p, &pdu.DataOut{
				Final: true, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag,
				ExpStatSN: c.expStat, DataSN: 1, Data: make([]byte, 2048),
			})
		}, "DataSN 1, expected 0"},
		{"buffer offset", nil, func(c *client, p *pdu.SCSICommand) {
			p.Final = false
			c.send(p, &pdu.DataOut{
				Final: true, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag,
				ExpStatSN: c.expStat, BufferOffset: 512, Data: make([]byte, 1536),
			})
		}, "buffer offset 512, expected 0"},
		{"more than the r2t asks for", nil, func(c *client, p *pdu.SCSICommand) {
			c.send(p)
			r := expect[*pdu.R2T](c)
			c.sendSequence(p, r.TargetTransferTag, make([]byte, 8192), 0, 4608, 512)
		}, "exceed what the r2t asks for"},
		{"less than the r2t asks for", nil, func(c *client, p *pdu.SCSICommand) {
			c.send(p)
			r := expect[*pdu.R2T](c)
			c.sendSequence(p, r.TargetTransferTag, make([]byte, 4096), 0, 2048, 1024)
		}, "before the end"},
		{"LUN of the r2t", nil, func(c *client, p *pdu.SCSICommand) {
			c.send(p)
			r := expect[*pdu.R2T](c)
			c.send(&pdu.DataOut{
				Final: true, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: r.TargetTransferTag,
				ExpStatSN: c.expStat, Data: make([]byte, 4096),
			})
		}, "LUN is not that of the r2t"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv, _ := newServer(t, nil)
			keys := append([]pdu.KeyValue{kv("FirstBurstLength", "2048")}, tt.keys...)
			if len(tt.keys) == 0 || tt.keys[0].Key != "InitialR2T" {
				keys = append(keys, kv("InitialR2T", "No"))
			}
			c := login(t, srv, keys...)
			p := c.command(1, writeCDB(0, 8), 4096)
			p.Write = true
			tt.run(c, p)
			for { // whatever else it asks for, until it is answered
				if _, ok := c.recv().(*pdu.SCSIResponse); ok {
					break
				}
			}
			wantViolation(t, srv, tt.rule)
			c.in(1, scsi.TestUnitReady, 0).good(t) // the session goes on
		})
	}
}

func TestDataOutForNoTaskIsRejected(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	c.send(&pdu.DataOut{Final: true, InitiatorTaskTag: 99, TargetTransferTag: 1, ExpStatSN: c.expStat, Data: make([]byte, 512)})
	r := expect[*pdu.Reject](c)
	if h, ok := r.BadHeader(); r.Reason != pdu.RejectInvalidField || !ok || h.InitiatorTaskTag() != 99 {
		t.Errorf("reject %+v", r)
	}
	wantViolation(t, srv, "not that of a write")
}

func TestCommandViolations(t *testing.T) {
	tests := []struct {
		name   string
		change func(c *client, p *pdu.SCSICommand)
		rule   string
	}{
		{"reserved tag", func(_ *client, p *pdu.SCSICommand) { p.InitiatorTaskTag = pdu.ReservedTag }, "reserved"},
		{"neither R nor W", func(_ *client, p *pdu.SCSICommand) { p.Read = false }, "neither R nor W"},
		{"immediate data of a read", func(_ *client, p *pdu.SCSICommand) { p.Data = []byte{1} }, "without W"},
		{"CmdSN beyond the window", func(c *client, p *pdu.SCSICommand) { p.CmdSN = c.maxCmd + 1 }, "beyond MaxCmdSN"},
		{"CmdSN used before", func(_ *client, p *pdu.SCSICommand) { p.CmdSN-- }, "used before"},
		{"CmdSN skipped", func(_ *client, p *pdu.SCSICommand) { p.CmdSN++ }, "out of order"},
		{"ExpStatSN too high", func(_ *client, p *pdu.SCSICommand) { p.ExpStatSN++ }, "acknowledges what was not sent"},
		{"ExpStatSN too low", func(_ *client, p *pdu.SCSICommand) { p.ExpStatSN -= 2 }, "went back"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv, _ := newServer(t, nil)
			c := login(t, srv)
			c.in(1, scsi.TestUnitReady, 0).good(t)
			c.in(1, scsi.TestUnitReady, 0).good(t)
			p := c.command(1, readCDB(0, 1), 512)
			p.Read = true
			tt.change(c, p)
			// A ping behind it shows that it was looked at.
			c.send(p, &pdu.NOPOut{
				Immediate: true, InitiatorTaskTag: c.tag(), TargetTransferTag: pdu.ReservedTag,
				CmdSN: c.cmdSN, ExpStatSN: c.expStat,
			})
			for {
				if _, ok := c.recv().(*pdu.NOPIn); ok {
					break
				}
			}
			wantViolation(t, srv, tt.rule)
		})
	}
}

func TestHeldCommandsRunInOrder(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	first, second := c.command(1, scsi.TestUnitReady, 0), c.command(1, scsi.TestUnitReady, 0)
	c.send(second, first)
	for _, p := range []*pdu.SCSICommand{first, second} {
		if r := expect[*pdu.SCSIResponse](c); r.InitiatorTaskTag != p.InitiatorTaskTag {
			t.Errorf("answer to %#x, expected %#x", r.InitiatorTaskTag, p.InitiatorTaskTag)
		}
	}
	c.in(1, scsi.TestUnitReady, 0).good(t)
}

func TestCommandWindow(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) { c.CommandWindow = 4 })
	c := login(t, srv)
	if n := c.maxCmd - c.lastExp + 1; n != 4 {
		t.Fatalf("a window of %d after login", n)
	}
	// Writes that wait for data take up the window.
	var writes []*pdu.SCSICommand
	for i := range 4 {
		p := c.command(1, writeCDB(uint64(i), 1), 512)
		p.Write = true
		c.send(p)
		writes = append(writes, p)
		r := expect[*pdu.R2T](c)
		if n := int(c.maxCmd - c.lastExp + 1); n != 3-i {
			t.Errorf("a window of %d with %d commands in flight", n, i+1)
		}
		p.ExpectedDataTransferLength = r.TargetTransferTag // remembered
	}
	for _, p := range writes {
		c.sendSequence(p, p.ExpectedDataTransferLength, make([]byte, 512), 0, 512, 512)
		expect[*pdu.SCSIResponse](c)
	}
	if n := c.maxCmd - c.lastExp + 1; n != 4 {
		t.Errorf("a window of %d after all", n)
	}
	srv.SetCommandWindow(0)
	if n := expect[*pdu.NOPIn](c); n.InitiatorTaskTag != pdu.ReservedTag || n.TargetTransferTag != pdu.ReservedTag {
		t.Errorf("nop-in %+v", n)
	}
	for range 4 { // what was announced stays valid
		c.in(1, scsi.TestUnitReady, 0).good(t)
	}
	if n := c.maxCmd - c.lastExp + 1; n != 0 {
		t.Errorf("a window of %d, expected it closed", n)
	}
	srv.SetCommandWindow(1)
	expect[*pdu.NOPIn](c)
	if n := c.maxCmd - c.lastExp + 1; n != 1 {
		t.Errorf("a window of %d, expected 1", n)
	}
	noViolations(t, srv)
}
