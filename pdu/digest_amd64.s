#include "textflag.h"

// Registers: Z16 and Z17 the factors by 2048 and by 512 bits, in each of their four
// lanes; Z20 to Z23 the remainder; Z24 to Z27 products. From Z16 on no VZEROUPPER is
// needed.

// func foldBlocks(crc uint32, p *byte, n int, factors *[4]uint64) uint32
TEXT ·foldBlocks(SB), NOSPLIT, $64-36
	MOVL crc+0(FP), AX
	MOVQ p+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ factors+24(FP), DX

	VBROADCASTI32X4 0(DX), Z16
	VBROADCASTI32X4 16(DX), Z17

	// The CRC so far is added to the first four bytes.
	VMOVDQU64 0(SI), Z20
	VMOVDQU64 64(SI), Z21
	VMOVDQU64 128(SI), Z22
	VMOVDQU64 192(SI), Z23
	VMOVD     AX, X24
	VPXORQ    Z24, Z20, Z20
	ADDQ      $256, SI
	SUBQ      $256, CX

fourBlocks:
	CMPQ CX, $256
	JB   join

	VPCLMULQDQ $0x00, Z16, Z20, Z24
	VPCLMULQDQ $0x11, Z16, Z20, Z20
	VPCLMULQDQ $0x00, Z16, Z21, Z25
	VPCLMULQDQ $0x11, Z16, Z21, Z21
	VPCLMULQDQ $0x00, Z16, Z22, Z26
	VPCLMULQDQ $0x11, Z16, Z22, Z22
	VPCLMULQDQ $0x00, Z16, Z23, Z27
	VPCLMULQDQ $0x11, Z16, Z23, Z23

	// 0x96 is exclusive or of three.
	VPTERNLOGQ $0x96, 0(SI), Z24, Z20
	VPTERNLOGQ $0x96, 64(SI), Z25, Z21
	VPTERNLOGQ $0x96, 128(SI), Z26, Z22
	VPTERNLOGQ $0x96, 192(SI), Z27, Z23

	ADDQ $256, SI
	SUBQ $256, CX
	JMP  fourBlocks

join:
	VPCLMULQDQ $0x00, Z17, Z20, Z24
	VPCLMULQDQ $0x11, Z17, Z20, Z20
	VPTERNLOGQ $0x96, Z20, Z24, Z21
	VPCLMULQDQ $0x00, Z17, Z21, Z24
	VPCLMULQDQ $0x11, Z17, Z21, Z21
	VPTERNLOGQ $0x96, Z21, Z24, Z22
	VPCLMULQDQ $0x00, Z17, Z22, Z24
	VPCLMULQDQ $0x11, Z17, Z22, Z22
	VPTERNLOGQ $0x96, Z22, Z24, Z23

oneBlock:
	TESTQ CX, CX
	JZ    reduce

	VPCLMULQDQ $0x00, Z17, Z23, Z24
	VPCLMULQDQ $0x11, Z17, Z23, Z23
	VPTERNLOGQ $0x96, 0(SI), Z24, Z23

	ADDQ $64, SI
	SUBQ $64, CX
	JMP  oneBlock

reduce:
	// The CRC of the remainder is that of everything.
	VMOVDQU64 Z23, 0(SP)
	XORL      AX, AX
	CRC32Q    0(SP), AX
	CRC32Q    8(SP), AX
	CRC32Q    16(SP), AX
	CRC32Q    24(SP), AX
	CRC32Q    32(SP), AX
	CRC32Q    40(SP), AX
	CRC32Q    48(SP), AX
	CRC32Q    56(SP), AX
	MOVL      AX, ret+32(FP)
	RET
