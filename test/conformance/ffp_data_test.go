package conformance

import (
	"bytes"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// write logs in with these answers and submits a write of n bytes.
func write(t *testing.T, n int, mod func(*initiator.Config), answers ...string) (*initiator.Session, *conn, *running, []byte) {
	t.Helper()
	s, c := operational(t, mod, answers...)
	data := pattern(byte(n), n)
	return s, c, start(t, s, writeTask(data)), data
}

// same fails the test if data were changed on the way.
func same(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, want %d; or they were changed", len(got), len(want))
	}
}

// Immediate data come with the command, unsolicited data up to FirstBurstLength
// behind it, and the rest when it is asked for.
func TestFFP_8_1_UnsolicitedAndSolicitedData(t *testing.T) {
	_, c, r, data := write(t, 8192, nil, "InitialR2T=No", "FirstBurstLength=4096", "MaxRecvDataSegmentLength=1024")
	cmd := c.command()
	if cmd.Final || len(cmd.Data) != 1024 || cmd.ExpectedDataTransferLength != 8192 {
		t.Errorf("F bit %v, %d bytes of immediate data, EDTL %d", cmd.Final, len(cmd.Data), cmd.ExpectedDataTransferLength)
	}
	got := append([]byte(nil), cmd.Data...)
	got = append(got, c.burst(cmd, pdu.ReservedTag, 1024, 3072)...)
	c.send(r2t(cmd, 0, 5, 4096, 4096))
	got = append(got, c.burst(cmd, 5, 4096, 4096)...)
	same(t, got, data)
	c.respond(cmd)
	r.succeeds()
}

func TestFFP_8_2_SolicitedDataOnly(t *testing.T) {
	s, c, r, data := write(t, 8192, nil, "InitialR2T=Yes", "ImmediateData=No", "MaxRecvDataSegmentLength=1024", "MaxBurstLength=4096")
	cmd := c.command()
	if !cmd.Final || len(cmd.Data) != 0 {
		t.Errorf("F bit %v, %d bytes of immediate data", cmd.Final, len(cmd.Data))
	}
	c.quiet(s) // nothing comes unasked
	c.send(r2t(cmd, 0, 5, 0, 4096))
	got := c.burst(cmd, 5, 0, 4096)
	c.quiet(s)
	c.send(r2t(cmd, 1, 6, 4096, 4096))
	got = append(got, c.burst(cmd, 6, 4096, 4096)...)
	same(t, got, data)
	c.respond(cmd)
	r.succeeds()
}

// A write no longer than FirstBurstLength needs no R2T, with and without immediate
// data.
func TestFFP_8_3_UnsolicitedDataOnly(t *testing.T) {
	for _, immediate := range []string{"Yes", "No"} {
		t.Run("ImmediateData="+immediate, func(t *testing.T) {
			s, c, r, data := write(t, 4096, nil, "InitialR2T=No", "ImmediateData="+immediate, "MaxRecvDataSegmentLength=1024", "FirstBurstLength=4096")
			cmd := c.command()
			if cmd.Final || (len(cmd.Data) > 0) != (immediate == "Yes") {
				t.Errorf("F bit %v, %d bytes of immediate data", cmd.Final, len(cmd.Data))
			}
			rest := c.burst(cmd, pdu.ReservedTag, len(cmd.Data), 4096-len(cmd.Data))
			same(t, append(cmd.Data, rest...), data)
			c.quiet(s)
			c.respond(cmd)
			r.succeeds()
		})
	}
}

// Data-Out repeat the tags of the R2T that they answer, whatever the value.
func TestFFP_9_1_TargetTransferTag(t *testing.T) {
	_, c, r, data := write(t, 2048, nil, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=512")
	cmd := c.command()
	var got []byte
	for i, ttt := range []uint32{0, 1, 0x80000000, 0xfffffffe} {
		c.send(r2t(cmd, uint32(i), ttt, i*512, 512))
		got = append(got, c.burst(cmd, ttt, i*512, 512)...)
	}
	same(t, got, data)
	c.respond(cmd)
	r.succeeds()
}

// A status in the last Data-In finishes the command.
func TestFFP_10_1_DataInWithStatus(t *testing.T) {
	s, c := operational(t, nil)
	data := pattern(10, 4096)
	r := start(t, s, readTask(4096))
	cmd := c.command()
	if !cmd.Read || cmd.Write || !cmd.Final || cmd.ExpectedDataTransferLength != 4096 {
		t.Errorf("%+v", cmd)
	}
	c.send(dataIn(cmd, 0, 0, data[:1024]), lastDataIn(cmd, 1, 1024, data[1024:]))
	r.succeeds()
	same(t, r.DataIn, data)
	r = start(t, s, readTask(4096)) // and so does a response behind them
	cmd = c.command()
	d := dataIn(cmd, 0, 0, data)
	d.Final = true
	c.send(d, &pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, ExpDataSN: 1})
	r.succeeds()
	same(t, r.DataIn, data)
}

