package scsi_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// A fuzzDecoder checks one decoder with what a target may have sent.
type fuzzDecoder struct {
	seeds [][]byte
	check func(t *testing.T, b []byte)
}

// decoderOf checks that a decoder neither panics nor keeps more than a small
// multiple of what it was given, and that what it accepts survives being encoded
// and decoded again. encode may be nil.
func decoderOf[T any](parse func([]byte) (T, error), encode func(T) []byte, seeds ...[]byte) fuzzDecoder {
	return fuzzDecoder{seeds, func(t *testing.T, b []byte) {
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
	}}
}

// fuzzDecoders has every decoder of the package. The first byte of an input
// chooses, so new ones go to the end: the corpus stays what it was.
func fuzzDecoders() []fuzzDecoder {
	var same, support scsi.CDB
	scsi.WriteSame16(&same, 1, 2, scsi.SameUnmap)
	scsi.ReportSupportedOpcode(&support, scsi.OpUnmap, 8)
	capacity := scsi.Capacity{LastLBA: 99, BlockSize: 512, Thin: true}
	return []fuzzDecoder{
		decoderOf(scsi.ParseSense, encodeSense, scsi.InvalidFieldInCDB(3).Append(nil),
			scsi.Sense{ResponseCode: scsi.SenseDescriptor, Key: 3, Information: 1 << 40, InformationValid: true, FRU: 2, ILI: true}.Append(nil)),
		decoderOf(scsi.ParseCommand, nil, same[:], support[:]),
		decoderOf(scsi.ParseInquiry, func(d scsi.InquiryData) []byte { return d.Append(nil) },
			scsi.InquiryData{Vendor: "V", Product: "P"}.Append(nil)),
		decoderOf(scsi.ParseSupportedPages, func(p scsi.VPDPages) []byte { return page(0, p.Append(nil)) },
			page(0, []byte{0, 0x80, 0x83})),
		decoderOf(scsi.ParseUnitSerial, func(s string) []byte { return page(0x80, []byte(s)) }, page(0x80, []byte(" 12 "))),
		decoderOf(scsi.ParseDeviceID, encodeDeviceID,
			page(0x83, scsi.AppendDesignators(nil, scsi.Designator{Type: 3, CodeSet: 1, ID: []byte{0x60, 1}}))),
		decoderOf(scsi.ParseBlockLimits, func(l scsi.BlockLimits) []byte { return page(0xb0, l.Append(nil)) },
			page(0xb0, scsi.BlockLimits{MaxTransfer: 1}.Append(nil))),
		decoderOf(scsi.ParseCharacteristics, func(c scsi.Characteristics) []byte { return page(0xb1, c.Append(nil)) },
			page(0xb1, scsi.Characteristics{RotationRate: 1}.Append(nil))),
		decoderOf(scsi.ParseProvisioning, func(p scsi.Provisioning) []byte { return page(0xb2, p.Append(nil)) },
			page(0xb2, scsi.Provisioning{Unmap: true}.Append(nil))),
		decoderOf(scsi.ParseCapacity16, encodeCapacity, capacity.Append16(nil), capacity.Append10(nil)),
		{
			[][]byte{scsi.ModeHeader{DPOFUA: true}.AppendModeSense6(nil, scsi.CachingPage{WriteCache: true}.Append(nil))},
			func(t *testing.T, b []byte) { checkModeSense(t, b, scsi.ParseModeHeader6) },
		},
		{
			[][]byte{scsi.ModeHeader{DPOFUA: true}.AppendModeSense10(nil, scsi.CachingPage{WriteCache: true}.Append(nil))},
			func(t *testing.T, b []byte) { checkModeSense(t, b, scsi.ParseModeHeader10) },
		},
		decoderOf(scsi.ParseUnmapList, nil, scsi.AppendUnmapList(nil, scsi.Extent{LBA: 1, Blocks: 2})),
		decoderOf(scsi.ParseLBAStatus, func(l []scsi.LBAStatus) []byte { return scsi.AppendLBAStatus(nil, l...) },
			scsi.AppendLBAStatus(nil, scsi.LBAStatus{State: 1})),
		decoderOf(scsi.ParseReportLUNs, func(l []uint64) []byte { return scsi.AppendReportLUNs(nil, l...) },
			scsi.AppendReportLUNs(nil, 1, 2)),
		decoderOf(scsi.ParsePortGroups, func(g []scsi.PortGroup) []byte { return scsi.AppendPortGroups(nil, g...) },
			scsi.AppendPortGroups(nil, scsi.PortGroup{ID: 1, Ports: []uint16{1}})),
		decoderOf(scsi.ParseOpcodeSupport, func(s scsi.OpcodeSupport) []byte { return s.Append(nil) },
			scsi.OpcodeSupport{Known: true, Supported: true, Usage: []byte{1, 2}}.Append(nil)),
		{[][]byte{
			scsi.PRKeys{Keys: []uint64{1, 2}}.Append(nil),
			scsi.PRReservation{Held: true, Type: 1}.Append(nil),
			scsi.PRCapabilities{TypeMaskValid: true}.Append(nil),
			scsi.PROutList{Key: 1}.Append(nil),
		}, checkReservations},
		decoderOf(scsi.ParsePRFullStatus, encodeFullStatus,
			scsi.PRFullStatus{Registrants: []scsi.PRRegistrant{{Key: 1, TransportID: scsi.ISCSITransportID("iqn.a", "1")}}}.Append(nil)),
	}
}

// FuzzDecode feeds hostile CDBs and data to the decoder that the first
// argument chooses.
func FuzzDecode(f *testing.F) {
	decoders := fuzzDecoders()
	for i, d := range decoders {
		f.Add(byte(i), []byte{})
		for _, seed := range d.seeds {
			for n := range seed {
				f.Add(byte(i), seed[:n])
			}
			f.Add(byte(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		decoders[int(which)%len(decoders)].check(t, b)
	})
}

func encodeSense(s scsi.Sense) []byte {
	_ = s.String()
	s.FieldPointer()
	s.Progress()
	return s.Append(nil)
}

func encodeDeviceID(ds []scsi.Designator) []byte {
	scsi.WWID(ds, scsi.InquiryData{}, "x")
	for _, d := range ds {
		_ = d.String()
	}
	return page(0x83, scsi.AppendDesignators(nil, ds...))
}

func encodeCapacity(c scsi.Capacity) []byte {
	if c.Blocks() == 0 {
		panic("the number of blocks has wrapped")
	}
	return c.Append16(nil)
}

func encodeFullStatus(s scsi.PRFullStatus) []byte {
	for _, r := range s.Registrants {
		r.InitiatorName()
	}
	return s.Append(nil)
}

func checkModeSense(t *testing.T, b []byte, parse func([]byte) (scsi.ModeHeader, error)) {
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
}

func checkReservations(t *testing.T, b []byte) {
	scsi.PRInLength(b)
	_, _ = scsi.ParsePRReservation(b)
	_, _ = scsi.ParsePRCapabilities(b)
	_, _ = scsi.ParsePROutList(b)
	if k, err := scsi.ParsePRKeys(b); err == nil && 8*len(k.Keys) > len(b) {
		t.Fatal("more keys than data")
	}
}
