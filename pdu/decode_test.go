package pdu_test

import (
	"errors"
	"testing"

	"github.com/goiscsi/goiscsi/pdu"
)

// TestDecodeRefuses has one PDU for each rule that a decoder enforces: the
// header of a golden PDU with a few bytes changed.
func TestDecodeRefuses(t *testing.T) {
	type edit map[int]byte
	tests := []struct {
		name  string
		from  string
		edit  edit
		ahs   []byte
		data  []byte
		field string
	}{
		{"reserved task attribute", "scsi command read", edit{1: 0xc5}, nil, nil, "ATTR"},
		{"command without F and W", "scsi command read", edit{1: 0x41}, nil, nil, "F"},
		{"data of another length", "scsi command read", nil, nil, []byte{1}, "DataSegmentLength"},
		{"missing additional header", "scsi command read", edit{4: 1}, nil, nil, "TotalAHSLength"},
		{"additional header too long", "scsi command read", edit{4: 1}, []byte{0, 9, 1, 0}, nil, "AHSLength"},
		{"additional header of reserved type", "scsi command read", edit{4: 1}, []byte{0, 1, 3, 0}, nil, "AHSType"},
		{"empty extended cdb", "scsi command read", edit{4: 1}, []byte{0, 1, 1, 0}, nil, "ExtendedCDB"},
		{"extended cdb twice", "scsi command read", edit{4: 4}, []byte{0, 2, 1, 0, 1, 0, 0, 0, 0, 2, 1, 0, 1, 0, 0, 0}, nil, "ExtendedCDB"},
		{"short bidirectional length", "scsi command read", edit{4: 1}, []byte{0, 1, 2, 0}, nil, "BidirectionalReadLength"},
		{"response with both residual flags", "scsi response", edit{1: 0x86}, nil, nil, "O, U"},
		{"response with additional header", "scsi response", edit{4: 1}, nil, nil, "TotalAHSLength"},
		{"data-in with S but not F", "data-in with status", edit{1: 0x01}, nil, nil, "S"},
		{"data-in with both residual flags", "data-in with status", edit{1: 0x87}, nil, nil, "O, U"},
		{"r2t for nothing", "r2t", edit{47: 0}, nil, nil, "DesiredDataTransferLength"},
		{"r2t with the reserved tag", "r2t", edit{20: 0xff, 21: 0xff, 22: 0xff, 23: 0xff}, nil, nil, "TargetTransferTag"},
		{"r2t with data", "r2t", edit{7: 1}, nil, []byte{1}, "DataSegmentLength"},
		{"text request with C and F", "text request", edit{1: 0xc0}, nil, nil, "C"},
		{"text response with C and F", "text response to be continued", edit{1: 0xc0}, nil, nil, "C"},
		{"login request with C and T", "login request", edit{1: 0xc7}, nil, nil, "C"},
		{"login request in reserved stage", "login request", edit{1: 0x08}, nil, nil, "CSG"},
		{"login request in full feature phase", "login request", edit{1: 0x0c}, nil, nil, "CSG"},
		{"login request to reserved stage", "login request", edit{1: 0x86}, nil, nil, "NSG"},
		{"login request to its own stage", "login request", edit{1: 0x85}, nil, nil, "NSG"},
		{"login response to reserved stage", "login response", edit{1: 0x82}, nil, nil, "NSG"},
		{"snack of reserved type", "snack", edit{1: 0x84}, nil, nil, "Type"},
		{"unassigned opcode", "snack", edit{0: 0x07}, nil, nil, "Opcode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &pdu.Header{}
			for _, g := range golden {
				if g.name == tt.from {
					h.BHS = [pdu.BHSLen]byte(unhex(t, g.wire))
				}
			}
			for i, b := range tt.edit {
				h.BHS[i] = b
			}
			h.AHS = tt.ahs
			_, err := pdu.Parse(h, tt.data)
			var fe *pdu.FormatError
			if !errors.As(err, &fe) {
				t.Fatalf("got %v, want a FormatError", err)
			}
			if fe.Field != tt.field {
				t.Errorf("field %q (%v), want %q", fe.Field, fe, tt.field)
			}
		})
	}
}