// On error recovery level 0 the A bit must be ignored (RFC 7143 section 11.7.2).
func TestFFP_10_2_DataInABit(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, readTask(1024))
	cmd := c.command()
	d := dataIn(cmd, 0, 0, make([]byte, 512))
	d.Acknowledge, d.Final, d.LUN, d.TargetTransferTag = true, true, lun1, 9
	c.send(d)
	c.quiet(s)
	c.send(lastDataIn(cmd, 1, 512, make([]byte, 512)))
	r.succeeds()
}

// No data segment of ours exceeds what the target takes: the station's reader sees
// to that. All of them are as long as they may be.
func TestFFP_11_1_1_DataOutDataSegmentLength(t *testing.T) {
	_, c, r, data := write(t, 4096+512, nil, "InitialR2T=Yes", "ImmediateData=No", "MaxRecvDataSegmentLength=1000")
	cmd := c.command()
	c.send(r2t(cmd, 0, 5, 0, len(data)))
	var got []byte
	for _, want := range []int{1000, 1000, 1000, 1000, 608} {
		d := c.dataOut()
		if len(d.Data) != want {
			t.Errorf("%d bytes in a segment, want %d", len(d.Data), want)
		}
		got = append(got, d.Data...)
	}
	same(t, got, data)
	c.respond(cmd)
	r.succeeds()
}

// A Data-In segment as long as we said is taken, a longer one fails the connection
// before it is read. Odd lengths are padded.
func TestFFP_11_1_2_DataInDataSegmentLength(t *testing.T) {
	s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.MaxRecvDataSegmentLength = 4096 })
	data := pattern(11, 8192)
	r := start(t, s, readTask(8192))
	cmd := c.command()
	c.send(dataIn(cmd, 0, 0, data[:4096]), dataIn(cmd, 1, 4096, data[4096:4097]), lastDataIn(cmd, 2, 4097, data[4097:8192]))
	r.succeeds()
	same(t, r.DataIn, data)
	r = start(t, s, readTask(8192))
	c.send(lastDataIn(c.command(), 0, 0, data))
	r.fails()
	c.ended()
}

// The F bit is set on the last Data-Out of the unsolicited data only, which burst
// checks for every PDU.
func TestFFP_11_2_1_FBitUnsolicited(t *testing.T) {
	_, c, r, _ := write(t, 8192, nil, "InitialR2T=No", "ImmediateData=No", "FirstBurstLength=3072", "MaxRecvDataSegmentLength=1024")
	cmd := c.command()
	if cmd.Final {
		t.Error("F bit on a command with unsolicited data behind it")
	}
	c.burst(cmd, pdu.ReservedTag, 0, 3072)
	c.send(r2t(cmd, 0, 5, 3072, 5120))
	c.burst(cmd, 5, 3072, 5120)
	c.respond(cmd)
	r.succeeds()
}

// It ends each solicited sequence, also one of a single PDU and one that ends within
// a segment.
func TestFFP_11_2_2_FBitSolicited(t *testing.T) {
	_, c, r, _ := write(t, 4096, nil, "InitialR2T=Yes", "ImmediateData=No", "MaxRecvDataSegmentLength=1024")
	cmd := c.command()
	if !cmd.Final {
		t.Error("no F bit on a command without unsolicited data")
	}
	at := 0
	for i, n := range []int{4, 1024, 1028, 2040} {
		c.send(r2t(cmd, uint32(i), uint32(i), at, n))
		c.burst(cmd, uint32(i), at, n)
		at += n
	}
	c.respond(cmd)
	r.succeeds()
}

