package nodedb

import (
	"encoding/binary"
	"fmt"
)

// Layout of a page (bbolt's internal/common/page.go, inode.go and bucket.go). Numbers are
// the machine's.
const (
	pageHeaderSize   = 16 // id uint64, flags uint16, count uint16, overflow uint32
	elementSize      = 16 // of a branch: pos uint32, ksize uint32, id uint64; of a leaf: flags, pos, ksize, vsize uint32
	bucketHeaderSize = 16 // root uint64, sequence uint64
	branchPageFlag   = 0x01
	leafPageFlag     = 0x02
	bucketLeafFlag   = 0x01 // of an element: its value is a bucket
)

// A pageHeader is the header of a page.
type pageHeader struct {
	flags    uint16
	count    int   // elements
	overflow int64 // pages that belong to it
}

func pageOf(b []byte) pageHeader {
	return pageHeader{
		flags:    binary.NativeEndian.Uint16(b[8:]),
		count:    int(binary.NativeEndian.Uint16(b[10:])),
		overflow: int64(binary.NativeEndian.Uint32(b[12:])),
	}
}

// A span is a part of a page.
type span struct{ from, length int64 }

// checkElements refuses elements of a leaf or a branch, which follow its header,
// whose keys and values are not within its length. It returns where the values are
// that are buckets.
func checkElements(elements []byte, leaf bool, length int64) (buckets []span, err error) {
	behind := int64(pageHeaderSize + len(elements))
	for at := int64(pageHeaderSize); len(elements) > 0; at += elementSize {
		var flags, vsize uint32
		pos, ksize := binary.NativeEndian.Uint32(elements), binary.NativeEndian.Uint32(elements[4:])
		if leaf {
			flags, pos = pos, ksize
			ksize, vsize = binary.NativeEndian.Uint32(elements[8:]), binary.NativeEndian.Uint32(elements[12:])
		}
		elements = elements[elementSize:]
		key := at + int64(pos)
		value := key + int64(ksize)
		if key < behind || value+int64(vsize) > length {
			return nil, fmt.Errorf("%w: an element at %d of %d and %d bytes", ErrCorrupt, key, ksize, vsize)
		}
		if flags&bucketLeafFlag != 0 {
			buckets = append(buckets, span{value, int64(vsize)})
		}
	}
	return buckets, nil
}
