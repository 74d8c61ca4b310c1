package iscsitest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

func TestInquiry(t *testing.T) {
	srv, lun := newServer(t, func(c *iscsitest.Config) { c.Targets[0].Controller = true })
	c := login(t, srv)
	std := func(n uint64) scsi.InquiryData {
		o := c.in(n, func(cdb *scsi.CDB) int { return scsi.Inquiry(cdb, 255) }, 255).good(t)
		d, err := scsi.ParseInquiry(o.data)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := std(1); d.Type != scsi.TypeDisk || !d.Present() || d.Vendor != "GOISCSI" || d.Product != "DISK" || d.Revision != "0001" {
		t.Errorf("disk: %+v", d)
	}
	if d := std(0); d.Type != scsi.TypeController || !d.Present() || d.Product != "CONTROLLER" {
		t.Errorf("controller: %+v", d)
	}
	if d := std(9); d.Present() || d.Type != scsi.TypeUnknown {
		t.Errorf("no unit: %+v", d)
	}
	page := func(p scsi.VPDPage) []byte {
		return c.in(1, func(cdb *scsi.CDB) int { return scsi.InquiryVPD(cdb, p, 1024) }, 1024).good(t).data
	}
	pages, err := scsi.ParseSupportedPages(page(scsi.VPDSupportedPages))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []scsi.VPDPage{0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2} {
		if !pages.Has(p) {
			t.Errorf("page %v is missing", p)
		}
	}
	if s, err := scsi.ParseUnitSerial(page(scsi.VPDUnitSerial)); err != nil || s != lun.Serial || s == "" {
		t.Errorf("serial %q, %v", s, err)
	}
	ids, err := scsi.ParseDeviceID(page(scsi.VPDDeviceID))
	if err != nil || len(ids) < 2 || ids[0].Type != scsi.DesignatorNAA || !bytes.Equal(ids[0].ID, lun.NAA) {
		t.Errorf("designators %v, %v", ids, err)
	}
	if l, err := scsi.ParseBlockLimits(page(scsi.VPDBlockLimits)); err != nil || l.MaxUnmapBlocks == 0 || l.MaxCompareAndWrite == 0 {
		t.Errorf("limits %+v, %v", l, err)
	}
	if ch, err := scsi.ParseCharacteristics(page(scsi.VPDCharacteristics)); err != nil || ch.Rotational() {
		t.Errorf("characteristics %+v, %v", ch, err)
	}
	if p, err := scsi.ParseProvisioning(page(scsi.VPDLogicalProvisioning)); err != nil || !p.Unmap || p.Type != scsi.ProvisioningThin {
		t.Errorf("provisioning %+v, %v", p, err)
	}
	c.in(1, func(cdb *scsi.CDB) int { return scsi.InquiryVPD(cdb, 0xc0, 255) }, 255).fails(t, scsi.KeyIllegalRequest, 0x24, 0)
	noViolations(t, srv)
}

func TestReportLUNs(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) {
		for _, n := range []uint64{0, 300, 20000} {
			c.Targets[0].LUNs[n] = &iscsitest.LUN{Store: iscsitest.NewMemStore(512)}
		}
	})
	c := login(t, srv)
	o := c.in(77, func(cdb *scsi.CDB) int { return scsi.ReportLUNs(cdb, scsi.SelectAddressable, 1024) }, 1024).good(t)
	fields, err := scsi.ParseReportLUNs(o.data)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []uint64
	for _, f := range fields {
		n, ok := pdu.LUN(f).Number()
		if !ok {
			t.Errorf("LUN %#x", f)
		}
		numbers = append(numbers, n)
	}
	if !slices.Equal(numbers, []uint64{0, 1, 300, 20000}) {
		t.Errorf("LUNs %v", numbers)
	}
	c.in(20000, scsi.TestUnitReady, 0).good(t)
	c.in(2, scsi.TestUnitReady, 0).fails(t, scsi.KeyIllegalRequest, 0x25, 0)
}