// DataSN counts within a sequence, and begins at 0 again with the next.
func TestFFP_11_3_DataOutDataSN(t *testing.T) {
	_, c, r, _ := write(t, 8192, nil, "InitialR2T=No", "ImmediateData=No", "FirstBurstLength=2048", "MaxBurstLength=3072", "MaxRecvDataSegmentLength=1024")
	cmd := c.command()
	for sn := range uint32(2) {
		if d := c.dataOut(); d.DataSN != sn {
			t.Errorf("unsolicited: DataSN %d, want %d", d.DataSN, sn)
		}
	}
	for i := range 2 {
		c.send(r2t(cmd, uint32(i), uint32(i), 2048+i*3072, 3072))
		for sn := range uint32(3) {
			if d := c.dataOut(); d.DataSN != sn {
				t.Errorf("sequence %d: DataSN %d, want %d", i, d.DataSN, sn)
			}
		}
	}
	c.respond(cmd)
	r.succeeds()
}

// The buffer offset counts from the beginning of the transfer and grows by the data
// before it.
func TestFFP_11_4_DataOutBufferOffset(t *testing.T) {
	_, c, r, _ := write(t, 4096, nil, "InitialR2T=Yes", "ImmediateData=Yes", "MaxRecvDataSegmentLength=512", "MaxBurstLength=2048")
	cmd := c.command()
	c.send(r2t(cmd, 0, 1, 512, 2048))
	for at := uint32(512); at < 2560; at += 512 {
		if d := c.dataOut(); d.BufferOffset != at {
			t.Errorf("offset %d, want %d", d.BufferOffset, at)
		}
	}
	c.send(r2t(cmd, 1, 2, 2560, 1536))
	for at := uint32(2560); at < 4096; at += 512 {
		if d := c.dataOut(); d.BufferOffset != at {
			t.Errorf("offset %d, want %d", d.BufferOffset, at)
		}
	}
	c.respond(cmd)
	r.succeeds()
}

// The same tag may be used again when its R2T is done with; the reserved one may
// not be used at all.
func TestFFP_12_1_R2TTargetTransferTag(t *testing.T) {
	_, c, r, _ := write(t, 1536, nil, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=512")
	cmd := c.command()
	for i := range 2 {
		c.send(r2t(cmd, uint32(i), 7, i*512, 512))
		c.burst(cmd, 7, i*512, 512)
	}
	c.send(r2t(cmd, 2, pdu.ReservedTag, 1024, 512))
	r.fails()
	c.ended()
}

// What is asked for is sent: exactly so much, from there on.
func TestFFP_12_2_R2TOffsetAndLength(t *testing.T) {
	_, c, r, data := write(t, 8192, nil, "InitialR2T=Yes", "ImmediateData=No")
	cmd := c.command()
	at := 0
	for i, n := range []int{1, 3, 508, 512, 4096, 3071, 1} {
		c.send(r2t(cmd, uint32(i), 100, at, n))
		same(t, c.burst(cmd, 100, at, n), data[at:at+n])
		at += n
	}
	c.respond(cmd)
	r.succeeds()
}

// An R2T for what is not there, or for more than MaxBurstLength, fails the task and
// sends nothing.
func TestFFP_12_3_R2TOffset(t *testing.T) {
	for name, bad := range map[string][2]int{
		"beyond the end":       {4096, 512},
		"across the end":       {4000, 512},
		"at the end of 32 bit": {0xfffffe00, 0x400},
		"above MaxBurstLength": {0, 2052},
		"of no length":         {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, c, r, _ := write(t, 4096, nil, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=2048")
			c.send(r2t(c.command(), 0, 1, bad[0], bad[1]))
			c.ended()
			r.fails()
		})
	}
}

// Commands with several R2Ts each, mixed, get their own data.
func TestFFP_12_4_ParallelCommands(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=1024", "MaxRecvDataSegmentLength=512")
	const n = 4
	tasks := map[uint32]*running{}
	cmds := make([]*pdu.SCSICommand, n)
	got := make([][]byte, n)
	for i := range n {
		r := start(t, s, writeTask(pattern(byte(i), 4096)))
		cmds[i] = c.command()
		tasks[cmds[i].InitiatorTaskTag] = r
	}
	for seq := range 4 {
		for i, cmd := range cmds {
			c.send(r2t(cmd, uint32(seq), uint32(i), seq*1024, 1024))
		}
		for i, cmd := range cmds {
			got[i] = append(got[i], c.burst(cmd, uint32(i), seq*1024, 1024)...)
		}
	}
	for i, cmd := range cmds {
		r := tasks[cmd.InitiatorTaskTag]
		same(t, got[i], r.DataOut)
		c.respond(cmd)
		r.succeeds()
	}
}

// A hole in the data is not asked for with a SNACK on error recovery level 0: the
// connection ends instead.
func TestFFP_13_3_NoSNACKOnLevelZero(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, replayed(readTask(1536)))
	cmd := c.command()
	c.send(dataIn(cmd, 0, 0, make([]byte, 512)), dataIn(cmd, 2, 1024, make([]byte, 512)))
	if got := c.drained(); len(got) > 0 {
		t.Errorf("%s in answer to a hole", got[0].Opcode())
	}
	c2 := c.st.accept()
	c2.logIn()
	c2.send(lastDataIn(c2.command(), 0, 0, make([]byte, 1536)))
	r.succeeds()
}

