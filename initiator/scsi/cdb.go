package scsi

import "encoding/binary"

// MaxShortCDB is the length of a [CDB]: what an iSCSI command PDU carries
// without an additional header segment.
const MaxShortCDB = 16

// A CDB is a command descriptor block of up to 16 bytes. The builders return
// how many of them count.
type CDB = [MaxShortCDB]byte

// put starts a CDB afresh.
func put(cdb *CDB, op Opcode, b1 byte) {
	*cdb = CDB{}
	cdb[0], cdb[1] = byte(op), b1
}

// put10 fills the layout that most 10-byte commands share.
func put10(cdb *CDB, op Opcode, b1 byte, lba uint32, n uint16) int {
	put(cdb, op, b1)
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], n)
	return 10
}

// put12 fills the layout of READ(12) and WRITE(12).
func put12(cdb *CDB, op Opcode, b1 byte, lba, n uint32) int {
	put(cdb, op, b1)
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[6:], n)
	return 12
}

// put16 fills the layout that most 16-byte commands share.
func put16(cdb *CDB, op Opcode, b1 byte, lba uint64, n uint32) int {
	put(cdb, op, b1)
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], n)
	return 16
}

// TestUnitReady builds TEST UNIT READY (SPC-5 §6.50).
func TestUnitReady(cdb *CDB) int {
	put(cdb, OpTestUnitReady, 0)
	return 6
}

// RequestSense builds REQUEST SENSE (SPC-5 §6.39). With descriptors set the
// device answers in descriptor format.
func RequestSense(cdb *CDB, descriptors bool, alloc uint8) int {
	put(cdb, OpRequestSense, bit(descriptors, 0))
	cdb[4] = alloc
	return 6
}

// Inquiry builds INQUIRY for the standard data (SPC-5 §6.7). alloc is the
// most bytes the device may send.
func Inquiry(cdb *CDB, alloc uint16) int {
	put(cdb, OpInquiry, 0)
	binary.BigEndian.PutUint16(cdb[3:], alloc)
	return 6
}

// InquiryVPD builds INQUIRY for a vital product data page (SPC-5 §6.7).
func InquiryVPD(cdb *CDB, page VPDPage, alloc uint16) int {
	put(cdb, OpInquiry, 0x01)
	cdb[2] = byte(page)
	binary.BigEndian.PutUint16(cdb[3:], alloc)
	return 6
}

// ReportLUNs builds REPORT LUNS (SPC-5 §6.33). alloc is at least 16 by the
// standard.
func ReportLUNs(cdb *CDB, sel SelectReport, alloc uint32) int {
	put(cdb, OpReportLUNs, 0)
	cdb[2] = byte(sel)
	binary.BigEndian.PutUint32(cdb[6:], alloc)
	return 12
}

// ReadCapacity10 builds READ CAPACITY(10) (SBC-4 §5.21); the answer has
// Capacity10Length bytes.
func ReadCapacity10(cdb *CDB) int {
	put(cdb, OpReadCapacity10, 0)
	return 10
}

// ReadCapacity16 builds READ CAPACITY(16) (SBC-4 §5.22).
func ReadCapacity16(cdb *CDB, alloc uint32) int {
	return put16(cdb, OpServiceActionIn16, SAReadCapacity16, 0, alloc)
}

// GetLBAStatus builds GET LBA STATUS(16) starting at lba (SBC-4 §5.8).
func GetLBAStatus(cdb *CDB, lba uint64, alloc uint32) int {
	return put16(cdb, OpServiceActionIn16, SAGetLBAStatus, lba, alloc)
}

// ModeSense6 builds MODE SENSE(6) for the current values of a page without
// block descriptors (SPC-5 §6.14). subpage is 0 for most pages.
func ModeSense6(cdb *CDB, page ModePage, subpage, alloc uint8) int {
	put(cdb, OpModeSense6, 0x08) // DBD
	cdb[2], cdb[3], cdb[4] = byte(page&0x3f), subpage, alloc
	return 6
}

// ModeSense10 builds MODE SENSE(10) for the current values of a page without
// block descriptors (SPC-5 §6.15).
func ModeSense10(cdb *CDB, page ModePage, subpage uint8, alloc uint16) int {
	put(cdb, OpModeSense10, 0x08) // DBD
	cdb[2], cdb[3] = byte(page&0x3f), subpage
	binary.BigEndian.PutUint16(cdb[7:], alloc)
	return 10
}

// StartStopUnit builds START STOP UNIT (SBC-4 §5.31) with a power condition
// of zero. With immed the device answers before the operation is finished.
func StartStopUnit(cdb *CDB, start, loadEject, immed bool) int {
	put(cdb, OpStartStopUnit, bit(immed, 0))
	cdb[4] = bit(start, 0) | bit(loadEject, 1)
	return 6
}

// ReportTargetPortGroups builds REPORT TARGET PORT GROUPS with the length-only
// header (SPC-5 §6.36).
func ReportTargetPortGroups(cdb *CDB, alloc uint32) int {
	put(cdb, OpMaintenanceIn, SAReportTargetPortGroups)
	binary.BigEndian.PutUint32(cdb[6:], alloc)
	return 12
}

// PersistentReserveIn builds PERSISTENT RESERVE IN (SPC-5 §6.16).
func PersistentReserveIn(cdb *CDB, action PRInAction, alloc uint16) int {
	put(cdb, OpPersistentReserveIn, byte(action&0x1f))
	binary.BigEndian.PutUint16(cdb[7:], alloc)
	return 10
}

// PersistentReserveOut builds PERSISTENT RESERVE OUT (SPC-5 §6.17) with scope
// LU_SCOPE. length is that of the parameter list, PROutLength for all actions
// but REGISTER AND MOVE.
func PersistentReserveOut(cdb *CDB, action PROutAction, typ ReservationType, length uint32) int {
	put(cdb, OpPersistentReserveOut, byte(action&0x1f))
	cdb[2] = byte(typ & 0xf)
	binary.BigEndian.PutUint32(cdb[5:], length)
	return 10
}
