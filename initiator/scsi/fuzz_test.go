package scsi_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// fuzzDecoder checks that a decoder neither panics nor keeps more than a small
// multiple of what it was given, and that what it accepts survives being encoded
// and decoded again. encode may be nil.
func fuzzDecoder[T any](f *testing.F, seed []byte, parse func([]byte) (T, error), encode func(T) []byte) {
	f.Add([]byte{})
	f.Add(seed)
	for i := range seed {
		f.Add(seed[:i])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parse(b)
		if err != nil || encode == nil {
			return
		}
		wire := encode(v)
		if len(wire) > 64*len(b)+512 {
			t.Fatalf("%d bytes became %d", len(b), len(wire))
		}
		again, err := parse(wire)
		if err != nil {
			t.Fatalf("%+v is encoded as %x, which is refused: %v", v, wire, err)
		}
		if d := cmp.Diff(v, again); d != "" {
			t.Fatalf("%x (-first +second):\n%s", wire, d)
		}
	})
}

func FuzzSense(f *testing.F) {
	f.Add(scsi.Sense{ResponseCode: scsi.SenseDescriptor, Key: 3, Information: 1 << 40, InformationValid: true, FRU: 2, ILI: true}.Append(nil))
	fuzzDecoder(f, scsi.InvalidFieldInCDB(3).Append(nil), scsi.ParseSense, func(s scsi.Sense) []byte {
		_ = s.String()
		s.FieldPointer()
		s.Progress()
		return s.Append(nil)
	})
}

func FuzzCommand(f *testing.F) {
	var cdb scsi.CDB
	scsi.WriteSame16(&cdb, 1, 2, scsi.SameUnmap)
	f.Add(cdb[:])
	scsi.ReportSupportedOpcode(&cdb, scsi.OpUnmap, 8)
	fuzzDecoder(f, cdb[:], scsi.ParseCommand, nil)
}

func FuzzInquiry(f *testing.F) {
	fuzzDecoder(f, scsi.InquiryData{Vendor: "V", Product: "P"}.Append(nil), scsi.ParseInquiry, func(d scsi.InquiryData) []byte { return d.Append(nil) })
}

func FuzzSupportedPages(f *testing.F) {
	fuzzDecoder(f, page(0, []byte{0, 0x80, 0x83}), scsi.ParseSupportedPages, func(p scsi.VPDPages) []byte { return page(0, p.Append(nil)) })
}

func FuzzUnitSerial(f *testing.F) {
	fuzzDecoder(f, page(0x80, []byte(" 12 ")), scsi.ParseUnitSerial, func(s string) []byte { return page(0x80, []byte(s)) })
}

func FuzzDeviceID(f *testing.F) {
	fuzzDecoder(f, page(0x83, scsi.AppendDesignators(nil, scsi.Designator{Type: 3, CodeSet: 1, ID: []byte{0x60, 1}})), scsi.ParseDeviceID,
		func(ds []scsi.Designator) []byte {
			scsi.WWID(ds, scsi.InquiryData{}, "x")
			for _, d := range ds {
				_ = d.String()
			}
			return page(0x83, scsi.AppendDesignators(nil, ds...))
		})
}

func FuzzBlockLimits(f *testing.F) {
	fuzzDecoder(f, page(0xb0, scsi.BlockLimits{MaxTransfer: 1}.Append(nil)), scsi.ParseBlockLimits, func(l scsi.BlockLimits) []byte { return page(0xb0, l.Append(nil)) })
}

func FuzzCharacteristics(f *testing.F) {
	fuzzDecoder(f, page(0xb1, scsi.Characteristics{RotationRate: 1}.Append(nil)), scsi.ParseCharacteristics, func(c scsi.Characteristics) []byte { return page(0xb1, c.Append(nil)) })
}

func FuzzProvisioning(f *testing.F) {
	fuzzDecoder(f, page(0xb2, scsi.Provisioning{Unmap: true}.Append(nil)), scsi.ParseProvisioning, func(p scsi.Provisioning) []byte { return page(0xb2, p.Append(nil)) })
}

