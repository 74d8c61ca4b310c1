package scsi_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// page wraps the contents of a VPD page.
func page(p scsi.VPDPage, body []byte) []byte {
	return scsi.AppendVPD(nil, 0, scsi.TypeDisk, p, body)
}

// roundTrip checks that v survives encoding and decoding, and that no prefix of
// the encoding makes the decoder panic.
func roundTrip[T any](t *testing.T, v T, wire []byte, parse func([]byte) (T, error)) {
	t.Helper()
	got, err := parse(wire)
	if d := cmp.Diff(v, got); err != nil || d != "" {
		t.Errorf("%x: %v (-want +got):\n%s", wire, err, d)
	}
	for n := range wire {
		_, _ = parse(wire[:n:n])
	}
}

func TestRoundTrips(t *testing.T) {
	inq := scsi.InquiryData{Qualifier: 1, Type: scsi.TypeController, Removable: true, Version: 7, TPGS: 3, ThirdPart: true, Protect: true, CmdQueue: true, Vendor: "VENDOR", Product: "A PRODUCT", Revision: "12"}
	roundTrip(t, inq, inq.Append(nil), scsi.ParseInquiry)

	var pages scsi.VPDPages
	for _, p := range []scsi.VPDPage{0, 0x80, 0x83, 0xb0, 0xff} {
		pages.Add(p)
	}
	roundTrip(t, pages, page(scsi.VPDSupportedPages, pages.Append(nil)), scsi.ParseSupportedPages)
	roundTrip(t, "SERIAL 1", page(scsi.VPDUnitSerial, []byte("  SERIAL 1  ")), scsi.ParseUnitSerial)

	ids := []scsi.Designator{
		{Type: scsi.DesignatorNAA, CodeSet: scsi.CodeSetBinary, ID: []byte{0x60, 1, 2}},
		{Type: scsi.DesignatorT10Vendor, CodeSet: scsi.CodeSetASCII, ID: []byte("IET     00010001")},
		{Type: scsi.DesignatorName, CodeSet: scsi.CodeSetUTF8, Association: scsi.AssocPort, PIV: true, Protocol: scsi.ProtocolISCSI, ID: []byte("iqn.x,t,0x0001\x00\x00")},
		{Type: scsi.DesignatorRelPort, CodeSet: scsi.CodeSetBinary, Association: scsi.AssocPort, ID: []byte{0, 0, 0, 1}},
	}
	roundTrip(t, ids, page(scsi.VPDDeviceID, scsi.AppendDesignators(nil, ids...)), scsi.ParseDeviceID)

	lim := scsi.BlockLimits{
		WriteSameNonZero: true, MaxCompareAndWrite: 1, OptimalGranularity: 2, MaxTransfer: 3, OptimalTransfer: 4, MaxPrefetch: 5,
		MaxUnmapBlocks: 6, MaxUnmapDescriptors: 7, UnmapGranularity: 8, UnmapAlignment: 0, UnmapAlignmentValid: true, MaxWriteSame: 1 << 40,
	}
	roundTrip(t, lim, page(scsi.VPDBlockLimits, lim.Append(nil)), scsi.ParseBlockLimits)
	chr := scsi.Characteristics{RotationRate: 7200, FormFactor: 2, Zoned: 1}
	roundTrip(t, chr, page(scsi.VPDCharacteristics, chr.Append(nil)), scsi.ParseCharacteristics)
	prov := scsi.Provisioning{ThresholdExponent: 1, Unmap: true, WriteSame16: true, WriteSame10: true, ReadZeros: 1, Anchor: true, Type: scsi.ProvisioningThin}
	roundTrip(t, prov, page(scsi.VPDLogicalProvisioning, prov.Append(nil)), scsi.ParseProvisioning)

	capacity := scsi.Capacity{LastLBA: 1 << 40, BlockSize: 4096, Protection: true, ProtectionType: 1, PhysicalExponent: 3, LowestAligned: 0x1234, Thin: true, ThinReadsZero: true}
	roundTrip(t, capacity, capacity.Append16(nil), scsi.ParseCapacity16)
	small := scsi.Capacity{LastLBA: 99, BlockSize: 512}
	roundTrip(t, small, small.Append10(nil), scsi.ParseCapacity10)

	extents := []scsi.Extent{{LBA: 1, Blocks: 2}, {LBA: 1 << 40, Blocks: 1 << 31}}
	roundTrip(t, extents, scsi.AppendUnmapList(nil, extents...), scsi.ParseUnmapList)
	states := []scsi.LBAStatus{{Extent: extents[0], State: scsi.LBADeallocated}, {Extent: extents[1]}}
	roundTrip(t, states, scsi.AppendLBAStatus(nil, states...), scsi.ParseLBAStatus)
	luns := []uint64{0, 1 << 48, 0x4101 << 48, 0xd200010000000000, math.MaxUint64}
	roundTrip(t, luns, scsi.AppendReportLUNs(nil, luns...), scsi.ParseReportLUNs)

	groups := []scsi.PortGroup{{ID: 1, State: scsi.AccessNonOptimized, Preferred: true, Supported: 0xdf, Status: 2, Ports: []uint16{1, 2}}, {ID: 2, State: scsi.AccessTransition}}
	roundTrip(t, groups, scsi.AppendPortGroups(nil, groups...), scsi.ParsePortGroups)

	ops := scsi.OpcodeSupport{Known: true, Supported: true, Usage: []byte{0x93, 0xf9}}
	roundTrip(t, ops, ops.Append(nil), scsi.ParseOpcodeSupport)
	roundTrip(t, scsi.OpcodeSupport{Known: true}, scsi.OpcodeSupport{Known: true}.Append(nil), scsi.ParseOpcodeSupport)
}

