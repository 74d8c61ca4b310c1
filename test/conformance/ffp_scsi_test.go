package conformance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// checkCommand checks the fields of a SCSI Command PDU that do not depend on the
// data.
func checkCommand(t *testing.T, c *conn, cmd *pdu.SCSICommand, task *initiator.Task) {
	t.Helper()
	if cmd.LUN != task.LUN || cmd.CDB != task.CDB || cmd.Attr != pdu.AttrSimple || cmd.Immediate {
		t.Errorf("%+v", cmd)
	}
	if cmd.InitiatorTaskTag == pdu.ReservedTag {
		t.Error("reserved task tag")
	}
	if f := c.header.BHS[1]; f&0x18 != 0 || c.header.BHS[2] != 0 || c.header.BHS[3] != 0 {
		t.Errorf("reserved bits set: % x", c.header.BHS[:4])
	}
	if c.header.TotalAHSLength() != 0 {
		t.Errorf("%d bytes of AHS for a short CDB", c.header.TotalAHSLength())
	}
}

func TestFFP_16_1_1_CommandWithImmediateData(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=Yes", "MaxRecvDataSegmentLength=2048")
	for _, n := range []int{512, 2048, 4096} {
		task := writeTask(pattern(1, n))
		r := start(t, s, task)
		cmd := c.command()
		checkCommand(t, c, cmd, task)
		if !cmd.Write || cmd.Read || !cmd.Final || int(cmd.ExpectedDataTransferLength) != n {
			t.Errorf("%d bytes: W %v, R %v, F %v, EDTL %d", n, cmd.Write, cmd.Read, cmd.Final, cmd.ExpectedDataTransferLength)
		}
		same(t, cmd.Data, task.DataOut[:min(n, 2048)])
		if n > 2048 {
			c.send(r2t(cmd, 0, 1, 2048, n-2048))
			c.burst(cmd, 1, 2048, n-2048)
		}
		c.respond(cmd)
		r.succeeds()
	}
}

func TestFFP_16_1_2_CommandWithoutImmediateData(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	task := writeTask(pattern(1, 512))
	r := start(t, s, task)
	cmd := c.command()
	checkCommand(t, c, cmd, task)
	if !cmd.Write || cmd.Read || !cmd.Final || cmd.ExpectedDataTransferLength != 512 || len(cmd.Data) != 0 {
		t.Errorf("%+v", cmd)
	}
	c.send(r2t(cmd, 0, 1, 0, 512))
	c.burst(cmd, 1, 0, 512)
	c.respond(cmd)
	r.succeeds()
}

// Reads have R and F set, commands without data neither R nor W.
func TestFFP_16_2_CommandFieldsOfReadsAndNoData(t *testing.T) {
	s, c := operational(t, nil)
	task := readTask(1024)
	r := start(t, s, task)
	cmd := c.command()
	checkCommand(t, c, cmd, task)
	if !cmd.Read || cmd.Write || !cmd.Final || cmd.ExpectedDataTransferLength != 1024 || len(cmd.Data) != 0 {
		t.Errorf("%+v", cmd)
	}
	c.send(lastDataIn(cmd, 0, 0, make([]byte, 1024)))
	r.succeeds()
	task = noData()
	r = start(t, s, task)
	cmd = c.command()
	checkCommand(t, c, cmd, task)
	if cmd.Read || cmd.Write || !cmd.Final || cmd.ExpectedDataTransferLength != 0 {
		t.Errorf("%+v", cmd)
	}
	c.respond(cmd)
	r.succeeds()
}

// Task attributes go out as they were given.
func TestFFP_16_3_TaskAttributes(t *testing.T) {
	s, c := operational(t, nil)
	for _, attr := range []pdu.TaskAttribute{pdu.AttrSimple, pdu.AttrOrdered, pdu.AttrHeadOfQueue, pdu.AttrACA} {
		task := noData()
		task.Attr = attr
		r := start(t, s, task)
		cmd := c.command()
		if cmd.Attr != attr {
			t.Errorf("attribute %d, want %d", cmd.Attr, attr)
		}
		c.respond(cmd)
		r.succeeds()
	}
}

// Every status comes through as it is, in a response and in a Data-In.
func TestFFP_17_1_SCSIStatus(t *testing.T) {
	s, c := operational(t, nil)
	for _, status := range []scsi.Status{
		scsi.StatusGood, scsi.StatusConditionMet, scsi.StatusBusy, scsi.StatusReservationConflict,
		scsi.StatusTaskSetFull, scsi.StatusACAActive, scsi.StatusTaskAborted,
	} {
		r := start(t, s, noData())
		c.send(&pdu.SCSIResponse{InitiatorTaskTag: c.command().InitiatorTaskTag, Status: uint8(status)})
		if task := r.finished(); task.Err != nil || task.Status != status {
			t.Errorf("status %v, error %v, want %v", task.Status, task.Err, status)
		}
		r = start(t, s, readTask(512))
		d := lastDataIn(c.command(), 0, 0, make([]byte, 512))
		d.Status = uint8(status)
		c.send(d)
		if task := r.finished(); task.Err != nil || task.Status != status {
			t.Errorf("in Data-In: status %v, error %v, want %v", task.Status, task.Err, status)
		}
	}
}

