package compatsysfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// A view is the tree laid over the real /sys. It has no state of its own and
// may be used concurrently. Paths are relative and clean.
type view struct {
	src  *source
	real *os.Root
}

// ours are the directories of /sys that have something of ours in them.
// What is in the others is real and looked up without a tree.
var ours = []string{".", "block", "bus", "class", "dev", "devices", "module"}

// nothing is the tree for paths that cannot be ours.
var nothing = newTree()

// An entry is what is at a path.
type entry struct {
	path string
	tree *tree
	node *node  // ours, or nil
	real string // where it is in the real tree, whether it exists or not
}

// lookup returns what is at p. It is an error that wraps fs.ErrNotExist if
// nothing is.
func (v *view) lookup(ctx context.Context, p string) (entry, error) {
	t := nothing
	if first, _, _ := strings.Cut(p, "/"); slices.Contains(ours, first) {
		t = v.src.current(ctx)
	}
	e := entry{path: p, tree: t}
	e.node, e.real = t.find(p)
	if e.node != nil {
		return e, nil
	}
	_, err := v.real.Lstat(e.real)
	return e, err
}

// stat fills in what a stat of e gives.
func (v *view) stat(e entry, st *syscall.Stat_t) error {
	if n := e.node; n != nil {
		*st = syscall.Stat_t{Nlink: 1, Size: sysfsSize, Blksize: sysfsSize, Mode: n.perm | modeOf[n.kind]}
		at := syscall.NsecToTimespec(v.src.born.UnixNano())
		st.Atim, st.Mtim, st.Ctim = at, at, at
		if n.kind == kindLink {
			st.Size = int64(len(n.text))
		}
		return nil
	}
	fi, err := v.real.Lstat(e.real)
	if err != nil {
		return err
	}
	real, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return syscall.EIO
	}
	*st = *real
	return nil
}

// sysfsSize is the size that sysfs gives its files.
const sysfsSize = 4096

var modeOf = [...]uint32{kindDir: syscall.S_IFDIR, kindLink: syscall.S_IFLNK, kindFile: syscall.S_IFREG}

// A name is one entry of a directory.
type name struct {
	name string
	mode uint32 // type bits
}

// list returns the entries of the directory e, those of ours and the real ones,
// by name.
func (v *view) list(e entry) ([]name, error) {
	var out []name
	if e.node != nil {
		for s, n := range e.node.children {
			out = append(out, name{s, modeOf[n.kind]})
		}
	}
	real, err := v.realNames(e.real)
	if err != nil && (e.node == nil || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	for _, d := range real {
		if e.node == nil || e.node.children[d.Name()] == nil {
			out = append(out, name{d.Name(), typeBits(d.Type())})
		}
	}
	slices.SortFunc(out, func(a, b name) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

func (v *view) realNames(dir string) ([]fs.DirEntry, error) {
	f, err := v.real.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// typeBits are the bits of st_mode for a type.
func typeBits(m fs.FileMode) uint32 {
	switch {
	case m.IsDir():
		return syscall.S_IFDIR
	case m&fs.ModeSymlink != 0:
		return syscall.S_IFLNK
	}
	return syscall.S_IFREG
}

// readlink returns where the link e leads. A real one that stands in a graft
// or leads into one is turned.
func (v *view) readlink(e entry) (string, error) {
	if e.node != nil {
		return e.node.text, nil
	}
	text, err := v.real.Readlink(e.real)
	if err != nil || path.IsAbs(text) {
		return text, err
	}
	to := path.Join(path.Dir(e.real), text)
	shown := e.tree.shown(to)
	if shown == to && e.path == e.real || strings.HasPrefix(to, "..") {
		return text, nil
	}
	return relative(path.Dir(e.path), shown), nil
}
