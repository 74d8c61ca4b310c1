package checker

import "unsafe"

// Aligned returns n bytes that start at a multiple of BlockSize in memory, as
// direct I/O wants them.
func Aligned(n int) []byte {
	b := make([]byte, n+BlockSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (BlockSize - 1)
	return b[skip : skip+n : skip+n]
}