func TestDecodeRefusesAnotherType(t *testing.T) {
	h := header(unhex(t, golden[0].wire))
	for op := pdu.Opcode(0); op <= pdu.OpReject; op++ {
		if !op.Known() || op == pdu.OpSCSICommand {
			continue
		}
		if err := pdu.New(op).Decode(h, nil); err == nil {
			t.Errorf("%v decoded a scsi command", op)
		}
	}
}

func TestAppendHeaderRefuses(t *testing.T) {
	tests := map[string]pdu.PDU{
		"segment of 2^24 bytes": &pdu.DataOut{Data: make([]byte, 1<<24)},
		"overlong extended cdb": &pdu.SCSICommand{ExtendedCDB: make([]byte, 1009)},
	}
	for name, p := range tests {
		if b, err := p.AppendHeader([]byte("x")); err == nil || len(b) != 1 {
			t.Errorf("%s: got %d bytes, %v", name, len(b), err)
		}
	}
}

func TestSense(t *testing.T) {
	tests := map[string]struct{ data, want string }{
		"none":          {"", ""},
		"empty":         {"\x00\x00", ""},
		"half a length": {"\x00", ""},
		"whole":         {"\x00\x03abc", "abc"},
		"with response": {"\x00\x02abc", "ab"},
		"cut":           {"\x00\x09abc", "abc"},
	}
	for name, tt := range tests {
		if got := (&pdu.SCSIResponse{Data: []byte(tt.data)}).Sense(); string(got) != tt.want {
			t.Errorf("%s: SCSIResponse: %q, want %q", name, got, tt.want)
		}
		if got := (&pdu.AsyncMessage{Data: []byte(tt.data)}).Sense(); string(got) != tt.want {
			t.Errorf("%s: AsyncMessage: %q, want %q", name, got, tt.want)
		}
	}
	if got := pdu.AppendSense([]byte("x"), []byte("abc")); string(got) != "x\x00\x03abc" {
		t.Errorf("AppendSense: %q", got)
	}
}

func TestRejectBadHeader(t *testing.T) {
	bad := unhex(t, golden[2].wire) // with additional header segments
	h, ok := (&pdu.Reject{Data: bad}).BadHeader()
	if !ok || h.Opcode() != pdu.OpSCSICommand || len(h.AHS) != 20 {
		t.Errorf("whole header: %v, %v", h, ok)
	}
	if h, ok := (&pdu.Reject{Data: bad[:50]}).BadHeader(); !ok || len(h.AHS) != 2 {
		t.Errorf("cut header: %v, %v", h, ok)
	}
	if _, ok := (&pdu.Reject{Data: bad[:47]}).BadHeader(); ok {
		t.Error("47 bytes taken for a header")
	}
}

func TestHeaderAccessors(t *testing.T) {
	h := header(unhex(t, "c9800000 01000203 01020304 05060708 00000010 00000020 00000030 00000040 00000050"+
		"00000000 00000000 00000000 00010203"))
	got := []any{
		h.Immediate(), h.Final(), h.TotalAHSLength(), h.DataSegmentLength(), h.LUN(), h.InitiatorTaskTag(),
		h.TargetTransferTag(), h.CmdSN(), h.ExpStatSN(), h.StatSN(), h.ExpCmdSN(), h.MaxCmdSN(),
	}
	want := []any{true, true, 4, 0x203, pdu.LUN(0x0102030405060708), uint32(0x10), uint32(0x20), uint32(0x30), uint32(0x40), uint32(0x30), uint32(0x40), uint32(0x50)}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("accessor %d: %v, want %v", i, got[i], want[i])
		}
	}
}