func TestCapacityAndModes(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) {
		c.Targets[0].LUNs[2] = &iscsitest.LUN{
			Store: iscsitest.NewMemStore(1 << 20), BlockSize: 4096, PhysicalExponent: 1, ReadOnly: true, WriteCache: true,
		}
	})
	c := login(t, srv)
	o := c.in(2, func(cdb *scsi.CDB) int { return scsi.ReadCapacity16(cdb, 32) }, 32).good(t)
	if k, err := scsi.ParseCapacity16(o.data); err != nil || k.Blocks() != 256 || k.BlockSize != 4096 || k.PhysicalExponent != 1 || k.Thin {
		t.Errorf("capacity %+v, %v", k, err)
	}
	o = c.in(1, scsi.ReadCapacity10, 8).good(t)
	if k, err := scsi.ParseCapacity10(o.data); err != nil || k.Blocks() != diskSize/512 || k.BlockSize != 512 {
		t.Errorf("capacity %+v, %v", k, err)
	}
	for lun, ro := range map[uint64]bool{1: false, 2: true} {
		o = c.in(lun, func(cdb *scsi.CDB) int { return scsi.ModeSense6(cdb, scsi.ModeAll, 0, 255) }, 255).good(t)
		h, err := scsi.ParseModeHeader6(o.data)
		if err != nil || h.WriteProtect != ro || !h.DPOFUA {
			t.Errorf("lun %d: mode header %+v, %v", lun, h, err)
		}
		p, err := scsi.ParseCachingPage(h.Page(o.data, scsi.ModeCaching))
		if err != nil || p.WriteCache != ro {
			t.Errorf("lun %d: caching %+v, %v", lun, p, err)
		}
		o = c.in(lun, func(cdb *scsi.CDB) int { return scsi.ModeSense10(cdb, scsi.ModeControl, 0, 255) }, 255).good(t)
		if h, err := scsi.ParseModeHeader10(o.data); err != nil || h.Page(o.data, scsi.ModeControl) == nil {
			t.Errorf("lun %d: mode sense(10) %x, %v", lun, o.data, err)
		}
	}
	c.out(2, func(cdb *scsi.CDB) int { return scsi.Write10(cdb, 0, 1, 0) }, make([]byte, 4096)).fails(t, scsi.KeyDataProtect, 0x27, 0)
}

// TestReadWriteVariants uses each length of CDB.
func TestReadWriteVariants(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	tests := []struct {
		name        string
		read, write func(cdb *scsi.CDB) int
	}{
		{"6", func(b *scsi.CDB) int { return scsi.Read6(b, 9, 2) }, func(b *scsi.CDB) int { return scsi.Write6(b, 9, 2) }},
		{"10", func(b *scsi.CDB) int { return scsi.Read10(b, 9, 2, 0) }, func(b *scsi.CDB) int { return scsi.Write10(b, 9, 2, scsi.FUA) }},
		{"12", func(b *scsi.CDB) int { return scsi.Read12(b, 9, 2, 0) }, func(b *scsi.CDB) int { return scsi.Write12(b, 9, 2, 0) }},
		{"16", func(b *scsi.CDB) int { return scsi.Read16(b, 9, 2, scsi.DPO) }, func(b *scsi.CDB) int { return scsi.Write16(b, 9, 2, 0) }},
	}
	for i, tt := range tests {
		data := pattern(1024, byte(i+1))
		c.out(1, tt.write, data).good(t)
		if o := c.in(1, tt.read, 1024).good(t); !bytes.Equal(o.data, data) {
			t.Errorf("READ(%s) differs", tt.name)
		}
	}
	end := uint64(diskSize / 512)
	c.in(1, readCDB(end, 1), 512).fails(t, scsi.KeyIllegalRequest, 0x21, 0)
	c.in(1, readCDB(end-1, 2), 1024).fails(t, scsi.KeyIllegalRequest, 0x21, 0)
	c.in(1, readCDB(1<<63, 1), 512).fails(t, scsi.KeyIllegalRequest, 0x21, 0)
	c.out(1, writeCDB(end, 1), make([]byte, 512)).fails(t, scsi.KeyIllegalRequest, 0x21, 0)
	c.in(1, readCDB(end, 0), 0).good(t)
	c.in(1, func(b *scsi.CDB) int { b[0] = 0xee; return 16 }, 0).fails(t, scsi.KeyIllegalRequest, 0x20, 0)
	for _, sync := range []func(*scsi.CDB) int{
		func(b *scsi.CDB) int { return scsi.SynchronizeCache10(b, 0, 0, false) },
		func(b *scsi.CDB) int { return scsi.SynchronizeCache16(b, 0, 0, false) },
		func(b *scsi.CDB) int { return scsi.StartStopUnit(b, true, false, false) },
	} {
		c.in(1, sync, 0).good(t)
	}
	noViolations(t, srv)
}

