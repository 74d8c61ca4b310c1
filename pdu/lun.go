package pdu

import "fmt"

// A LUN is a logical unit number in the 8-byte form of SAM-2 and later, as
// the wire has it: the first byte is the most significant.
type LUN uint64

// The addressing methods of SAM-5 section 4.7 that LUNFromNumber chooses
// from, as the first byte or its two highest bits.
const (
	lunFlat      = 0x40 // flat space, 14 bits
	lunExtFlat24 = 0xd2 // extended flat space, 24 bits
	lunExtFlat40 = 0xe2 // long extended flat space, 40 bits

	maxPeripheral = 1<<8 - 1
	maxFlat       = 1<<14 - 1
	maxExtFlat24  = 1<<24 - 1
	maxExtFlat40  = 1<<40 - 1
)

// LUNFromNumber returns the 8-byte form of the logical unit with number n:
// peripheral device addressing below 256, flat space below 16384, extended
// flat space below 2²⁴, long extended flat space below 2⁴⁰. A greater n is
// taken to be the 8 bytes themselves.
func LUNFromNumber(n uint64) LUN {
	switch {
	case n <= maxPeripheral:
		return LUN(n << 48)
	case n <= maxFlat:
		return LUN(lunFlat<<56 | n<<48)
	case n <= maxExtFlat24:
		return LUN(lunExtFlat24<<56 | n<<32)
	case n <= maxExtFlat40:
		return LUN(lunExtFlat40<<56 | n<<16)
	}
	return LUN(n)
}

// Number returns the logical unit's number, the inverse of LUNFromNumber. It
// is false for a LUN on another bus, a hierarchical one, and any addressing
// method that LUNFromNumber does not use.
func (l LUN) Number() (uint64, bool) {
	v := uint64(l)
	switch b := byte(v >> 56); {
	case b == 0 && v<<16 == 0:
		return v >> 48, true
	case b&0xc0 == lunFlat && v<<16 == 0:
		return v >> 48 & maxFlat, true
	case b == lunExtFlat24 && v<<32 == 0:
		return v >> 32 & maxExtFlat24, true
	case b == lunExtFlat40 && v<<48 == 0:
		return v >> 16 & maxExtFlat40, true
	}
	return 0, false
}

// String returns the number in decimal, or all 8 bytes in hexadecimal where
// there is no number.
func (l LUN) String() string {
	if n, ok := l.Number(); ok {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("0x%016x", uint64(l))
}
