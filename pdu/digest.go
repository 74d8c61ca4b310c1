package pdu

import (
	"encoding/binary"
	"hash/crc32"
)

// castagnoli is a table, never written. hash/crc32 uses the processor's
// CRC32C instructions with this very table.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the CRC32C of b, continuing from crc, which is 0 at the
// beginning (RFC 7143 section 13.1 and appendix A.4). On the wire the value
// stands with its least significant byte first, see AppendDigest.
func CRC32C(crc uint32, b []byte) uint32 {
	crc, n := foldCRC32C(crc, b)
	return crc32.Update(crc, castagnoli, b[n:])
}

// AppendDigest appends a digest in wire order. The CRC's bit order makes that
// the little-endian one, unlike all other numbers of the protocol.
func AppendDigest(dst []byte, crc uint32) []byte {
	return binary.LittleEndian.AppendUint32(dst, crc)
}

func digestFromWire(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