func TestUnmapAndWriteSame(t *testing.T) {
	srv, lun := newServer(t, nil)
	c := login(t, srv, kv("FirstBurstLength", "262144"))
	store := lun.Store.(*iscsitest.MemStore)
	zeroes := make([]byte, 1024)
	fill := func() {
		t.Helper()
		c.out(1, writeCDB(0, 256), pattern(256*512, 5)).good(t)
	}
	read := func(lba uint64, blocks int) []byte {
		t.Helper()
		return c.in(1, readCDB(lba, uint32(blocks)), blocks*512).good(t).data
	}
	fill()
	list := scsi.AppendUnmapList(nil, scsi.Extent{LBA: 0, Blocks: 128}, scsi.Extent{LBA: 130, Blocks: 2})
	c.out(1, func(b *scsi.CDB) int { return scsi.Unmap(b, uint16(len(list))) }, list).good(t)
	if !bytes.Equal(read(0, 2), zeroes) || !bytes.Equal(read(130, 2), zeroes) || bytes.Equal(read(128, 2), zeroes) {
		t.Error("UNMAP cleared something else")
	}
	if n := store.Allocated(); n != 64<<10 {
		t.Errorf("%d bytes allocated after UNMAP of half", n)
	}
	beyond := scsi.AppendUnmapList(nil, scsi.Extent{LBA: diskSize / 512, Blocks: 1})
	c.out(1, func(b *scsi.CDB) int { return scsi.Unmap(b, uint16(len(beyond))) }, beyond).fails(t, scsi.KeyIllegalRequest, 0x21, 0)
	fill()
	block := pattern(512, 9)
	c.out(1, func(b *scsi.CDB) int { return scsi.WriteSame16(b, 10, 300, 0) }, block).good(t)
	for _, lba := range []uint64{10, 309} {
		if !bytes.Equal(read(lba, 1), block) {
			t.Errorf("WRITE SAME left block %d", lba)
		}
	}
	if bytes.Equal(read(9, 1), block) || bytes.Equal(read(310, 1), block) {
		t.Error("WRITE SAME wrote something else")
	}
	c.in(1, func(b *scsi.CDB) int { return scsi.WriteSame16(b, 0, 2, scsi.SameNDOB) }, 0).good(t)
	if !bytes.Equal(read(0, 2), zeroes) {
		t.Error("WRITE SAME with NDOB did not write zeroes")
	}
	c.out(1, func(b *scsi.CDB) int { return scsi.WriteSame10(b, 128, 128, scsi.SameUnmap) }, make([]byte, 512)).good(t)
	if !bytes.Equal(read(128, 2), zeroes) {
		t.Error("WRITE SAME with UNMAP did not unmap")
	}
	noViolations(t, srv)
}

func TestCompareAndWriteAndVerify(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	old, fresh := pattern(1024, 1), pattern(1024, 2)
	c.out(1, writeCDB(4, 2), old).good(t)
	caw := func(b *scsi.CDB) int { return scsi.CompareAndWrite(b, 4, 2, 0) }
	c.out(1, caw, append(bytes.Clone(old), fresh...)).good(t)
	if o := c.in(1, readCDB(4, 2), 1024).good(t); !bytes.Equal(o.data, fresh) {
		t.Error("COMPARE AND WRITE did not write")
	}
	wrong := bytes.Clone(fresh)
	wrong[700]++
	o := c.out(1, caw, append(wrong, old...))
	o.fails(t, scsi.KeyMiscompare, 0x1d, 0)
	if !o.sense.InformationValid || o.sense.Information != 700 {
		t.Errorf("miscompare at %d, expected 700", o.sense.Information)
	}
	if o := c.in(1, readCDB(4, 2), 1024).good(t); !bytes.Equal(o.data, fresh) {
		t.Error("COMPARE AND WRITE wrote in spite of a miscompare")
	}
	c.in(1, func(b *scsi.CDB) int { return scsi.Verify10(b, 4, 2) }, 0).good(t)
	compare := func(b *scsi.CDB) int { n := scsi.Verify16(b, 4, 2); b[1] |= 2; return n }
	c.out(1, compare, fresh).good(t)
	c.out(1, compare, wrong).fails(t, scsi.KeyMiscompare, 0x1d, 0)
	noViolations(t, srv)
}