func TestReservationRoundTrips(t *testing.T) {
	out := scsi.PROutList{Key: 1, ServiceKey: 2, AllPorts: true, PersistPower: true, SpecInitiator: true}
	roundTrip(t, out, out.Append(nil), scsi.ParsePROutList)
	keys := scsi.PRKeys{Generation: 3, Keys: []uint64{1, 2, math.MaxUint64}}
	roundTrip(t, keys, keys.Append(nil), scsi.ParsePRKeys)
	if n := scsi.PRInLength(keys.Append(nil)[:8]); n != 32 {
		t.Errorf("length %d", n)
	}
	for _, r := range []scsi.PRReservation{
		{Generation: 1},
		{Generation: 2, Held: true, Key: 5, Type: scsi.WriteExclusiveRegistrantsOnly},
	} {
		roundTrip(t, r, r.Append(nil), scsi.ParsePRReservation)
	}
	caps := scsi.PRCapabilities{
		AllPorts: true, SpecInitiator: true, PersistPower: true, PowerActive: true, TypeMaskValid: true,
		Types: []scsi.ReservationType{scsi.WriteExclusive, scsi.ExclusiveAccess, scsi.ExclusiveAccessAllRegistrants},
	}
	roundTrip(t, caps, caps.Append(nil), scsi.ParsePRCapabilities)
	full := scsi.PRFullStatus{Generation: 1, Registrants: []scsi.PRRegistrant{
		{Key: 1, Holder: true, Type: scsi.ExclusiveAccess, RelativePort: 1, TransportID: scsi.ISCSITransportID("iqn.2026-01.com.example:a", "00023d000001")},
		{Key: 2, AllPorts: true, TransportID: scsi.ISCSITransportID("iqn.b", "")},
	}}
	roundTrip(t, full, full.Append(nil), scsi.ParsePRFullStatus)
	if n := full.Registrants[0].InitiatorName(); n != "iqn.2026-01.com.example:a,i,0x00023d000001" {
		t.Errorf("initiator %q", n)
	}
	if n := full.Registrants[1].InitiatorName(); n != "iqn.b" || len(full.Registrants[1].TransportID) != 24 {
		t.Errorf("initiator %q", n)
	}
	if n := (scsi.PRRegistrant{TransportID: make([]byte, 24)}).InitiatorName(); n != "" {
		t.Errorf("initiator %q of another transport", n)
	}
}

