package nodedb

import (
	"bytes"
	"cmp"
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

// checkTrees refuses a database in which a page is reached in two ways: bbolt
// would follow a page that is below itself until the stack has used up the memory
// that Go allows it, which ends the process.
//
// To write, all elements must lie within their pages as well: bbolt makes room for
// as much as they say they are long, which may be gigabytes; and none of the pages may
// be free. To read, only those of the root need to, which bbolt copies: what is wrong
// in others shows when they are read, and the rest can be read still.
func checkTrees(tx *bolt.Tx, file io.ReaderAt) error {
	t, err := newTreeChecker(file, tx.Size(), tx.DB().Info().PageSize)
	if err != nil {
		return err
	}
	t.elements = true
	if err := t.check(uint64(tx.Cursor().Bucket().Root())); err != nil {
		return err
	}
	t.elements = tx.Writable()
	for _, name := range [][]byte{bucketMeta, bucketNodes, bucketDiscoveries, bucketLinks, bucketIfaces} {
		// A small bucket has no page of its own: its root is 0.
		if b := tx.Bucket(name); b != nil && b.Root() != 0 {
			if err := t.check(uint64(b.Root())); err != nil {
				return err
			}
		}
	}
	if !tx.Writable() {
		return nil
	}
	for id, used := range t.seen {
		if !used {
			continue
		}
		if info, err := tx.Page(id); err != nil || info.Type == "free" {
			return cmp.Or(err, fmt.Errorf("%w: page %d is in use and free", ErrCorrupt, id))
		}
	}
	return nil
}

// smallFile is the size of a file that is read as a whole; of a larger one, the
// pages of trees are read one by one.
const smallFile = 1 << 20

// A treeChecker looks at the trees of one file.
type treeChecker struct {
	file     io.ReaderAt
	pageSize int64
	elements bool   // look where keys and values are, too
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
		if err := t.claim(id, 1); err != nil {
			return err
		}
		b, err := t.read(id, 0, pageHeaderSize)
		if err != nil {
			return err
		}
		p := pageOf(b)
		if err := t.claim(id+1, p.overflow); err != nil {
			return err
		}
		leaf := p.flags == leafPageFlag
		switch {
		case leaf && !t.elements:
			continue
		case !leaf && p.flags != branchPageFlag:
			return fmt.Errorf("%w: page %d of a tree has the type %#x", ErrCorrupt, id, p.flags)
		}
		elements, err := t.read(id, pageHeaderSize, p.count*elementSize)
		if err != nil {
			return err
		}
		var buckets []span
		if t.elements {
			if buckets, err = checkElements(elements, leaf, (1+p.overflow)*t.pageSize); err != nil {
				return fmt.Errorf("%w, page %d", err, id)
			}
		}
		for ; !leaf && len(elements) > 0; elements = elements[elementSize:] {
			todo = append(todo, binary.NativeEndian.Uint64(elements[8:]))
		}
		for _, at := range buckets {
			if err := t.checkBucket(id, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// claim notes that n pages from id on are in use.
func (t *treeChecker) claim(id uint64, n int64) error {
	for ; n > 0; id, n = id+1, n-1 {
		if id >= uint64(len(t.seen)) {
			return fmt.Errorf("%w: page %d is beyond the end of the file", ErrCorrupt, id)
		}
		if t.seen[id] {
			return fmt.Errorf("%w: page %d is in two places", ErrCorrupt, id)
		}
		t.seen[id] = true
	}
	return nil
}

// checkBucket looks at a bucket if it is a small one, which lies in the page of its
// parent.
func (t *treeChecker) checkBucket(id uint64, at span) error {
	if at.length < bucketHeaderSize {
		return fmt.Errorf("%w: a bucket of %d bytes, page %d", ErrCorrupt, at.length, id)
	}
	b, err := t.read(id, int(at.from), int(at.length))
	if err != nil {
		return err
	}
	if binary.NativeEndian.Uint64(b) != 0 {
		return nil // has pages of its own
	}
	b = b[bucketHeaderSize:]
	if len(b) < pageHeaderSize {
		return fmt.Errorf("%w: a bucket without a page, page %d", ErrCorrupt, id)
	}
	p := pageOf(b)
	if p.flags != leafPageFlag || len(b) < pageHeaderSize+p.count*elementSize {
		return fmt.Errorf("%w: a bucket that is none, page %d", ErrCorrupt, id)
	}
	if _, err := checkElements(b[pageHeaderSize:][:p.count*elementSize], true, int64(len(b))); err != nil {
		return fmt.Errorf("%w, of a bucket within page %d", err, id)
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