func FuzzCapacity(f *testing.F) {
	c := scsi.Capacity{LastLBA: 99, BlockSize: 512, Thin: true}
	f.Add(c.Append10(nil))
	fuzzDecoder(f, c.Append16(nil), scsi.ParseCapacity16, func(c scsi.Capacity) []byte {
		if c.Blocks() == 0 {
			panic("the number of blocks has wrapped")
		}
		return c.Append16(nil)
	})
}

func FuzzModeSense(f *testing.F) {
	f.Add(false, scsi.ModeHeader{DPOFUA: true}.AppendModeSense6(nil, scsi.CachingPage{WriteCache: true}.Append(nil)))
	f.Add(true, scsi.ModeHeader{DPOFUA: true}.AppendModeSense10(nil, scsi.CachingPage{WriteCache: true}.Append(nil)))
	f.Fuzz(func(t *testing.T, long bool, b []byte) {
		parse := scsi.ParseModeHeader6
		if long {
			parse = scsi.ParseModeHeader10
		}
		h, err := parse(b)
		if err != nil {
			return
		}
		for _, p := range []scsi.ModePage{scsi.ModeCaching, scsi.ModeControl, 0} {
			pg := h.Page(b, p)
			if len(pg) > len(b) {
				t.Fatal("a page longer than the data")
			}
			_, _ = scsi.ParseCachingPage(pg)
			_, _ = scsi.ParseControlPage(pg)
		}
	})
}

func FuzzUnmapList(f *testing.F) {
	fuzzDecoder(f, scsi.AppendUnmapList(nil, scsi.Extent{LBA: 1, Blocks: 2}), scsi.ParseUnmapList, nil)
}

func FuzzLBAStatus(f *testing.F) {
	fuzzDecoder(f, scsi.AppendLBAStatus(nil, scsi.LBAStatus{State: 1}), scsi.ParseLBAStatus, func(l []scsi.LBAStatus) []byte { return scsi.AppendLBAStatus(nil, l...) })
}

func FuzzReportLUNs(f *testing.F) {
	fuzzDecoder(f, scsi.AppendReportLUNs(nil, 1, 2), scsi.ParseReportLUNs, func(l []uint64) []byte { return scsi.AppendReportLUNs(nil, l...) })
}

func FuzzPortGroups(f *testing.F) {
	fuzzDecoder(f, scsi.AppendPortGroups(nil, scsi.PortGroup{ID: 1, Ports: []uint16{1}}), scsi.ParsePortGroups, func(g []scsi.PortGroup) []byte { return scsi.AppendPortGroups(nil, g...) })
}

func FuzzOpcodeSupport(f *testing.F) {
	fuzzDecoder(f, scsi.OpcodeSupport{Known: true, Supported: true, Usage: []byte{1, 2}}.Append(nil), scsi.ParseOpcodeSupport, func(s scsi.OpcodeSupport) []byte { return s.Append(nil) })
}

func FuzzReservations(f *testing.F) {
	f.Add(scsi.PRKeys{Keys: []uint64{1, 2}}.Append(nil))
	f.Add(scsi.PRReservation{Held: true, Type: 1}.Append(nil))
	f.Add(scsi.PRCapabilities{TypeMaskValid: true}.Append(nil))
	f.Add(scsi.PROutList{Key: 1}.Append(nil))
	f.Add(scsi.PRFullStatus{Registrants: []scsi.PRRegistrant{{Key: 1, TransportID: scsi.ISCSITransportID("iqn.a", "1")}}}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		scsi.PRInLength(b)
		_, _ = scsi.ParsePRReservation(b)
		_, _ = scsi.ParsePRCapabilities(b)
		_, _ = scsi.ParsePROutList(b)
		if k, err := scsi.ParsePRKeys(b); err == nil && 8*len(k.Keys) > len(b) {
			t.Fatal("more keys than data")
		}
		if s, err := scsi.ParsePRFullStatus(b); err == nil {
			for _, r := range s.Registrants {
				r.InitiatorName()
			}
			again, err := scsi.ParsePRFullStatus(s.Append(nil))
			if d := cmp.Diff(s, again); err != nil || d != "" {
				t.Fatalf("%v (-first +second):\n%s", err, d)
			}
		}
	})
}
