package nodedb

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// The mirror is a copy of the records in open-iscsi's tree, written after the
// commit and before the lock is given up, so that the last commit is what the
// tree shows. The database counts its commits, and the file generationFile in
// the tree says up to which of them the tree is. A process that dies between
// commit and mirror, or cannot write the tree, leaves the file behind; the next
// Update sees it and writes the whole tree anew.
const generationFile = ".goiscsi-generation"

// changes are what a transaction did.
type changes struct {
	// any says that there is something to commit.
	any bool
	// generation is the database's count of commits with this one.
	generation uint64
	// track says that there is a mirror, which needs the steps: the records
	// that were written or removed, in the order in which that was done. A
	// record is removed under its old path before it is written under a new
	// one.
	track bool
	steps []step
}

type step struct {
	r       record
	removed bool
}

func (c *changes) put(r *record)    { c.add(r, false) }
func (c *changes) remove(r *record) { c.add(r, true) }

func (c *changes) add(r *record, removed bool) {
	c.any = true
	if c.track {
		c.steps = append(c.steps, step{r: r.clone(), removed: removed})
	}
}

// updateMirror brings the tree in step. Trouble is logged and not returned:
// the transaction has succeeded.
func (db *DB) updateMirror(b *bolt.DB, c *changes) {
	root := db.o.Mirror
	if root == "" {
		return
	}
	before := c.generation
	if c.any {
		before--
	}
	var err error
	switch at := readGeneration(root); {
	case at == seqText(before):
		err = mirrorSteps(root, c.steps)
	default:
		err = db.mirrorAll(b, root)
	}
	if err == nil && (c.any || readGeneration(root) != seqText(c.generation)) {
		err = writeTreeFile(root, generationFile, []byte(seqText(c.generation)))
	}
	if err != nil {
		db.o.Logger.Warn("mirror of the node database is behind, will try again with the next change", "mirror", root, "err", err)
	}
}

func seqText(n uint64) string { return itoa(int(n)) + "\n" }

func readGeneration(root string) string {
	b, err := os.ReadFile(filepath.Join(root, generationFile))
	if err != nil {
		return ""
	}
	return string(b)
}

// mirrorSteps does to the tree what a transaction did to the database. Only
// the last of what was done to a path is done.
func mirrorSteps(root string, steps []step) error {
	files := make(map[string]*record) // nil is removed
	links := make(map[string]string)  // empty is removed
	for i := range steps {
		s := &steps[i]
		p := treePath(&s.r)
		files[p] = &s.r
		if s.removed {
			files[p] = nil
		}
		if s.r.t == nodeTable {
			link, target := treeLink(&Node{s.r})
			links[link] = target
			if s.removed {
				links[link] = ""
			}
		}
	}
	var errs []error
	// Links to what goes go first, and those to what comes come last.
	for link, target := range links {
		if target == "" {
			errs = append(errs, removeTreeLink(root, link))
		}
	}
	for p, r := range files {
		if r == nil {
			errs = append(errs, removeTreeFile(root, p))
		}
	}
	for p, r := range files {
		if r != nil {
			errs = append(errs, writeTreeFile(root, p, fileText(r, true)))
		}
	}
	for link, target := range links {
		if target != "" {
			errs = append(errs, writeTreeLink(root, link, target))
		}
	}
	return errors.Join(errs...)
}

// mirrorAll writes the whole tree and removes files of the mirror for which
// there is no record.
func (db *DB) mirrorAll(b *bolt.DB, root string) error {
	var steps []step
	err := b.View(func(btx *bolt.Tx) error {
		tx, err := newTx(db, btx)
		if err != nil {
			return err
		}
		for _, r := range tx.Tree().records() {
			steps = append(steps, step{r: *r})
		}
		return nil
	})
	if err != nil {
		return err
	}
	want := make(map[string]bool)
	for i := range steps {
		want[treePath(&steps[i].r)] = true
	}
	if err := removeStale(root, want); err != nil {
		return err
	}
	// The lock is ours, so nobody is filling these.
	if left, err := filepath.Glob(filepath.Join(root, tmpPrefix+"*")); err == nil {
		for _, p := range left {
			os.Remove(p)
		}
	}
	return mirrorSteps(root, steps)
}

// removeStale removes the files with the mirror's mark that are not wanted,
// and the mirror's links that lead nowhere.
func removeStale(root string, want map[string]bool) error {
	var stale, links []string
	for _, dir := range []string{"nodes", "send_targets", "isns", "static", "fw", "ifaces"} {
		top := filepath.Join(root, dir)
		if resolved, err := filepath.EvalSymlinks(top); err == nil {
			top = resolved // the directory itself may be a link
		}
		err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			rel, err := filepath.Rel(top, p)
			if err != nil {
				return err
			}
			name := path.Join(dir, filepath.ToSlash(rel))
			switch {
			case d.Type()&fs.ModeSymlink != 0:
				links = append(links, name)
			case d.Type().IsRegular() && !want[name]:
				stale = append(stale, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range stale {
		errs = append(errs, removeTreeFile(root, name))
	}
	for _, name := range links {
		p := filepath.Join(root, filepath.FromSlash(name))
		target, err := os.Readlink(p)
		_, ok := cutLink(path.Base(name))
		if err != nil || !ok || !strings.HasPrefix(target, "../") {
			continue // not ours
		}
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, removeTreeLink(root, name))
		}
	}
	return errors.Join(errs...)
}

// removeTreeFile removes a file that the mirror wrote and the directories that
// are empty without it.
func removeTreeFile(root, name string) error {
	p := filepath.Join(root, filepath.FromSlash(name))
	text, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !hasMark(text) {
		return nil // not ours
	}
	if err := os.Remove(p); err != nil {
		return err
	}
	removeEmptyDirs(root, path.Dir(name))
	return nil
}

// removeTreeLink removes a symbolic link, and nothing else.
func removeTreeLink(root, name string) error {
	p := filepath.Join(root, filepath.FromSlash(name))
	if _, err := os.Readlink(p); err != nil {
		return nil
	}
	if err := os.Remove(p); err != nil {
		return err
	}
	removeEmptyDirs(root, path.Dir(name))
	return nil
}

// removeEmptyDirs removes a directory of the tree and those above it as long as
// they are empty, but not the topmost.
func removeEmptyDirs(root, dir string) {
	for strings.Contains(dir, "/") {
		if os.Remove(filepath.Join(root, filepath.FromSlash(dir))) != nil {
			return
		}
		dir = path.Dir(dir)
	}
}