func TestModeSense(t *testing.T) {
	h := scsi.ModeHeader{WriteProtect: true, DPOFUA: true}
	caching, control := scsi.CachingPage{WriteCache: true, ReadCacheDisable: true, DisableReadAhead: true}, scsi.ControlPage{DescriptorSense: true, SoftwareWP: true}
	for _, long := range []bool{false, true} {
		b := h.AppendModeSense6(nil, control.Append(nil), caching.Append(nil))
		parse := scsi.ParseModeHeader6
		if long {
			b, parse = h.AppendModeSense10(nil, control.Append(nil), caching.Append(nil)), scsi.ParseModeHeader10
		}
		got, err := parse(b)
		if err != nil || !got.WriteProtect || !got.DPOFUA {
			t.Fatalf("%+v, %v", got, err)
		}
		if c, err := scsi.ParseCachingPage(got.Page(b, scsi.ModeCaching)); err != nil || c != caching {
			t.Errorf("%+v, %v", c, err)
		}
		if c, err := scsi.ParseControlPage(got.Page(b, scsi.ModeControl)); err != nil || c != control {
			t.Errorf("%+v, %v", c, err)
		}
		if got.Page(b, 0x1c) != nil {
			t.Error("a page that is not there")
		}
		if _, err := scsi.ParseCachingPage(got.Page(b, scsi.ModeControl)); err == nil {
			t.Error("the control page was taken for the caching page")
		}
		for n := range b {
			if g, err := parse(b[:n]); err == nil {
				g.Page(b[:n], scsi.ModeCaching)
			}
		}
	}
}

