package checker

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// BlockSize is the size in bytes of the blocks that are written and checked.
const BlockSize = 4096

// A block's bytes, all numbers little endian:
//
//	0   8  magic
//	8   8  run
//	16  8  address: the block's number
//	24  8  sequence number of the write
//	32     filling, a function of the above
//	4092 4 CRC32C of all before
const (
	magic     = 0x6b636568636b7369
	headerLen = 32
	sumAt     = BlockSize - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fill makes b, of BlockSize bytes, what write seq of a run puts into a block.
func fill(b []byte, run, block, seq uint64) {
	binary.LittleEndian.PutUint64(b[0:], magic)
	binary.LittleEndian.PutUint64(b[8:], run)
	binary.LittleEndian.PutUint64(b[16:], block)
	binary.LittleEndian.PutUint64(b[24:], seq)
	x := run ^ block*0x9e3779b97f4a7c15 ^ seq*0xbf58476d1ce4e5b9
	i := headerLen
	for ; i+8 <= sumAt; i += 8 { // xorshift64*
		x ^= x >> 12
		x ^= x << 25
		x ^= x >> 27
		binary.LittleEndian.PutUint64(b[i:], x*0x2545f4914f6cdd1d)
	}
	clear(b[i:sumAt])
	binary.LittleEndian.PutUint32(b[sumAt:], crc32.Checksum(b[:sumAt], castagnoli))
}

// parse returns the sequence number of a block that is whole and in its place.
func parse(b []byte, run, block uint64) (seq uint64, err error) {
	if binary.LittleEndian.Uint64(b) != magic {
		for _, c := range b {
			if c != 0 {
				return 0, fmt.Errorf("not a block of the checker: % x…", b[:16])
			}
		}
		return 0, nil // never written
	}
	if got, want := crc32.Checksum(b[:sumAt], castagnoli), binary.LittleEndian.Uint32(b[sumAt:]); got != want {
		return 0, fmt.Errorf("checksum %08x, want %08x: the block is torn", got, want)
	}
	if got := binary.LittleEndian.Uint64(b[8:]); got != run {
		return 0, &otherRunError{got, run}
	}
	if got := binary.LittleEndian.Uint64(b[16:]); got != block {
		return 0, fmt.Errorf("block %d stands where block %d belongs", got, block)
	}
	return binary.LittleEndian.Uint64(b[24:]), nil
}

// An otherRunError is a block that another run has written.
type otherRunError struct{ got, run uint64 }

func (e *otherRunError) Error() string {
	return fmt.Sprintf("a block of run %x in run %x", e.got, e.run)
}
