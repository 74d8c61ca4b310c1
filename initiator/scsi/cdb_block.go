package scsi

import (
	"encoding/binary"
	"math"
)

// RWFlags are the caching bits of READ and WRITE commands in the place they
// have in byte 1 of the CDB.
type RWFlags uint8

// The flags of READ(10) and its relatives (SBC-4 §5.16).
const (
	FUA RWFlags = 0x08 // force unit access: the medium, not the cache
	DPO RWFlags = 0x10 // disable page out: the blocks will not be used again soon
)

// Read6 builds READ(6). lba is below 1<<21; blocks is 1 to 256, where 256 is
// sent as 0.
func Read6(cdb *CDB, lba uint32, blocks uint16) int { return put6(cdb, OpRead6, lba, blocks) }

// Write6 builds WRITE(6), with the ranges of Read6.
func Write6(cdb *CDB, lba uint32, blocks uint16) int { return put6(cdb, OpWrite6, lba, blocks) }

func put6(cdb *CDB, op Opcode, lba uint32, blocks uint16) int {
	put(cdb, op, byte(lba>>16)&0x1f)
	cdb[2], cdb[3], cdb[4] = byte(lba>>8), byte(lba), byte(blocks)
	return 6
}

// Read10 builds READ(10) (SBC-4 §5.16).
func Read10(cdb *CDB, lba uint32, blocks uint16, f RWFlags) int {
	return put10(cdb, OpRead10, byte(f), lba, blocks)
}

// Read12 builds READ(12) (SBC-4 §5.17).
func Read12(cdb *CDB, lba, blocks uint32, f RWFlags) int {
	return put12(cdb, OpRead12, byte(f), lba, blocks)
}

// Read16 builds READ(16) (SBC-4 §5.18).
func Read16(cdb *CDB, lba uint64, blocks uint32, f RWFlags) int {
	return put16(cdb, OpRead16, byte(f), lba, blocks)
}

// Write10 builds WRITE(10) (SBC-4 §5.40).
func Write10(cdb *CDB, lba uint32, blocks uint16, f RWFlags) int {
	return put10(cdb, OpWrite10, byte(f), lba, blocks)
}

// Write12 builds WRITE(12) (SBC-4 §5.41).
func Write12(cdb *CDB, lba, blocks uint32, f RWFlags) int {
	return put12(cdb, OpWrite12, byte(f), lba, blocks)
}

// Write16 builds WRITE(16) (SBC-4 §5.42).
func Write16(cdb *CDB, lba uint64, blocks uint32, f RWFlags) int {
	return put16(cdb, OpWrite16, byte(f), lba, blocks)
}

// fits10 reports whether a 10-byte CDB can name the range. Every device has
// the short commands; the long ones are missing on some old ones.
func fits10(lba uint64, blocks uint32) bool {
	return blocks <= math.MaxUint16 && lba+uint64(blocks) <= math.MaxUint32
}

// Read builds READ(10) where the range fits it and READ(16) elsewhere.
func Read(cdb *CDB, lba uint64, blocks uint32, f RWFlags) int {
	if fits10(lba, blocks) {
		return Read10(cdb, uint32(lba), uint16(blocks), f)
	}
	return Read16(cdb, lba, blocks, f)
}

// Write builds WRITE(10) where the range fits it and WRITE(16) elsewhere.
func Write(cdb *CDB, lba uint64, blocks uint32, f RWFlags) int {
	if fits10(lba, blocks) {
		return Write10(cdb, uint32(lba), uint16(blocks), f)
	}
	return Write16(cdb, lba, blocks, f)
}

// SynchronizeCache10 builds SYNCHRONIZE CACHE(10) (SBC-4 §5.33). blocks 0
// means through the last block, so 0, 0 flushes all. With immed the device
// answers before the data are on the medium.
func SynchronizeCache10(cdb *CDB, lba uint32, blocks uint16, immed bool) int {
	return put10(cdb, OpSynchronizeCache10, bit(immed, 1), lba, blocks)
}

// SynchronizeCache16 builds SYNCHRONIZE CACHE(16) (SBC-4 §5.34), with the
// meaning of SynchronizeCache10.
func SynchronizeCache16(cdb *CDB, lba uint64, blocks uint32, immed bool) int {
	return put16(cdb, OpSynchronizeCache16, bit(immed, 1), lba, blocks)
}

// Unmap builds UNMAP (SBC-4 §5.35) for a parameter list of length bytes, made
// by AppendUnmapList.
func Unmap(cdb *CDB, length uint16) int {
	put(cdb, OpUnmap, 0)
	binary.BigEndian.PutUint16(cdb[7:], length)
	return 10
}

// WriteSameFlags are the bits of WRITE SAME(16) in the place they have in
// byte 1 of the CDB.
type WriteSameFlags uint8

// The flags of WRITE SAME(16) (SBC-4 §5.50).
const (
	SameNDOB   WriteSameFlags = 0x01 // no data-out buffer: the device writes zeroes
	SameUnmap  WriteSameFlags = 0x08 // the device may unmap instead of writing
	SameAnchor WriteSameFlags = 0x10 // with SameUnmap: anchor instead of deallocate
)

// WriteSame10 builds WRITE SAME(10) (SBC-4 §5.49), which has no NDOB bit; one
// block of data goes with it.
func WriteSame10(cdb *CDB, lba uint32, blocks uint16, f WriteSameFlags) int {
	return put10(cdb, OpWriteSame10, byte(f&^SameNDOB), lba, blocks)
}

// WriteSame16 builds WRITE SAME(16) (SBC-4 §5.50). One block of data goes with
// it unless SameNDOB is set.
func WriteSame16(cdb *CDB, lba uint64, blocks uint32, f WriteSameFlags) int {
	return put16(cdb, OpWriteSame16, byte(f), lba, blocks)
}

// CompareAndWrite builds COMPARE AND WRITE (SBC-4 §5.3). The data-out buffer
// holds the blocks to compare with and then the blocks to write, so it is
// 2×blocks long.
func CompareAndWrite(cdb *CDB, lba uint64, blocks uint8, f RWFlags) int {
	put(cdb, OpCompareAndWrite, byte(f))
	binary.BigEndian.PutUint64(cdb[2:], lba)
	cdb[13] = blocks
	return 16
}

// Verify10 builds VERIFY(10) without byte check: the device reads the blocks
// and transfers nothing (SBC-4 §5.36).
func Verify10(cdb *CDB, lba uint32, blocks uint16) int {
	return put10(cdb, OpVerify10, 0, lba, blocks)
}

// Verify16 builds VERIFY(16) without byte check (SBC-4 §5.38).
func Verify16(cdb *CDB, lba uint64, blocks uint32) int {
	return put16(cdb, OpVerify16, 0, lba, blocks)
}