func TestModePagesBehindDescriptorsAndSubpages(t *testing.T) {
	b, _ := hex.DecodeString("2b0010080000000000000200" + "4a050004aabbccdd" + "0812040000000000000000000000000000000000")
	b[0] = byte(len(b) - 1)
	h, err := scsi.ParseModeHeader6(b)
	if err != nil || h.Descriptors != 8 || h.WriteProtect || !h.DPOFUA {
		t.Fatalf("%+v, %v", h, err)
	}
	if c, err := scsi.ParseCachingPage(h.Page(b, scsi.ModeCaching)); err != nil || !c.WriteCache {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestVPDFromTheWire(t *testing.T) {
	// The device answers with another page than the one asked for.
	if _, err := scsi.ParseBlockLimits(page(scsi.VPDCharacteristics, make([]byte, 60))); err == nil {
		t.Error("another page was accepted")
	}
	// SBC-2's block limits have 12 bytes.
	l, err := scsi.ParseBlockLimits(page(scsi.VPDBlockLimits, []byte{0, 0, 0, 8, 0, 0, 1, 0, 0, 0, 0, 128}))
	if err != nil || l.MaxTransfer != 256 || l.OptimalTransfer != 128 || l.MaxUnmapBlocks != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if n := scsi.VPDLength(page(0x83, make([]byte, 1000))[:4]); n != 1004 {
		t.Errorf("length %d", n)
	}
	// A descriptor that reaches beyond the page ends the list.
	b := page(scsi.VPDDeviceID, []byte{1, 3, 0, 2, 0x60, 1, 1, 3, 0, 200, 0x60})
	if ds, err := scsi.ParseDeviceID(b); err != nil || len(ds) != 1 {
		t.Errorf("%v, %v", ds, err)
	}
	if ds, _ := scsi.ParseDeviceID(page(scsi.VPDDeviceID, make([]byte, 0xffff))); len(ds) > 256 {
		t.Errorf("%d designators", len(ds))
	}
}

func TestInquiryFromTheWire(t *testing.T) {
	d, err := scsi.ParseInquiry([]byte{0x7f, 0, 5, 2, 0})
	if err != nil || d.Present() || d.Qualifier != 3 || d.Type != scsi.TypeUnknown {
		t.Errorf("%+v, %v", d, err)
	}
	b := scsi.InquiryData{Vendor: "A\x01B", Product: "much too long for the field", Revision: "1\x00ab"}.Append(nil)
	if d, err = scsi.ParseInquiry(b); err != nil || d.Vendor != "A?B" || d.Product != "much too long fo" || d.Revision != "1" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestUnmapListThatIsCutShortIsRefused(t *testing.T) {
	b := scsi.AppendUnmapList(nil, scsi.Extent{LBA: 1, Blocks: 1}, scsi.Extent{LBA: 9, Blocks: 1})
	for n := 1; n < len(b); n++ {
		var fe *scsi.FormatError
		if _, err := scsi.ParseUnmapList(b[:n]); !errors.As(err, &fe) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	binary.BigEndian.PutUint16(b, 14) // says less than the descriptors have
	if _, err := scsi.ParseUnmapList(b); err == nil {
		t.Error("contradicting lengths were accepted")
	}
	if got := len(scsi.AppendUnmapList(nil, make([]scsi.Extent, 5000)...)); got != 8+16*scsi.MaxUnmapDescriptors || got > math.MaxUint16+2 {
		t.Errorf("%d bytes", got)
	}
}

func TestReportLUNs(t *testing.T) {
	luns := make([]uint64, 1000)
	for i := range luns {
		luns[i] = uint64(i) << 48
	}
	b := scsi.AppendReportLUNs(nil, luns...)
	if n, err := scsi.ReportLUNsLength(b[:8]); err != nil || n != 8008 {
		t.Errorf("length %d, %v", n, err)
	}
	if got, err := scsi.ParseReportLUNs(b[:8+8*10+3]); err != nil || !slices.Equal(got, luns[:10]) {
		t.Errorf("%v, %v", got, err)
	}
	for lun, want := range map[uint64]scsi.AddressMethod{
		5 << 48:            scsi.AddressPeripheral,
		0x4101 << 48:       scsi.AddressFlat,
		0x8001 << 48:       scsi.AddressUnit,
		0xd200010000000000: scsi.AddressExtended,
	} {
		if got := scsi.AddressMethodOf(lun); got != want || got.String() == "" {
			t.Errorf("%x: %v", lun, got)
		}
	}
	if w, ok := scsi.WellKnown(0xc101 << 48); !ok || w != 1 {
		t.Errorf("well known unit %d, %v", w, ok)
	}
	if _, ok := scsi.WellKnown(1 << 48); ok {
		t.Error("LUN 1 is well known")
	}
}

func TestCapacityBlocks(t *testing.T) {
	for last, want := range map[uint64]uint64{0: 1, 99: 100, math.MaxUint64: math.MaxUint64} {
		if got := (scsi.Capacity{LastLBA: last}).Blocks(); got != want {
			t.Errorf("%d: %d", last, got)
		}
	}
	big := scsi.Capacity{LastLBA: 1 << 40, BlockSize: 512}
	if c, _ := scsi.ParseCapacity10(big.Append10(nil)); c.LastLBA != math.MaxUint32 {
		t.Errorf("READ CAPACITY(10) of a large disk: %+v", c)
	}
}

func TestWWID(t *testing.T) {
	bin := func(t scsi.DesignatorType, s string) scsi.Designator {
		b, _ := hex.DecodeString(s)
		return scsi.Designator{Type: t, CodeSet: scsi.CodeSetBinary, ID: b}
	}
	text := func(t scsi.DesignatorType, s string) scsi.Designator {
		return scsi.Designator{Type: t, CodeSet: scsi.CodeSetASCII, ID: []byte(s)}
	}
	inq := scsi.InquiryData{Vendor: "IET", Product: "VIRTUAL-DISK"}
	port := bin(scsi.DesignatorNAA, "6000000000000001")
	port.Association = scsi.AssocPort
	tests := []struct {
		name   string
		ids    []scsi.Designator
		serial string
		want   string
	}{
		{"NAA 6 before all", []scsi.Designator{text(scsi.DesignatorT10Vendor, "IET     00010001"), bin(scsi.DesignatorEUI64, "0011223344556677"), bin(scsi.DesignatorNAA, "5000112233445566"), bin(scsi.DesignatorNAA, "60000000000000000e00000000010001")}, "x", "360000000000000000e00000000010001"},
		{"NAA 5 before 3", []scsi.Designator{bin(scsi.DesignatorNAA, "3000112233445566"), bin(scsi.DesignatorNAA, "5000112233445566")}, "", "35000112233445566"},
		{"EUI-64", []scsi.Designator{text(scsi.DesignatorT10Vendor, "X"), bin(scsi.DesignatorEUI64, "0011223344556677")}, "", "20011223344556677"},
		{"T10 vendor, tgt", []scsi.Designator{text(scsi.DesignatorT10Vendor, "IET     00010001")}, "", "1IET_00010001"},
		{"T10 vendor with odd characters", []scsi.Designator{text(scsi.DesignatorT10Vendor, " a/b\x7f  c\x00\x00")}, "", "1_a_b__c"},
		{"vendor specific", []scsi.Designator{text(scsi.DesignatorVendor, "abc")}, "", "0IET_VIRTUAL-DISK_abc"},
		{"those of ports do not count", []scsi.Designator{port}, "beaf11", "SIET_VIRTUAL-DISK_beaf11"},
		{"nothing", nil, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := scsi.WWID(tt.ids, inq, tt.serial); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