// A response code other than "command completed" is an error without a status.
func TestFFP_17_2_ResponseCodes(t *testing.T) {
	s, c := operational(t, nil)
	for _, code := range []uint8{pdu.ResponseTargetFailure, 0x80, 0xff} {
		r := start(t, s, noData())
		c.send(&pdu.SCSIResponse{InitiatorTaskTag: c.command().InitiatorTaskTag, Response: code})
		var re *initiator.ResponseError
		if task := r.finished(); !errors.As(task.Err, &re) || re.Response != code {
			t.Errorf("error %v for response code %#x", task.Err, code)
		}
	}
	c.alive(s)
}

// A status of success does not make up for data that never came or went.
func TestFFP_17_3_StatusWithoutData(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	for _, task := range []*initiator.Task{readTask(1024), writeTask(make([]byte, 1024))} {
		r := start(t, s, task)
		c.respond(c.command())
		if r.finished(); task.Err != nil || task.Transferred != 0 || task.Residual != 1024 {
			t.Errorf("error %v, %d bytes transferred, residual %d", task.Err, task.Transferred, task.Residual)
		}
	}
}

// The O bit says that the device had more than was expected.
func TestFFP_18_1_ResidualOverflow(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, readTask(512))
	d := lastDataIn(c.command(), 0, 0, make([]byte, 512))
	d.Overflow, d.ResidualCount = true, 100
	c.send(d)
	if task := r.finished(); task.Err != nil || task.Transferred != 512 || task.Residual != -100 {
		t.Errorf("error %v, %d bytes, residual %d", task.Err, task.Transferred, task.Residual)
	}
	r = start(t, s, writeTask(make([]byte, 512)))
	c.send(&pdu.SCSIResponse{InitiatorTaskTag: c.command().InitiatorTaskTag, Overflow: true, ResidualCount: 100})
	if task := r.finished(); task.Err != nil || task.Transferred != 512 || task.Residual != -100 {
		t.Errorf("error %v, %d bytes, residual %d", task.Err, task.Transferred, task.Residual)
	}
}

// The U bit says how much of what was expected is missing.
func TestFFP_18_2_ResidualUnderflow(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, readTask(512))
	d := lastDataIn(c.command(), 0, 0, make([]byte, 36))
	d.Underflow, d.ResidualCount = true, 476
	c.send(d)
	if task := r.finished(); task.Err != nil || task.Transferred != 36 || task.Residual != 476 {
		t.Errorf("error %v, %d bytes, residual %d", task.Err, task.Transferred, task.Residual)
	}
	r = start(t, s, writeTask(make([]byte, 512)))
	c.send(&pdu.SCSIResponse{InitiatorTaskTag: c.command().InitiatorTaskTag, Underflow: true, ResidualCount: 12})
	if task := r.finished(); task.Err != nil || task.Transferred != 500 || task.Residual != 12 {
		t.Errorf("error %v, %d bytes, residual %d", task.Err, task.Transferred, task.Residual)
	}
}

// Without O and U the residual count is to be ignored (RFC 7143 section 11.4.5.1).
func TestFFP_18_3_ResidualCountWithoutBits(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, readTask(512))
	d := lastDataIn(c.command(), 0, 0, make([]byte, 512))
	d.ResidualCount = 77
	c.send(d)
	r.succeeds()
}

// More than everything cannot be missing.
func TestFFP_18_4_ResidualCountBeyondTheTransfer(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, readTask(512))
	c.send(&pdu.SCSIResponse{InitiatorTaskTag: c.command().InitiatorTaskTag, Underflow: true, ResidualCount: 0xffffffff})
	if task := r.finished(); task.Transferred != 0 || task.Residual != 512 {
		t.Errorf("%d bytes, residual %d", task.Transferred, task.Residual)
	}
	c.alive(s)
}

// O and U exclude each other.
func TestFFP_18_5_OverflowAndUnderflow(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, replayed(noData()))
	c.send(&pdu.SCSIResponse{InitiatorTaskTag: c.command().InitiatorTaskTag, Overflow: true, Underflow: true})
	c.ended()
	c2 := c.st.accept()
	c2.logIn()
	c2.respond(c2.command())
	r.succeeds()
}

// sense is fixed-format sense data: medium error, unrecovered read error.
var sense = []byte{0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0}

