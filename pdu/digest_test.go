package pdu_test

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/pdu"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// TestCRC32C has the examples of RFC 7143 appendix A.4, with the digest as it
// stands on the wire.
func TestCRC32C(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range up {
		up[i], down[i] = byte(i), byte(31-i)
	}
	tests := map[string]struct {
		data []byte
		wire string
	}{
		"zeroes":     {make([]byte, 32), "aa36918a"},
		"ones":       {[]byte(strings.Repeat("\xff", 32)), "43aba862"},
		"increasing": {up, "4e79dd46"},
		"decreasing": {down, "5cdb3f11"},
		"read pdu": {unhex(t, "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018"+
			"28000000 00000000 02000000 00000000"), "563a96d9"},
	}
	for name, tt := range tests {
		if got := fmt.Sprintf("%x", pdu.AppendDigest(nil, pdu.CRC32C(0, tt.data))); got != tt.wire {
			t.Errorf("%s: %s, want %s", name, got, tt.wire)
		}
	}
}

// TestCRC32CIsThatOfTheStandardLibrary looks at lengths and alignments around those
// at which the vectors begin and end.
func TestCRC32CIsThatOfTheStandardLibrary(t *testing.T) {
	const room = 64 << 10
	b := make([]byte, room+64)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(b) // has no error
	for n := 0; n <= room; n += max(1, n/700) {
		for _, from := range []int{0, 1, 7, n % 64} {
			data, crc := b[from:from+n], uint32(n)*0x9e3779b1
			if got, want := pdu.CRC32C(crc, data), crc32.Update(crc, castagnoli, data); got != want {
				t.Fatalf("%d bytes at %d from %08x: %08x, not %08x", n, from, crc, got, want)
			}
		}
	}
}

func BenchmarkCRC32C(b *testing.B) {
	for _, n := range []int{48, 512, 4 << 10, 128 << 10, 1 << 20, 64 << 20} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i)
		}
		for _, w := range []struct {
			name string
			crc  func([]byte) uint32
		}{
			{"pdu", func(b []byte) uint32 { return pdu.CRC32C(0, b) }},
			{"hash", func(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }},
		} {
			b.Run(fmt.Sprintf("bytes=%d/by=%s", n, w.name), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					w.crc(data)
				}
			})
		}
	}
}
