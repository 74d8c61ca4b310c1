package pdu

import (
	"hash/crc32"

	"golang.org/x/sys/cpu"
)

// hash/crc32 takes eight bytes with an instruction, of which one can begin in a
// cycle. Carry-less multiplication of 64 bytes at a time is two to three times as
// fast: see BenchmarkCRC32C, and "Digests" in docs/benchmarks.md.
//
// The method is that of Gopal et al., "Fast CRC Computation for Generic Polynomials
// Using PCLMULQDQ Instruction", Intel 2009: what has been read so far is kept as a
// remainder of a few vectors, congruent to it modulo the CRC's polynomial. To go on
// by d bits is to multiply the remainder by x^d, which for its 64-bit halves is a
// multiplication by a constant of 33 bits, and to add what comes next.

// canFold: the processor has what foldBlocks uses, and the system keeps the
// registers.
var canFold = cpu.X86.HasAVX512F && cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasSSE42

const (
	foldBlock = 64            // bytes of a vector
	foldStep  = 4 * foldBlock // of the four that foldBlocks keeps
	foldLeast = 2 * foldStep  // with fewer hash/crc32 is as fast
)

// foldFactors are the constants of foldBlocks, never written: to go on by four
// vectors, and by one; each for the lower half of 128 bits, and for the upper.
var foldFactors = [4]uint64{
	foldFactor(8*foldStep + 32), foldFactor(8*foldStep - 32),
	foldFactor(8*foldBlock + 32), foldFactor(8*foldBlock - 32),
}

// foldFactor returns x^n modulo the polynomial, for a multiplication of bits in
// reverse order: the product of two such numbers has 127 bits, and stands one too low.
func foldFactor(n int) uint64 {
	f := uint32(1) << 31 // x^0
	for range n {
		low := f & 1
		f >>= 1
		f ^= -low & crc32.Castagnoli
	}
	return uint64(f) << 1
}

// foldBlocks returns the CRC32C of n bytes at p, continuing from crc; before and
// after it without the inversion. n is at least foldStep, and a multiple of foldBlock.
//
//go:noescape
func foldBlocks(crc uint32, p *byte, n int, factors *[4]uint64) uint32

// foldCRC32C takes as much of b as can be taken in vectors. It returns the CRC with
// it, and how many bytes these were.
func foldCRC32C(crc uint32, b []byte) (uint32, int) {
	if len(b) < foldLeast || !canFold {
		return crc, 0
	}
	n := len(b) &^ (foldBlock - 1)
	return ^foldBlocks(^crc, &b[0], n, &foldFactors), n
}