// checkSense answers a command with CHECK CONDITION and this data segment, and
// checks the sense data that the task gets.
func checkSense(t *testing.T, segment, want []byte) {
	t.Helper()
	s, c := operational(t, nil)
	r := start(t, s, readTask(512))
	c.send(&pdu.SCSIResponse{
		InitiatorTaskTag: c.command().InitiatorTaskTag, Status: uint8(scsi.StatusCheckCondition),
		Underflow: true, ResidualCount: 512, Data: segment,
	})
	task := r.finished()
	if task.Err != nil || task.Status != scsi.StatusCheckCondition || !bytes.Equal(task.Sense, want) {
		t.Errorf("error %v, status %v, sense % x, want % x", task.Err, task.Status, task.Sense, want)
	}
	c.alive(s)
}

func TestFFP_19_1_CheckConditionWithSense(t *testing.T) {
	checkSense(t, pdu.AppendSense(nil, sense), sense)
}

// Response data may follow the sense data, and are none of the device's.
func TestFFP_19_2_SenseWithResponseData(t *testing.T) {
	checkSense(t, append(pdu.AppendSense(nil, sense), "the vendor says more"...), sense)
}

// A SenseLength beyond the data segment is cut, not believed.
func TestFFP_19_3_SenseLengthBeyondTheSegment(t *testing.T) {
	segment := pdu.AppendSense(nil, sense)
	binary.BigEndian.PutUint16(segment, 0xffff)
	checkSense(t, segment, sense)
}

func TestFFP_19_4_CheckConditionWithoutSense(t *testing.T) {
	checkSense(t, nil, nil)
	checkSense(t, []byte{0, 0}, nil)
	checkSense(t, []byte{0}, nil)
}

// A CDB longer than 16 bytes goes on in an additional header segment.
func TestFFP_25_1_LongCDB(t *testing.T) {
	s, c := operational(t, nil)
	for _, n := range []int{1, 4, 16, 244} {
		task := noData()
		task.CDB[0], task.CDB[7] = 0x7f, byte(8+n)
		task.ExtendedCDB = pattern(25, n)
		r := start(t, s, task)
		cmd := c.command()
		if cmd.CDB != task.CDB || !bytes.Equal(cmd.ExtendedCDB, task.ExtendedCDB) || cmd.Bidi {
			t.Errorf("%d bytes more: %+v", n, cmd)
		}
		ahs := c.header.AHS
		if got := binary.BigEndian.Uint16(ahs); int(got) != n+1 || ahs[2] != 1 || len(ahs)%4 != 0 {
			t.Errorf("AHS % x for %d bytes of CDB", ahs[:4], n)
		}
		c.respond(cmd)
		r.succeeds()
	}
}

// bidi returns a command that writes and reads.
func bidi(out, in int) *initiator.Task {
	t := &initiator.Task{LUN: lun1, DataOut: pattern(25, out), DataIn: make([]byte, in)}
	t.CDB[0] = 0x53 // XDWRITEREAD(10)
	return t
}

// A bidirectional command has the length of its read in an AHS; R2Ts and Data-In
// share one numbering (RFC 7143 section 11.8.2).
func TestFFP_25_2_BidirectionalCommand(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	r := start(t, s, bidi(1024, 512))
	cmd := c.command()
	if !cmd.Read || !cmd.Write || !cmd.Bidi || cmd.BidiReadLength != 512 || cmd.ExpectedDataTransferLength != 1024 {
		t.Errorf("%+v", cmd)
	}
	back := pattern(52, 512)
	c.send(r2t(cmd, 0, 1, 0, 512))
	got := c.burst(cmd, 1, 0, 512)
	c.send(dataIn(cmd, 1, 0, back[:256]), r2t(cmd, 2, 2, 512, 512))
	got = append(got, c.burst(cmd, 2, 512, 512)...)
	d := dataIn(cmd, 3, 256, back[256:])
	d.Final = true
	c.send(d, &pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, ExpDataSN: 4})
	if task := r.finished(); task.Err != nil || task.Transferred != 512 {
		t.Errorf("error %v, %d bytes", task.Err, task.Transferred)
	}
	same(t, got, r.DataOut)
	same(t, r.DataIn, back)
}

// Of its two residuals the one of the read counts for the read.
func TestFFP_25_3_BidirectionalResidual(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, bidi(512, 512))
	cmd := c.command()
	d := dataIn(cmd, 0, 0, make([]byte, 500))
	d.Final = true
	c.send(d, &pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, ExpDataSN: 1, BidiUnderflow: true, BidiResidualCount: 12, Overflow: true, ResidualCount: 99})
	if task := r.finished(); task.Err != nil || task.Transferred != 500 || task.Residual != 12 {
		t.Errorf("error %v, %d bytes, residual %d", task.Err, task.Transferred, task.Residual)
	}
}
