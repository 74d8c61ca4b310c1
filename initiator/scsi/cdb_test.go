package scsi_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// TestCDBs pins the bytes of every builder against the tables of SPC-5 and
// SBC-4, and that ParseCommand reads them back.
func TestCDBs(t *testing.T) {
	tests := []struct {
		name  string
		build func(*scsi.CDB) int
		want  string
		cmd   scsi.Command
	}{
		{"TEST UNIT READY", scsi.TestUnitReady, "000000000000", scsi.Command{Op: scsi.OpTestUnitReady}},
		{
			"REQUEST SENSE", func(c *scsi.CDB) int { return scsi.RequestSense(c, true, 252) }, "03010000fc00",
			scsi.Command{Op: scsi.OpRequestSense, Descriptor: true, Length: 252},
		},
		{
			"INQUIRY", func(c *scsi.CDB) int { return scsi.Inquiry(c, 0x124) }, "120000012400",
			scsi.Command{Op: scsi.OpInquiry, Length: 0x124},
		},
		{
			"INQUIRY page 0x83", func(c *scsi.CDB) int { return scsi.InquiryVPD(c, scsi.VPDDeviceID, 252) }, "12018300fc00",
			scsi.Command{Op: scsi.OpInquiry, EVPD: true, Page: 0x83, Length: 252},
		},
		{
			"REPORT LUNS", func(c *scsi.CDB) int { return scsi.ReportLUNs(c, scsi.SelectAll, 0x01020304) }, "a00002000000010203040000",
			scsi.Command{Op: scsi.OpReportLUNs, SelectReport: scsi.SelectAll, Length: 0x01020304},
		},
		{"READ CAPACITY(10)", scsi.ReadCapacity10, "25000000000000000000", scsi.Command{Op: scsi.OpReadCapacity10}},
		{
			"READ CAPACITY(16)", func(c *scsi.CDB) int { return scsi.ReadCapacity16(c, 32) }, "9e100000000000000000000000200000",
			scsi.Command{Op: scsi.OpServiceActionIn16, ServiceAction: 0x10, Length: 32},
		},
		{
			"GET LBA STATUS", func(c *scsi.CDB) int { return scsi.GetLBAStatus(c, 0x0102030405060708, 24) }, "9e120102030405060708000000180000",
			scsi.Command{Op: scsi.OpServiceActionIn16, ServiceAction: 0x12, LBA: 0x0102030405060708, Length: 24},
		},
		{
			"MODE SENSE(6)", func(c *scsi.CDB) int { return scsi.ModeSense6(c, scsi.ModeCaching, 0, 192) }, "1a080800c000",
			scsi.Command{Op: scsi.OpModeSense6, Page: 8, DBD: true, Length: 192},
		},
		{
			"MODE SENSE(10)", func(c *scsi.CDB) int { return scsi.ModeSense10(c, scsi.ModeAll, 0xff, 0x1000) }, "5a083fff000000100000",
			scsi.Command{Op: scsi.OpModeSense10, Page: 0x3f, SubPage: 0xff, DBD: true, Length: 0x1000},
		},
		{
			"START STOP UNIT", func(c *scsi.CDB) int { return scsi.StartStopUnit(c, true, false, true) }, "1b0100000100",
			scsi.Command{Op: scsi.OpStartStopUnit, Immed: true, Start: true},
		},
		{
			"REPORT TARGET PORT GROUPS", func(c *scsi.CDB) int { return scsi.ReportTargetPortGroups(c, 0x1000) }, "a30a00000000000010000000",
			scsi.Command{Op: scsi.OpMaintenanceIn, ServiceAction: 0x0a, Length: 0x1000},
		},
		{
			"REPORT SUPPORTED OPERATION CODES", func(c *scsi.CDB) int { return scsi.ReportSupportedOpcode(c, scsi.OpWriteSame16, 64) }, "a30c01930000000000400000",
			scsi.Command{Op: scsi.OpMaintenanceIn, ServiceAction: 0x0c, ReportingOptions: 1, RequestedOp: scsi.OpWriteSame16, Length: 64},
		},
		{
			"PERSISTENT RESERVE IN", func(c *scsi.CDB) int { return scsi.PersistentReserveIn(c, scsi.PRInReadFullStatus, 0x200) }, "5e030000000000020000",
			scsi.Command{Op: scsi.OpPersistentReserveIn, ServiceAction: 3, Length: 0x200},
		},
		{
			"PERSISTENT RESERVE OUT", func(c *scsi.CDB) int {
				return scsi.PersistentReserveOut(c, scsi.PROutReserve, scsi.ExclusiveAccess, 24)
			}, "5f010300000000001800",
			scsi.Command{Op: scsi.OpPersistentReserveOut, ServiceAction: 1, Type: scsi.ExclusiveAccess, Length: 24},
		},
		{
			"READ(6)", func(c *scsi.CDB) int { return scsi.Read6(c, 0x123456, 256) }, "081234560000",
			scsi.Command{Op: scsi.OpRead6, LBA: 0x123456, Blocks: 256},
		},
		{
			"WRITE(6)", func(c *scsi.CDB) int { return scsi.Write6(c, 1, 2) }, "0a0000010200",
			scsi.Command{Op: scsi.OpWrite6, LBA: 1, Blocks: 2},
		},
		{
			"READ(10)", func(c *scsi.CDB) int { return scsi.Read10(c, 0x01020304, 0x0506, scsi.FUA) }, "28080102030400050600",
			scsi.Command{Op: scsi.OpRead10, LBA: 0x01020304, Blocks: 0x0506, FUA: true},
		},
		{
			"READ(12)", func(c *scsi.CDB) int { return scsi.Read12(c, 0x01020304, 0x05060708, 0) }, "a80001020304050607080000",
			scsi.Command{Op: scsi.OpRead12, LBA: 0x01020304, Blocks: 0x05060708},
		},
		{
			"READ(16)", func(c *scsi.CDB) int { return scsi.Read16(c, 0x0102030405060708, 0x090a0b0c, scsi.DPO) }, "88100102030405060708090a0b0c0000",
			scsi.Command{Op: scsi.OpRead16, LBA: 0x0102030405060708, Blocks: 0x090a0b0c, DPO: true},
		},
		{
			"WRITE(10)", func(c *scsi.CDB) int { return scsi.Write10(c, 0x01020304, 0x0506, 0) }, "2a000102030400050600",
			scsi.Command{Op: scsi.OpWrite10, LBA: 0x01020304, Blocks: 0x0506},
		},
		{
			"WRITE(12)", func(c *scsi.CDB) int { return scsi.Write12(c, 1, 2, scsi.FUA|scsi.DPO) }, "aa1800000001000000020000",
			scsi.Command{Op: scsi.OpWrite12, LBA: 1, Blocks: 2, FUA: true, DPO: true},
		},
		{
			"WRITE(16)", func(c *scsi.CDB) int { return scsi.Write16(c, 0x0102030405060708, 0x090a0b0c, scsi.FUA) }, "8a080102030405060708090a0b0c0000",
			scsi.Command{Op: scsi.OpWrite16, LBA: 0x0102030405060708, Blocks: 0x090a0b0c, FUA: true},
		},
		{
			"Read, short", func(c *scsi.CDB) int { return scsi.Read(c, 0xffff0000, 0xffff, 0) }, "2800ffff000000ffff00",
			scsi.Command{Op: scsi.OpRead10, LBA: 0xffff0000, Blocks: 0xffff},
		},
		{
			"Read, many blocks", func(c *scsi.CDB) int { return scsi.Read(c, 0, 0x10000, 0) }, "88000000000000000000000100000000",
			scsi.Command{Op: scsi.OpRead16, Blocks: 0x10000},
		},
		{
			"Write, far", func(c *scsi.CDB) int { return scsi.Write(c, 0xffffffff, 1, 0) }, "8a0000000000ffffffff000000010000",
			scsi.Command{Op: scsi.OpWrite16, LBA: 0xffffffff, Blocks: 1},
		},
		{
			"Write, across", func(c *scsi.CDB) int { return scsi.Write(c, 0xfffffffe, 2, 0) }, "8a0000000000fffffffe000000020000",
			scsi.Command{Op: scsi.OpWrite16, LBA: 0xfffffffe, Blocks: 2},
		},
		{
			"SYNCHRONIZE CACHE(10)", func(c *scsi.CDB) int { return scsi.SynchronizeCache10(c, 1, 2, true) }, "35020000000100000200",
			scsi.Command{Op: scsi.OpSynchronizeCache10, LBA: 1, Blocks: 2, Immed: true},
		},
		{
			"SYNCHRONIZE CACHE(16)", func(c *scsi.CDB) int { return scsi.SynchronizeCache16(c, 1, 2, false) }, "91000000000000000001000000020000",
			scsi.Command{Op: scsi.OpSynchronizeCache16, LBA: 1, Blocks: 2},
		},
		{
			"UNMAP", func(c *scsi.CDB) int { return scsi.Unmap(c, 24) }, "42000000000000001800",
			scsi.Command{Op: scsi.OpUnmap, Length: 24},
		},
		{
			"WRITE SAME(10)", func(c *scsi.CDB) int { return scsi.WriteSame10(c, 1, 2, scsi.SameUnmap|scsi.SameNDOB) }, "41080000000100000200",
			scsi.Command{Op: scsi.OpWriteSame10, LBA: 1, Blocks: 2, Unmap: true},
		},
		{
			"WRITE SAME(16)", func(c *scsi.CDB) int {
				return scsi.WriteSame16(c, 1, 2, scsi.SameUnmap|scsi.SameNDOB|scsi.SameAnchor)
			}, "93190000000000000001000000020000",
			scsi.Command{Op: scsi.OpWriteSame16, LBA: 1, Blocks: 2, Unmap: true, NDOB: true, Anchor: true},
		},
		{
			"COMPARE AND WRITE", func(c *scsi.CDB) int { return scsi.CompareAndWrite(c, 1, 2, scsi.FUA) }, "89080000000000000001000000020000",
			scsi.Command{Op: scsi.OpCompareAndWrite, LBA: 1, Blocks: 2, FUA: true},
		},
		{
			"VERIFY(10)", func(c *scsi.CDB) int { return scsi.Verify10(c, 1, 2) }, "2f000000000100000200",
			scsi.Command{Op: scsi.OpVerify10, LBA: 1, Blocks: 2},
		},
		{
			"VERIFY(16)", func(c *scsi.CDB) int { return scsi.Verify16(c, 1, 2) }, "8f000000000000000001000000020000",
			scsi.Command{Op: scsi.OpVerify16, LBA: 1, Blocks: 2},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cdb := scsi.CDB{0: 0xff, 1: 0xff, 9: 0xff, 15: 0xff} // what was there before must go
			n := tt.build(&cdb)
			if got := hex.EncodeToString(cdb[:n]); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if rest := strings.Trim(string(cdb[n:]), "\x00"); rest != "" {
				t.Errorf("%x is left after the end", rest)
			}
			if want := scsi.CDBLength(scsi.Opcode(cdb[0])); n != want {
				t.Errorf("length %d, want %d", n, want)
			}
			got, err := scsi.ParseCommand(cdb[:])
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.cmd, got); d != "" {
				t.Errorf("parsed (-want +got):\n%s", d)
			}
			if _, err := scsi.ParseCommand(cdb[:n-1]); err == nil {
				t.Error("a CDB cut short was accepted")
			}
			if strings.Contains(got.Name(), "opcode") {
				t.Errorf("no name: %s", got.Name())
			}
		})
	}
}

func TestParseCommandRefuses(t *testing.T) {
	for _, s := range []string{"", "7f", "c0000000000000000000000000000000", "02000000000000000000000000000000", "9e1f0000000000000000000000000000", "a31f00000000000000000000"} {
		b, _ := hex.DecodeString(s)
		if _, err := scsi.ParseCommand(b); err == nil {
			t.Errorf("%q was accepted", s)
		} else if s != "" && !errors.Is(err, scsi.ErrUnknownCommand) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestBuildersDoNotAllocate(t *testing.T) {
	var cdb scsi.CDB
	list := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		scsi.Read(&cdb, 1, 2, 0)
		scsi.Write(&cdb, 1<<40, 2, scsi.FUA)
		scsi.WriteSame16(&cdb, 1, 2, scsi.SameUnmap)
		scsi.Unmap(&cdb, uint16(len(scsi.AppendUnmapList(list, scsi.Extent{LBA: 1, Blocks: 2}))))
		_, _ = scsi.ParseCommand(cdb[:])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
