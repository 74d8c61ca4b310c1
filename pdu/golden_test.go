package pdu_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/pdu"
)

// golden are PDUs and their headers, written down by hand from the figures of
// RFC 7143 section 11, one 4-byte word to a group.
var golden = []struct {
	name string
	pdu  pdu.PDU
	wire string
}{
	{
		"scsi command read",
		&pdu.SCSICommand{
			Final: true, Read: true, Attr: pdu.AttrSimple, LUN: pdu.LUNFromNumber(1),
			InitiatorTaskTag: 0x10203040, ExpectedDataTransferLength: 0x1000, CmdSN: 0x11, ExpStatSN: 0x22,
			CDB: [16]byte{0x28, 0, 0, 0, 0, 7, 0, 0, 8},
		},
		"01c10000 00000000 00010000 00000000 10203040 00001000 00000011 00000022 28000000 00070000 08000000 00000000",
	},
	{
		"scsi command write with immediate data",
		&pdu.SCSICommand{
			Immediate: true, Write: true, Attr: pdu.AttrHeadOfQueue, LUN: 0x0102030405060708,
			InitiatorTaskTag: 1, ExpectedDataTransferLength: 9, CmdSN: 2, ExpStatSN: 3,
			CDB: [16]byte{0x2a, 15: 0xff}, Data: []byte("hello"),
		},
		"41230000 00000005 01020304 05060708 00000001 00000009 00000002 00000003 2a000000 00000000 00000000 000000ff",
	},
	{
		"scsi command with both additional header segments",
		&pdu.SCSICommand{
			Final: true, Read: true, Write: true, Attr: pdu.AttrOrdered, InitiatorTaskTag: 1,
			CDB: [16]byte{0x7f}, ExtendedCDB: []byte{1, 2, 3, 4, 5}, Bidi: true, BidiReadLength: 0x01020304,
		},
		"01e20000 05000000 00000000 00000000 00000001 00000000 00000000 00000000 7f000000 00000000 00000000 00000000" +
			"00060100 01020304 05000000 00050200 01020304",
	},
	{
		"scsi response",
		&pdu.SCSIResponse{
			Underflow: true, BidiOverflow: true, Response: 0, Status: 2, InitiatorTaskTag: 0xa1, SNACKTag: 0xa2,
			StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3, ExpDataSN: 0xc1, BidiResidualCount: 0xc2, ResidualCount: 0xc3,
			Data: []byte{0, 2, 0x70, 0},
		},
		"21920002 00000004 00000000 00000000 000000a1 000000a2 000000b1 000000b2 000000b3 000000c1 000000c2 000000c3",
	},
	{
		"scsi response with the other flags",
		&pdu.SCSIResponse{Overflow: true, BidiUnderflow: true, Response: 1},
		"218c0100 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000",
	},
	{
		"task management request",
		&pdu.TaskManagementRequest{
			Immediate: true, Function: pdu.TaskAbortTask, LUN: pdu.LUNFromNumber(2), InitiatorTaskTag: 0xa1,
			ReferencedTaskTag: 0xa2, CmdSN: 0xb1, ExpStatSN: 0xb2, RefCmdSN: 0xb3, ExpDataSN: 0xb4,
		},
		"42810000 00000000 00020000 00000000 000000a1 000000a2 000000b1 000000b2 000000b3 000000b4 00000000 00000000",
	},
	{
		"task management response",
		&pdu.TaskManagementResponse{Response: pdu.TaskFunctionRejected, InitiatorTaskTag: 0xa1, StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3},
		"2280ff00 00000000 00000000 00000000 000000a1 00000000 000000b1 000000b2 000000b3 00000000 00000000 00000000",
	},
	{
		"data-out",
		&pdu.DataOut{
			Final: true, LUN: pdu.LUNFromNumber(3), InitiatorTaskTag: 0xa1, TargetTransferTag: 0xa2,
			ExpStatSN: 0xb1, DataSN: 0xb2, BufferOffset: 0xb3, Data: []byte{1},
		},
		"05800000 00000001 00030000 00000000 000000a1 000000a2 00000000 000000b1 00000000 000000b2 000000b3 00000000",
	},
	{
		"data-in with status",
		&pdu.DataIn{
			Final: true, Overflow: true, HasStatus: true, Status: 4, InitiatorTaskTag: 0xa1, TargetTransferTag: pdu.ReservedTag,
			StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3, DataSN: 0xc1, BufferOffset: 0xc2, ResidualCount: 0xc3, Data: []byte{1, 2},
		},
		"25850004 00000002 00000000 00000000 000000a1 ffffffff 000000b1 000000b2 000000b3 000000c1 000000c2 000000c3",
	},
	{
		"data-in asking for acknowledgement",
		&pdu.DataIn{Acknowledge: true, Underflow: true, LUN: pdu.LUNFromNumber(1), TargetTransferTag: 7},
		"25420000 00000000 00010000 00000000 00000000 00000007 00000000 00000000 00000000 00000000 00000000 00000000",
	},
	{
		"r2t",
		&pdu.R2T{
			LUN: pdu.LUNFromNumber(1), InitiatorTaskTag: 0xa1, TargetTransferTag: 0xa2, StatSN: 0xb1, ExpCmdSN: 0xb2,
			MaxCmdSN: 0xb3, R2TSN: 0xc1, BufferOffset: 0xc2, DesiredDataTransferLength: 0xc3,
		},
		"31800000 00000000 00010000 00000000 000000a1 000000a2 000000b1 000000b2 000000b3 000000c1 000000c2 000000c3",
	},
	{
		"async message",
		&pdu.AsyncMessage{
			LUN: pdu.LUNFromNumber(1), StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3, Event: pdu.AsyncSessionDrop, VCode: 9,
			Parameter1: 0x0102, Parameter2: 0x0304, Parameter3: 0x0506, Data: []byte{0, 0},
		},
		"32800000 00000002 00010000 00000000 ffffffff 00000000 000000b1 000000b2 000000b3 03090102 03040506 00000000",
	},
	{
		"text request",
		&pdu.TextRequest{
			Immediate: true, Final: true, LUN: 1, InitiatorTaskTag: 0xa1, TargetTransferTag: pdu.ReservedTag,
			CmdSN: 0xb1, ExpStatSN: 0xb2, Data: []byte("SendTargets=All\x00"),
		},
		"44800000 00000010 00000000 00000001 000000a1 ffffffff 000000b1 000000b2 00000000 00000000 00000000 00000000",
	},
	{
		"text response to be continued",
		&pdu.TextResponse{
			Continue: true, LUN: 2, InitiatorTaskTag: 0xa1, TargetTransferTag: 0xa2,
			StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3, Data: []byte("a"),
		},
		"24400000 00000001 00000000 00000002 000000a1 000000a2 000000b1 000000b2 000000b3 00000000 00000000 00000000",
	},
	{
		"login request",
		&pdu.LoginRequest{
			Transit: true, CurrentStage: pdu.StageOperational, NextStage: pdu.StageFullFeature, VersionMax: 1, VersionMin: 2,
			ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, TSIH: 0x0607, InitiatorTaskTag: 0xa1, CID: 0x0809, CmdSN: 0xb1, ExpStatSN: 0xb2,
			Data: []byte("k=v\x00"),
		},
		"43870102 00000004 80010203 04050607 000000a1 08090000 000000b1 000000b2 00000000 00000000 00000000 00000000",
	},
	{
		"login response",
		&pdu.LoginResponse{
			Continue: true, CurrentStage: pdu.StageOperational, VersionMax: 1, VersionActive: 2,
			ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, TSIH: 0x0607, InitiatorTaskTag: 0xa1, StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3,
			Data: []byte("k"),
		},
		"23440102 00000001 80010203 04050607 000000a1 00000000 000000b1 000000b2 000000b3 00000000 00000000 00000000",
	},
	{
		"login response with an error",
		&pdu.LoginResponse{StatusClass: pdu.LoginInitiatorError, StatusDetail: pdu.InitiatorErrorNotFound},
		"23000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 02030000 00000000 00000000",
	},
	{
		"logout request",
		&pdu.LogoutRequest{Immediate: true, Reason: pdu.LogoutRecovery, InitiatorTaskTag: 0xa1, CID: 0x0102, CmdSN: 0xb1, ExpStatSN: 0xb2},
		"46820000 00000000 00000000 00000000 000000a1 01020000 000000b1 000000b2 00000000 00000000 00000000 00000000",
	},
	{
		"logout response",
		&pdu.LogoutResponse{Response: 1, InitiatorTaskTag: 0xa1, StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3, Time2Wait: 0x0102, Time2Retain: 0x0304},
		"26800100 00000000 00000000 00000000 000000a1 00000000 000000b1 000000b2 000000b3 00000000 01020304 00000000",
	},
	{
		"snack",
		&pdu.SNACK{Type: pdu.SNACKDataACK, LUN: 1, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 0xa2, ExpStatSN: 0xb1, BegRun: 0xc1, RunLength: 0xc2},
		"10820000 00000000 00000000 00000001 ffffffff 000000a2 00000000 000000b1 00000000 00000000 000000c1 000000c2",
	},
	{
		"reject",
		&pdu.Reject{Reason: pdu.RejectInvalidField, StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3, DataSN: 0xb4, Data: make([]byte, 48)},
		"3f800900 00000030 00000000 00000000 ffffffff 00000000 000000b1 000000b2 000000b3 000000b4 00000000 00000000",
	},
	{
		"nop-out",
		&pdu.NOPOut{Immediate: true, LUN: 1, InitiatorTaskTag: 0xa1, TargetTransferTag: pdu.ReservedTag, CmdSN: 0xb1, ExpStatSN: 0xb2, Data: []byte("ping")},
		"40800000 00000004 00000000 00000001 000000a1 ffffffff 000000b1 000000b2 00000000 00000000 00000000 00000000",
	},
	{
		"nop-in",
		&pdu.NOPIn{LUN: 1, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 0xa2, StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3},
		"20800000 00000000 00000000 00000001 ffffffff 000000a2 000000b1 000000b2 000000b3 00000000 00000000 00000000",
	},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// header returns the Header that wire bytes hold.
func header(wire []byte) *pdu.Header {
	h := &pdu.Header{BHS: [pdu.BHSLen]byte(wire)}
	h.AHS = wire[pdu.BHSLen : pdu.BHSLen+h.TotalAHSLength()]
	return h
}

func TestAppendHeaderMatchesRFC(t *testing.T) {
	for _, tt := range golden {
		t.Run(tt.name, func(t *testing.T) {
			prefix := []byte("prefix")
			got, err := tt.pdu.AppendHeader(prefix)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(got, prefix) {
				t.Fatalf("AppendHeader changed what was there before: %q", got[:len(prefix)])
			}
			if want := unhex(t, tt.wire); !bytes.Equal(got[len(prefix):], want) {
				t.Errorf("got  %x\nwant %x", got[len(prefix):], want)
			}
		})
	}
}

func TestParseMatchesRFC(t *testing.T) {
	for _, tt := range golden {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pdu.Parse(header(unhex(t, tt.wire)), tt.pdu.Payload())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.pdu, got); diff != "" {
				t.Errorf("decoded PDU differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoldenHasEveryType(t *testing.T) {
	seen := map[pdu.Opcode]bool{}
	for _, tt := range golden {
		seen[tt.pdu.Opcode()] = true
	}
	for op := pdu.Opcode(0); op <= pdu.OpReject; op++ {
		if op.Known() != seen[op] {
			t.Errorf("%v: known %v, in the table %v", op, op.Known(), seen[op])
		}
		if (pdu.New(op) != nil) != op.Known() {
			t.Errorf("%v: New does not agree with Known", op)
		}
	}
}

func TestParseIgnoresReservedBits(t *testing.T) {
	// Bits that section 11 leaves undefined must not matter to a receiver.
	wire := unhex(t, "a1800002 00000000 ffffffff ffffffff 000000a1 00000000 000000b1 000000b2 000000b3 00000000 00000000 00000000")
	wire[1] |= 0x61
	got, err := pdu.Parse(header(wire), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &pdu.SCSIResponse{Status: 2, InitiatorTaskTag: 0xa1, StatSN: 0xb1, ExpCmdSN: 0xb2, MaxCmdSN: 0xb3}
	if diff := cmp.Diff(pdu.PDU(want), got); diff != "" {
		t.Errorf("decoded PDU differs (-want +got):\n%s", diff)
	}
}
