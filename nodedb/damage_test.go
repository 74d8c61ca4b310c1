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
				err := db.Update(context.Background(), func(tx *nodedb.Tx) error {
					var all error
					for _, n := range nodes {
						all = errors.Join(all, n.Set(nodedb.FieldReplacementTimeout, "7"), tx.PutNode(n))
					}
					return all
				})
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
