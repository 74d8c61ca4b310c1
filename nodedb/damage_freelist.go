package nodedb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// Layout of a meta page behind its header (bbolt's internal/common/meta.go): magic,
// version, pageSize, flags uint32; root and sequence, freelist, pages, transaction,
// checksum uint64.
const (
	metaMagic    = 0xED0CDAED
	metaSize     = 64
	noFreelist   = ^uint64(0) // it is not kept in the file
	freelistFlag = 0x10
	// manyFree in the header says that the first element is the number of elements.
	manyFree = 0xffff
)

// A metaPage is what a meta page says.
type metaPage struct {
	pageSize                      int64
	freelist, pages, transactions uint64
}

// readMeta reads the meta page at an offset; ok is false if it is none.
func readMeta(file io.ReaderAt, at int64) (m metaPage, ok bool) {
	var b [metaSize]byte
	if _, err := file.ReadAt(b[:], at+pageHeaderSize); err != nil {
		return m, false
	}
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8]) //nolint:errcheck // has no error
	u64 := func(i int) uint64 { return binary.NativeEndian.Uint64(b[i:]) }
	m = metaPage{int64(binary.NativeEndian.Uint32(b[8:])), u64(32), u64(40), u64(48)}
	return m, binary.NativeEndian.Uint32(b[:]) == metaMagic && sum.Sum64() == u64(56) && m.pageSize > 0
}

// checkFreelist refuses a file whose list of free pages bbolt could not have written.
// It reads that when it opens the file to write, and gets as much memory for it as
// the list says it is long. A file without a good meta page is left to bbolt.
func checkFreelist(file io.ReaderAt) error {
	m, ok := readMeta(file, 0)
	second := int64(os.Getpagesize())
	if ok {
		second = m.pageSize
	}
	if other, good := readMeta(file, second); good && (!ok || other.transactions > m.transactions) {
		m, ok = other, true
	}
	if !ok || m.freelist == noFreelist {
		return nil
	}
	corrupt := func(what string) error { return fmt.Errorf("%w: the list of free pages %s", ErrCorrupt, what) }
	if m.freelist >= m.pages {
		return corrupt("is beyond the end of the file")
	}
	at := int64(m.freelist) * m.pageSize
	var b [pageHeaderSize + 8]byte
	if _, err := file.ReadAt(b[:], at); errors.Is(err, io.EOF) {
		return corrupt("is beyond the end of the file")
	} else if err != nil {
		return err
	}
	p := pageOf(b[:])
	room := uint64(1+p.overflow)*uint64(m.pageSize) - pageHeaderSize
	first, n := int64(pageHeaderSize), uint64(p.count)
	if p.count == manyFree {
		first, n = first+8, binary.NativeEndian.Uint64(b[pageHeaderSize:])
		room -= 8
	}
	switch {
	case p.flags != freelistFlag:
		return corrupt("is none")
	case uint64(p.overflow) >= m.pages-m.freelist, n > room/8:
		return corrupt("is longer than its pages")
	}
	ids := make([]byte, n*8)
	if _, err := file.ReadAt(ids, at+first); errors.Is(err, io.EOF) {
		return corrupt("is beyond the end of the file")
	} else if err != nil {
		return err
	}
	for last := uint64(1); len(ids) > 0; ids = ids[8:] { // pages 0 and 1 are the meta pages
		id := binary.NativeEndian.Uint64(ids)
		if id <= last || id >= m.pages {
			return corrupt(fmt.Sprintf("has page %d behind %d, of %d", id, last, m.pages))
		}
		if id >= m.freelist && id-m.freelist <= uint64(p.overflow) {
			return corrupt("has its own pages")
		}
		last = id
	}
	return nil
}
