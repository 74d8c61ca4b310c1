package nodedb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Tree returns all records.
func (tx *Tx) Tree() *Tree {
	t := &Tree{Nodes: tx.Nodes(Match{}), Ifaces: tx.UserIfaces()}
	for _, k := range tx.Discoveries() {
		d, err := tx.Discovery(k)
		if err != nil {
			tx.damaged("discovery", k.encode(), err)
			continue
		}
		t.Discoveries = append(t.Discoveries, d)
	}
	return t
}

// An ImportResult counts what Import stored and what it found there already.
type ImportResult struct {
	Nodes, Discoveries, Ifaces int // records stored
	// Kept counts records that were left alone because one with the same key
	// was there.
	Kept int
}

// Import stores the records of a tree. Records that exist stay as they are
// unless overwrite is true. Errors are the database's.
func (tx *Tx) Import(t *Tree, overwrite bool) (ImportResult, error) {
	var res ImportResult
	missing := func(err error) bool {
		if overwrite || errors.Is(err, fs.ErrNotExist) {
			return true
		}
		res.Kept++
		return false
	}
	for _, i := range t.Ifaces {
		if _, err := tx.Iface(i.Name()); missing(err) {
			if err := tx.PutIface(i); err != nil {
				return res, err
			}
			res.Ifaces++
		}
	}
	for _, d := range t.Discoveries {
		if _, err := tx.Discovery(d.Key()); missing(err) {
			if err := tx.PutDiscovery(d); err != nil {
				return res, err
			}
			res.Discoveries++
		}
	}
	for _, n := range t.Nodes {
		if _, err := tx.Node(n.Key()); missing(err) {
			if err := tx.PutNode(n); err != nil {
				return res, err
			}
			res.Nodes++
		}
	}
	return res, nil
}

// records returns the records that have files.
func (t *Tree) records() []*record {
	var rs []*record
	for _, i := range t.Ifaces {
		rs = append(rs, &i.record)
	}
	for _, d := range t.Discoveries {
		rs = append(rs, &d.record)
	}
	for _, n := range t.Nodes {
		rs = append(rs, &n.record)
	}
	return rs
}

// Write writes the tree as files below root, directories with mode 0700 and
// files with 0600. Each file is replaced at once; others that are there stay.
func (t *Tree) Write(root string) error {
	for _, r := range t.records() {
		if err := writeTreeFile(root, treePath(r), fileText(r, false)); err != nil {
			return err
		}
	}
	for _, n := range t.Nodes {
		link, target := treeLink(n)
		if err := writeTreeLink(root, link, target); err != nil {
			return err
		}
	}
	return nil
}

// writeTreeFile replaces a file of a tree if its text is another.
func writeTreeFile(root, name string, text []byte) error {
	p := filepath.Join(root, filepath.FromSlash(name))
	if old, err := os.ReadFile(p); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		return err
	}
	err := writeFileAtomic(p, text, root)
	if errors.Is(err, syscall.EXDEV) {
		err = writeFileAtomic(p, text, filepath.Dir(p)) // a directory of the tree is a link
	}
	return err
}

// writeTreeLink makes or replaces a symbolic link of a tree.
func writeTreeLink(root, name, target string) error {
	p := filepath.Join(root, filepath.FromSlash(name))
	switch old, err := os.Readlink(p); {
	case err == nil && old == target:
		return nil
	case err == nil:
		if err := os.Remove(p); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("in the way of a link: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		return err
	}
	return os.Symlink(target, p)
}
