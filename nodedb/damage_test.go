package nodedb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/goiscsi/goiscsi/nodedb"
)

// sizeBytes returns where in a database file the highest bytes of the sizes of keys
// and values are: of the first elements of all pages of trees, and of the first of
// each bucket within a page.
func sizeBytes(file []byte) (at []int) {
	const header, element = 16, 16
	page := os.Getpagesize()
	u16 := func(i int) int { return int(binary.NativeEndian.Uint16(file[i:])) }
	u32 := func(i int) int { return int(binary.NativeEndian.Uint32(file[i:])) }
	highest := 3
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		highest = 0
	}
	var leaf func(start int)
	leaf = func(start int) {
		if u16(start+10) > 0 {
			first := start + header
			at = append(at, first+8+highest, first+12+highest)
		}
		for i := range u16(start + 10) {
			e := start + header + i*element
			if value := e + u32(e+4) + u32(e+8); u32(e) == 1 && u32(value) == 0 {
				leaf(value + 16)
			}
		}
	}
	for start := 2 * page; start < len(file); start += page {
		switch u16(start + 8) {
		case 1:
			at = append(at, start+header+4+highest)
		case 2:
			leaf(start)
		}
	}
	return at
}

func TestAnElementLongerThanItsPageIsNotWritten(t *testing.T) {
	for _, records := range []int{1, 120} {
		t.Run(fmt.Sprint(records, " records"), func(t *testing.T) {
			db := newDB(t)
			nodes := make([]*nodedb.Node, records)
			for i := range nodes {
				nodes[i] = newNode(t, key("iqn.x", fmt.Sprint("h", i)), 1)
			}
			put(t, db, nodes...)
			good, err := os.ReadFile(db.Path())
			if err != nil {
				t.Fatal(err)
			}
			refused := 0
			for _, at := range sizeBytes(good) {
				bad := bytes.Clone(good)
				bad[at] = 0x58 // more than a gigabyte
				db := openDB(filepath.Join(t.TempDir(), "nodes.db"))
				if err := os.WriteFile(db.Path(), bad, 0o600); err != nil {
					t.Fatal(err)
				}
				before := allocated()
				_ = db.View(context.Background(), func(tx *nodedb.Tx) error { tx.Tree(); return nil }) // may fail
				err := db.Update(context.Background(), func(tx *nodedb.Tx) error {
					var all error
					for _, n := range nodes {
						all = errors.Join(all, n.Set(nodedb.FieldReplacementTimeout, "7"), tx.PutNode(n))
					}
					return all
				})
				if n := allocated() - before; n > 64<<20 {
					t.Errorf("byte %d: %d bytes allocated", at, n)
				}
				// Pages that are free may hold anything.
				if err != nil && !errors.Is(err, nodedb.ErrCorrupt) {
					t.Errorf("byte %d: %v", at, err)
				}
				if err != nil {
					refused++
				}
				if info, err := os.Stat(db.Path()); err != nil || info.Size() > int64(4*len(good)) {
					t.Errorf("byte %d: %d bytes became %d, %v", at, len(good), info.Size(), err)
				}
			}
			if refused == 0 {
				t.Error("nothing was refused")
			}
		})
	}
}

func TestADamagedListOfFreePagesIsNotUsed(t *testing.T) {
	page := os.Getpagesize()
	put16, put32, put64 := binary.NativeEndian.PutUint16, binary.NativeEndian.PutUint32, binary.NativeEndian.PutUint64
	for _, tc := range []struct {
		name  string
		spoil func(list, meta []byte) // from their pages' headers on
	}{
		{"of another type", func(list, _ []byte) { put16(list[8:], 2) }},
		{"longer than its page", func(list, _ []byte) { put16(list[10:], 4000) }},
		{"of more than there is memory", func(list, _ []byte) { put16(list[10:], 0xffff); put64(list[16:], 1<<40) }},
		{"longer than the file", func(list, _ []byte) { put32(list[12:], 1<<31) }},
		{"with a meta page", func(list, _ []byte) { put64(list[16:], 1) }},
		{"with a page twice", func(list, _ []byte) { copy(list[24:32], list[16:]) }},
		{"with a page beyond the end", func(list, _ []byte) {
			n := int(binary.NativeEndian.Uint16(list[10:]))
			put64(list[16+8*(n-1):], 1<<40)
		}},
		{"with its own page", func(list, _ []byte) { put16(list[10:], 1); copy(list[16:24], list) }},
		{"with the page of a tree", func(list, meta []byte) { put16(list[10:], 1); copy(list[16:24], meta[16+16:]) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db := newDB(t)
			n := newNode(t, key("iqn.x", "h"), 1)
			for _, value := range []string{"7", "8", "9", "10"} { // leaves free pages
				put(t, db, n)
				if err := n.Set(nodedb.FieldReplacementTimeout, value); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(db.Path())
			if err != nil {
				t.Fatal(err)
			}
			meta := b[:page]
			if u64 := binary.NativeEndian.Uint64; u64(b[page+16+48:]) > u64(b[16+48:]) {
				meta = b[page:]
			}
			list := b[int(binary.NativeEndian.Uint64(meta[16+32:]))*page:]
			if binary.NativeEndian.Uint16(list[10:]) < 2 {
				t.Fatal("too few free pages")
			}
			tc.spoil(list, meta)
			if err := os.WriteFile(db.Path(), b, 0o600); err != nil {
				t.Fatal(err)
			}
			before := allocated()
			err = db.Update(context.Background(), func(tx *nodedb.Tx) error { return tx.PutNode(n) })
			if !errors.Is(err, nodedb.ErrCorrupt) {
				t.Errorf("Update: %v", err)
			}
			if n := allocated() - before; n > 64<<20 {
				t.Errorf("%d bytes allocated", n)
			}
			// What is free does not matter to a reader.
			if got := refs(t, db, nodedb.Match{}); len(got) != 1 {
				t.Errorf("records %q", got)
			}
		})
	}
}