// Nor is data acknowledged with one, however often the A bit asks for it.
func TestFFP_13_4_NoDataACKOnLevelZero(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, readTask(4096))
	cmd := c.command()
	for i := range 8 {
		d := dataIn(cmd, uint32(i), i*512, make([]byte, 512))
		d.Acknowledge, d.Final, d.LUN, d.TargetTransferTag = true, true, lun1, uint32(i)
		c.send(d)
		c.quiet(s)
	}
	c.respond(cmd)
	r.succeeds()
}

// Up to MaxOutstandingR2T R2Ts at a time are answered, one after the other.
func TestFFP_26_1_SeveralOutstandingR2Ts(t *testing.T) {
	_, c, r, data := write(t, 4096, func(cfg *initiator.Config) { cfg.Params.MaxOutstandingR2T = 4 }, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=1024")
	cmd := c.command()
	var asks []pdu.PDU
	for i := range 4 {
		asks = append(asks, r2t(cmd, uint32(i), uint32(10+i), i*1024, 1024))
	}
	c.send(asks...)
	var got []byte
	for i := range 4 {
		got = append(got, c.burst(cmd, uint32(10+i), i*1024, 1024)...)
	}
	same(t, got, data)
	c.respond(cmd)
	r.succeeds()
}

// More than were agreed on are a violation.
func TestFFP_26_2_TooManyOutstandingR2Ts(t *testing.T) {
	_, c, r, _ := write(t, 1<<20, nil, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=512")
	cmd := c.command()
	var asks []pdu.PDU
	for i := range 2048 {
		asks = append(asks, r2t(cmd, uint32(i), uint32(i), i*512, 512))
	}
	c.send(asks...)
	c.drained()
	r.fails(initiator.ErrProtocol)
}

// With DataSequenceInOrder=No the target asks in the order that it likes.
func TestFFP_26_3_R2TsOutOfOrder(t *testing.T) {
	s, c, r, data := write(t, 4096, func(cfg *initiator.Config) {
		cfg.Params.MaxOutstandingR2T, cfg.Params.UnorderedSequences = 4, true
	}, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=1024", "MaxRecvDataSegmentLength=512")
	if !s.Info().Negotiated.UnorderedSequences {
		t.Fatal("not negotiated")
	}
	cmd := c.command()
	order := []int{3, 0, 2, 1}
	var asks []pdu.PDU
	for i, seq := range order {
		asks = append(asks, r2t(cmd, uint32(i), uint32(seq), seq*1024, 1024))
	}
	c.send(asks...)
	got := make([]byte, 4096)
	for _, seq := range order {
		copy(got[seq*1024:], c.burst(cmd, uint32(seq), seq*1024, 1024))
	}
	same(t, got, data)
	c.respond(cmd)
	r.succeeds()
}

// With DataPDUInOrder=No data of a read may come in any order.
func TestFFP_26_4_DataInOutOfOrder(t *testing.T) {
	s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.UnorderedPDUs = true })
	data := pattern(26, 2048)
	r := start(t, s, readTask(2048))
	cmd := c.command()
	for sn, i := range []int{2, 0, 3} {
		c.send(dataIn(cmd, uint32(sn), i*512, data[i*512:][:512]))
	}
	c.send(lastDataIn(cmd, 3, 512, data[512:1024]))
	r.succeeds()
	same(t, r.DataIn, data)
}

// With DataPDUInOrder=Yes and DataSequenceInOrder=Yes it must not.
func TestFFP_26_5_DataInOutOfOrderUnasked(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, readTask(2048))
	c.send(dataIn(c.command(), 0, 512, make([]byte, 512)))
	c.ended()
	r.fails(initiator.ErrProtocol)
}