func TestReportSupportedOpcodes(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	all := func(b *scsi.CDB) int {
		*b = scsi.CDB{byte(scsi.OpMaintenanceIn), scsi.SAReportSupportedOpcodes}
		binary.BigEndian.PutUint32(b[6:], 4096)
		return 12
	}
	o := c.in(1, all, 4096).good(t)
	if n := int(binary.BigEndian.Uint32(o.data)); n != len(o.data)-4 || n%8 != 0 || n < 20*8 {
		t.Fatalf("list of %d bytes in %d", n, len(o.data))
	}
	one := func(op scsi.Opcode) func(*scsi.CDB) int {
		return func(b *scsi.CDB) int {
			n := all(b)
			b[2], b[3] = 1, byte(op)
			return n
		}
	}
	if o := c.in(1, one(scsi.OpRead16), 4096).good(t); o.data[1]&7 != 3 || len(o.data) != 4+16 || o.data[4] != byte(scsi.OpRead16) {
		t.Errorf("READ(16): %x", o.data)
	}
	if o := c.in(1, one(scsi.OpFormatUnit), 4096).good(t); o.data[1]&7 != 1 {
		t.Errorf("FORMAT UNIT: %x", o.data)
	}
}

func TestUnitAttention(t *testing.T) {
	srv, lun := newServer(t, func(c *iscsitest.Config) { c.UnitAttention = true })
	c := login(t, srv)
	c.in(1, func(b *scsi.CDB) int { return scsi.Inquiry(b, 36) }, 36).good(t) // INQUIRY does not see it
	c.in(1, scsi.TestUnitReady, 0).fails(t, scsi.KeyUnitAttention, 0x29, 0)
	c.in(1, scsi.TestUnitReady, 0).good(t)
	srv.Resized(lun)
	srv.UnitAttention(target, 1, 0x2a, 0x01)
	c.in(1, readCDB(0, 1), 512).fails(t, scsi.KeyUnitAttention, 0x2a, 9)
	o := c.in(1, func(b *scsi.CDB) int { return scsi.RequestSense(b, false, 252) }, 252).good(t)
	if s, err := scsi.ParseSense(o.data); err != nil || !s.Is(scsi.KeyUnitAttention, 0x2a, 1) {
		t.Errorf("REQUEST SENSE: %v, %v", s, err)
	}
	c.in(1, scsi.TestUnitReady, 0).good(t)
	if err := srv.SetLUN(target, 2, &iscsitest.LUN{Store: iscsitest.NewMemStore(512)}); err != nil {
		t.Fatal(err)
	}
	c.in(1, scsi.TestUnitReady, 0).fails(t, scsi.KeyUnitAttention, 0x3f, 0x0e)
	c.in(2, func(b *scsi.CDB) int { return scsi.ReportLUNs(b, 0, 256) }, 256).good(t)
	c.in(2, scsi.TestUnitReady, 0).good(t)
	if err := srv.SetLUN(target, 2, nil); err != nil {
		t.Fatal(err)
	}
	c.in(2, scsi.TestUnitReady, 0).fails(t, scsi.KeyIllegalRequest, 0x25, 0)
}

func TestFailNext(t *testing.T) {
	srv, lun := newServer(t, nil)
	c := login(t, srv)
	sense := scsi.NewSense(scsi.KeyMediumError, 0x11, 0).Append(nil)
	lun.FailNext(scsi.StatusCheckCondition, sense, func(cdb []byte) bool { return scsi.Opcode(cdb[0]) == scsi.OpRead16 })
	c.in(1, scsi.TestUnitReady, 0).good(t)
	c.in(1, readCDB(0, 1), 512).fails(t, scsi.KeyMediumError, 0x11, 0)
	c.in(1, readCDB(0, 1), 512).good(t)
	lun.FailN(2, scsi.StatusBusy, nil, nil)
	for range 2 {
		if o := c.in(1, scsi.TestUnitReady, 0); o.status != scsi.StatusBusy {
			t.Errorf("status %v", o.status)
		}
	}
	c.in(1, scsi.TestUnitReady, 0).good(t)
	lun.FailN(-1, scsi.StatusTaskSetFull, nil, nil)
	// Data that are on their way are taken before the answer.
	if o := c.out(1, writeCDB(0, 1), make([]byte, 512)); o.status != scsi.StatusTaskSetFull {
		t.Errorf("status %v", o.status)
	}
	lun.StopFailing()
	c.in(1, scsi.TestUnitReady, 0).good(t)
	noViolations(t, srv)
}

// brokenStore fails as told.
type brokenStore struct {
	*iscsitest.MemStore
	err error
}

func (s brokenStore) ReadAt([]byte, int64) (int, error)  { return 0, s.err }
func (s brokenStore) WriteAt([]byte, int64) (int, error) { return 0, s.err }
func (s brokenStore) Sync() error                        { return s.err }

