package scsi_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

func TestSenseRoundTrip(t *testing.T) {
	for _, s := range []scsi.Sense{
		scsi.NewSense(scsi.KeyMediumError, 0x11, 0x00),
		scsi.InvalidFieldInCDB(7),
		{ResponseCode: scsi.SenseFixed, Key: scsi.KeyMediumError, ASC: 0x11, Information: 0x12345678, InformationValid: true, FRU: 3, CommandSpecific: 9},
		{ResponseCode: scsi.SenseFixedDeferred, Key: scsi.KeyHardwareError, ASC: 0x44, ILI: true, EOM: true, Filemark: true},
		{ResponseCode: scsi.SenseDescriptor, Key: scsi.KeyUnitAttention, ASC: 0x29, ASCQ: 7},
		{
			ResponseCode: scsi.SenseDescriptor, Key: scsi.KeyIllegalRequest, ASC: 0x24, FRU: 3,
			Information: 1 << 40, InformationValid: true, CommandSpecific: 5, ILI: true,
			KeySpecific: [3]byte{0x40, 0, 7}, KeySpecificValid: true,
		},
		{ResponseCode: scsi.SenseDescriptorDeferred, Key: scsi.KeyMediumError, ASC: 0xc, InformationValid: true},
	} {
		b := s.Append(nil)
		got, err := scsi.ParseSense(b)
		if d := cmp.Diff(s, got); err != nil || d != "" {
			t.Errorf("%x: %v (-want +got):\n%s", b, err, d)
		}
	}
}

func TestWideInformationNeedsDescriptors(t *testing.T) {
	s := scsi.Sense{ResponseCode: scsi.SenseFixed, Key: scsi.KeyMediumError, Information: 1 << 32, InformationValid: true}
	got, err := scsi.ParseSense(s.Append(nil))
	if err != nil || got.ResponseCode != scsi.SenseDescriptor || got.Information != 1<<32 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestSenseFromTheWire(t *testing.T) {
	tests := []struct {
		name, wire, want string
	}{
		{"fixed", "700003000000000a000000001100000000000000", "medium error: unrecovered read error (3/11/00)"},
		{"fixed with information", "f00003000012340a000000001100", "medium error: unrecovered read error (3/11/00) at 0x1234"},
		{"fixed, nothing but the key", "700005", "illegal request: no additional sense information (5/00/00)"},
		{"fixed, additional length 0", "7000060000000000000000002900", "unit attention: no additional sense information (6/00/00)"},
		{"descriptor", "7206290000000000", "unit attention: power on, reset, or bus device reset occurred (6/29/00)"},
		{"descriptor with information", "720311000000000c000a80000000000000001234", "medium error: unrecovered read error (3/11/00) at 0x1234"},
		{"descriptor cut short", "720311000000000c000a8000", "medium error: unrecovered read error (3/11/00)"},
		{"direct access descriptor", "72031100000000220d1e80000000000000000000000012340000000000000000000000000000000000", "medium error: unrecovered read error (3/11/00) at 0x1234"},
		{"deferred", "710004000000000a00000000440000000000", "deferred hardware error: internal target failure (4/44/00)"},
		{"unknown qualifier", "700002000000000a0000000004ee", "not ready: logical unit not ready, cause not reportable (2/04/ee)"},
		{"unknown code", "700009000000000a0000000080ee", "vendor specific (9/80/ee)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.wire)
			if err != nil {
				t.Fatal(err)
			}
			s, err := scsi.ParseSense(b)
			if err != nil || s.String() != tt.want {
				t.Errorf("%q, %v", s, err)
			}
		})
	}
	for _, bad := range []string{"", "70", "7000", "72", "720300", "00000300", "7f0003"} {
		b, _ := hex.DecodeString(bad)
		var fe *scsi.FormatError
		if s, err := scsi.ParseSense(b); !errors.As(err, &fe) || s.Valid() {
			t.Errorf("%q: %v, %v", bad, s, err)
		}
	}
}

func TestSenseDetails(t *testing.T) {
	if off, cdb, ok := scsi.InvalidFieldInCDB(300).FieldPointer(); off != 300 || !cdb || !ok {
		t.Errorf("field pointer %d, %v, %v", off, cdb, ok)
	}
	s := scsi.Sense{ResponseCode: scsi.SenseFixed, Key: scsi.KeyNotReady, ASC: 4, ASCQ: 4, KeySpecific: [3]byte{0, 0x80, 0}, KeySpecificValid: true}
	if p, ok := s.Progress(); p != 0x8000 || !ok {
		t.Errorf("progress %d, %v", p, ok)
	}
	if _, _, ok := s.FieldPointer(); ok {
		t.Error("a field pointer where there is none")
	}
	if (scsi.Sense{}).String() != "no sense data" || (scsi.Sense{}).Valid() {
		t.Error("the zero Sense is sense data")
	}
}

func TestStatusError(t *testing.T) {
	var cdb scsi.CDB
	scsi.Read10(&cdb, 1, 2, 0)
	err := scsi.NewStatusError(cdb[:], scsi.StatusCheckCondition, scsi.NewSense(scsi.KeyMediumError, 0x11, 0).Append(nil))
	if want := "READ(10): medium error: unrecovered read error (3/11/00)"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	for _, tt := range []struct {
		target error
		want   bool
	}{
		{&scsi.StatusError{Status: scsi.StatusCheckCondition}, true},
		{&scsi.StatusError{Status: scsi.StatusCheckCondition, Sense: scsi.NewSense(scsi.KeyMediumError, 0x11, 0)}, true},
		{&scsi.StatusError{Status: scsi.StatusCheckCondition, Sense: scsi.NewSense(scsi.KeyMediumError, 0x11, 1)}, false},
		{&scsi.StatusError{Status: scsi.StatusBusy}, false},
		{errors.ErrUnsupported, false},
	} {
		if got := errors.Is(err, tt.target); got != tt.want {
			t.Errorf("errors.Is(%v) = %v", tt.target, got)
		}
	}
	if scsi.NewStatusError(nil, scsi.StatusGood, nil) != nil {
		t.Error("GOOD is an error")
	}
	if err := scsi.NewStatusError(nil, scsi.StatusCheckCondition, []byte{1, 2}); !strings.Contains(err.Error(), "CHECK CONDITION") {
		t.Errorf("%v", err)
	}
	for s := range 256 {
		if scsi.Status(s).String() == "" || scsi.Opcode(s).String() == "" || scsi.DeviceType(s).String() == "" {
			t.Errorf("0x%02x has no name", s)
		}
	}
}
