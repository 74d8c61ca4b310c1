package nodedb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	bolt "go.etcd.io/bbolt"
)

// What a damaged file could do to bbolt and what could not be made an error
// afterwards is looked for beforehand: whatever would keep it busy, or have it
// use up all memory.

// checkPages refuses a file with a page that bbolt cannot have written. When it
// frees a page it believes the page's length, and would count up to four
// thousand million pages of garbage.
func checkPages(tx *bolt.Tx) error {
	pages := int(tx.Size()) / tx.DB().Info().PageSize
	for id := 0; id < pages; {
		info, err := tx.Page(id)
		if err != nil {
			return err
		}
		switch info.Type {
		case "free":
			id++ // what is left in it means nothing
			continue
		case "meta", "branch", "leaf", "freelist":
		default:
			return fmt.Errorf("%w: page %d is of no known type", ErrCorrupt, id)
		}
		if info.OverflowCount >= pages-id {
			return fmt.Errorf("%w: page %d is longer than the file", ErrCorrupt, id)
		}
		id += 1 + info.OverflowCount
	}
	return nil
}

// Layout of a page (bbolt's internal/common/page.go). Numbers are the machine's.
const (
	pageHeaderSize    = 16 // id uint64, flags uint16, count uint16, overflow uint32
	branchElementSize = 16 // pos uint32, ksize uint32, id uint64
	branchPageFlag    = 0x01
	leafPageFlag      = 0x02
)

// checkTrees refuses a database in which a page is reached in two ways: bbolt
// would follow a page that is below itself until the stack has used up the memory
// that Go allows it, which ends the process. The leaves need not be good; what is
// wrong in them shows when they are read.
func checkTrees(tx *bolt.Tx, file io.ReaderAt) error {
	t, err := newTreeChecker(file, tx.Size(), tx.DB().Info().PageSize)
	if err != nil {
		return err
	}
	if err := t.check(uint64(tx.Cursor().Bucket().Root())); err != nil {
		return err
	}
	for _, name := range [][]byte{bucketMeta, bucketNodes, bucketDiscoveries, bucketLinks, bucketIfaces} {
		// A small bucket has no page of its own: its root is 0.
		if b := tx.Bucket(name); b != nil && b.Root() != 0 {
			if err := t.check(uint64(b.Root())); err != nil {
				return err
			}
		}
	}
	return nil
}

// smallFile is the size of a file that is read as a whole; of a larger one, the
// header of each page is read by itself.
const smallFile = 1 << 20

// A treeChecker looks at the trees of one file.
type treeChecker struct {
	file     io.ReaderAt
	pageSize int64
	seen     []bool // by page
	buf      []byte
}

func newTreeChecker(file io.ReaderAt, size int64, pageSize int) (*treeChecker, error) {
	if size <= smallFile {
		b := make([]byte, size)
		n, err := file.ReadAt(b, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		file = bytes.NewReader(b[:n])
	}
	return &treeChecker{file: file, pageSize: int64(pageSize), seen: make([]bool, size/int64(pageSize))}, nil
}

// check follows all branches below a root.
func (t *treeChecker) check(root uint64) error {
	for todo := []uint64{root}; len(todo) > 0; {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if id >= uint64(len(t.seen)) {
			return fmt.Errorf("%w: page %d is beyond the end of the file", ErrCorrupt, id)
		}
		if t.seen[id] {
			return fmt.Errorf("%w: page %d is in two places", ErrCorrupt, id)
		}
		t.seen[id] = true
		header, err := t.read(id, 0, pageHeaderSize)
		if err != nil {
			return err
		}
		switch flags := binary.NativeEndian.Uint16(header[8:]); flags {
		case leafPageFlag:
		case branchPageFlag:
			elements, err := t.read(id, pageHeaderSize, int(binary.NativeEndian.Uint16(header[10:]))*branchElementSize)
			if err != nil {
				return err
			}
			for ; len(elements) > 0; elements = elements[branchElementSize:] {
				todo = append(todo, binary.NativeEndian.Uint64(elements[8:]))
			}
		default:
			return fmt.Errorf("%w: page %d of a tree has the type %#x", ErrCorrupt, id, flags)
		}
	}
	return nil
}

// read returns n bytes of a page from an offset on, until the next call.
func (t *treeChecker) read(id uint64, offset, n int) ([]byte, error) {
	if cap(t.buf) < n {
		t.buf = make([]byte, n)
	}
	b := t.buf[:n]
	_, err := t.file.ReadAt(b, int64(id)*t.pageSize+int64(offset))
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: page %d is longer than the file", ErrCorrupt, id)
	}
	return b, err
}