func TestStoreErrors(t *testing.T) {
	tests := map[string]struct {
		err       error
		key       scsi.SenseKey
		asc, ascq uint8
	}{
		"any":       {errors.New("broken"), scsi.KeyMediumError, 0x0c, 0},
		"no space":  {syscall.ENOSPC, scsi.KeyDataProtect, 0x27, 7},
		"read only": {syscall.EROFS, scsi.KeyDataProtect, 0x27, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			srv, _ := newServer(t, func(c *iscsitest.Config) {
				c.Targets[0].LUNs[2] = &iscsitest.LUN{Store: brokenStore{iscsitest.NewMemStore(1 << 20), tt.err}}
			})
			c := login(t, srv)
			c.out(2, writeCDB(0, 1), make([]byte, 512)).fails(t, tt.key, tt.asc, tt.ascq)
			c.in(2, func(b *scsi.CDB) int { return scsi.SynchronizeCache10(b, 0, 0, false) }, 0).fails(t, tt.key, tt.asc, tt.ascq)
			c.in(2, readCDB(0, 1), 512).fails(t, scsi.KeyMediumError, 0x11, 0)
		})
	}
}

func TestPersistentReservations(t *testing.T) {
	srv, _ := newServer(t, nil)
	a := login(t, srv)
	b := dial(t, srv)
	b.isid, b.name = 2, "iqn.2001-04.com.example:other"
	b.login()
	prout := func(c *client, action scsi.PROutAction, typ scsi.ReservationType, key, service uint64) outcome {
		t.Helper()
		list := scsi.PROutList{Key: key, ServiceKey: service}.Append(nil)
		return c.out(1, func(cdb *scsi.CDB) int { return scsi.PersistentReserveOut(cdb, action, typ, uint32(len(list))) }, list)
	}
	conflict := func(o outcome) {
		t.Helper()
		if o.status != scsi.StatusReservationConflict {
			t.Errorf("status %v, expected a reservation conflict", o.status)
		}
	}
	prin := func(c *client, action scsi.PRInAction) []byte {
		t.Helper()
		return c.in(1, func(cdb *scsi.CDB) int { return scsi.PersistentReserveIn(cdb, action, 1024) }, 1024).good(t).data
	}
	conflict(prout(a, scsi.PROutReserve, scsi.WriteExclusive, 0xa, 0)) // not registered
	prout(a, scsi.PROutRegister, 0, 0, 0xa).good(t)
	prout(b, scsi.PROutRegister, 0, 0, 0xb).good(t)
	conflict(prout(b, scsi.PROutRegister, 0, 0xbad, 0xc))
	if k, err := scsi.ParsePRKeys(prin(a, scsi.PRInReadKeys)); err != nil || !slices.Equal(k.Keys, []uint64{0xa, 0xb}) || k.Generation != 2 {
		t.Errorf("keys %+v, %v", k, err)
	}
	prout(a, scsi.PROutReserve, scsi.WriteExclusive, 0xa, 0).good(t)
	conflict(prout(b, scsi.PROutReserve, scsi.WriteExclusive, 0xb, 0))
	if r, err := scsi.ParsePRReservation(prin(b, scsi.PRInReadReservation)); err != nil || !r.Held || r.Key != 0xa || r.Type != scsi.WriteExclusive {
		t.Errorf("reservation %+v, %v", r, err)
	}
	b.in(1, readCDB(0, 1), 512).good(t)
	conflict(b.out(1, writeCDB(0, 1), make([]byte, 512)))
	a.out(1, writeCDB(0, 1), make([]byte, 512)).good(t)
	s, err := scsi.ParsePRFullStatus(prin(b, scsi.PRInReadFullStatus))
	if err != nil || len(s.Registrants) != 2 || !s.Registrants[0].Holder || s.Registrants[1].Holder {
		t.Errorf("full status %+v, %v", s, err)
	}
	// The other one takes it over.
	prout(b, scsi.PROutPreempt, scsi.ExclusiveAccess, 0xb, 0xa).good(t)
	a.in(1, scsi.TestUnitReady, 0).fails(t, scsi.KeyUnitAttention, 0x2a, 5)
	conflict(a.in(1, readCDB(0, 1), 512))
	a.in(1, scsi.TestUnitReady, 0).good(t)
	prout(b, scsi.PROutRelease, scsi.ExclusiveAccess, 0xb, 0).good(t)
	a.in(1, readCDB(0, 1), 512).good(t)
	prout(b, scsi.PROutClear, 0, 0xb, 0).good(t)
	if k, err := scsi.ParsePRKeys(prin(a, scsi.PRInReadKeys)); err != nil || len(k.Keys) != 0 {
		t.Errorf("keys %+v, %v", k, err)
	}
	noViolations(t, srv)
}
