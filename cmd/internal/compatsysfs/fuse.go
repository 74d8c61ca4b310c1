package compatsysfs

import (
	"context"
	"hash/fnv"
	"os"
	"path"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// An inode is a path of the view. What is there is looked up at every operation.
type inode struct {
	fs.Inode
	v    *view
	path string
}

var (
	_ fs.NodeLookuper   = (*inode)(nil)
	_ fs.NodeGetattrer  = (*inode)(nil)
	_ fs.NodeSetattrer  = (*inode)(nil)
	_ fs.NodeReaddirer  = (*inode)(nil)
	_ fs.NodeReadlinker = (*inode)(nil)
	_ fs.NodeOpener     = (*inode)(nil)
)

// number is the inode number of a path: always the same one, so that the
// kernel knows a directory again that it has looked up anew, and find(1) and
// others see the number that readdir has told. Two paths of a hundred thousand have the
// same one with a probability below 2^-30.
func number(p string, mode uint32) uint64 {
	h := fnv.New64a()
	h.Write([]byte{byte(mode >> 12)})
	h.Write([]byte(p))
	return h.Sum64()
}

// attr fills in what the kernel is to know of e.
func (v *view) attr(e entry, out *fuse.Attr) syscall.Errno {
	var st syscall.Stat_t
	if err := v.stat(e, &st); err != nil {
		return errnoOf(err)
	}
	out.FromStat(&st)
	out.Ino = number(e.path, out.Mode&syscall.S_IFMT)
	return 0
}

// Lookup implements fs.NodeLookuper.
func (n *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	p := path.Join(n.path, name)
	e, err := n.v.lookup(ctx, p)
	if err != nil {
		return nil, errnoOf(err)
	}
	if errno := n.v.attr(e, &out.Attr); errno != 0 {
		return nil, errno
	}
	id := fs.StableAttr{Mode: out.Mode & syscall.S_IFMT, Ino: out.Ino}
	return n.NewInode(ctx, &inode{v: n.v, path: p}, id), 0
}

// Getattr implements fs.NodeGetattrer.
func (n *inode) Getattr(ctx context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	e, err := n.v.lookup(ctx, n.path)
	if err != nil {
		return errnoOf(err)
	}
	return n.v.attr(e, &out.Attr)
}

// Setattr implements fs.NodeSetattrer. A file can be cut, which means nothing
// in sysfs but comes with every redirection of a shell, and touched.
func (n *inode) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return syscall.EPERM
	}
	return n.Getattr(ctx, f, out)
}

// Readdir implements fs.NodeReaddirer.
func (n *inode) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	e, err := n.v.lookup(ctx, n.path)
	if err != nil {
		return nil, errnoOf(err)
	}
	names, err := n.v.list(e)
	if err != nil {
		return nil, errnoOf(err)
	}
	out := make([]fuse.DirEntry, len(names))
	for i, d := range names {
		out[i] = fuse.DirEntry{Name: d.name, Mode: d.mode, Ino: number(path.Join(n.path, d.name), d.mode)}
	}
	return fs.NewListDirStream(out), 0
}

// Readlink implements fs.NodeReadlinker.
func (n *inode) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	e, err := n.v.lookup(ctx, n.path)
	if err != nil {
		return nil, errnoOf(err)
	}
	text, err := n.v.readlink(e)
	return []byte(text), errnoOf(err)
}

// Open implements fs.NodeOpener.
func (n *inode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	e, err := n.v.lookup(ctx, n.path)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	var attr fuse.Attr
	if errno := n.v.attr(e, &attr); errno != 0 {
		return nil, 0, errno
	}
	// As kernfs: what nobody may do root may not do either.
	access := flags & syscall.O_ACCMODE
	reads, writes := access != syscall.O_WRONLY, access != syscall.O_RDONLY
	if attr.Mode&syscall.S_IFMT != syscall.S_IFREG || reads && attr.Mode&0o444 == 0 || writes && attr.Mode&0o222 == 0 {
		return nil, 0, syscall.EACCES
	}
	if e.node == nil {
		// We would write with root's rights.
		if caller, ok := fuse.FromContext(ctx); writes && (!ok || caller.Uid != 0) {
			return nil, 0, syscall.EACCES
		}
		f, err := n.v.real.OpenFile(e.real, int(access), 0)
		if err != nil {
			return nil, 0, errnoOf(err)
		}
		return &realFile{f: f, fd: int(f.Fd())}, fuse.FOPEN_DIRECT_IO, 0
	}
	h := &ourFile{src: n.v.src, path: n.path, node: e.node}
	if reads {
		if h.text, err = h.src.text(ctx, h.path, h.node); err != nil {
			return nil, 0, errnoOf(err)
		}
	}
	return h, fuse.FOPEN_DIRECT_IO, 0
}

// An ourFile is an open file of the tree.
type ourFile struct {
	src  *source
	path string
	node *node
	text string
}

var (
	_ fs.FileReader = (*ourFile)(nil)
	_ fs.FileWriter = (*ourFile)(nil)
)

// Read implements fs.FileReader.
func (f *ourFile) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if off >= int64(len(f.text)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, f.text[off:])]), 0
}

// Write implements fs.FileWriter. It returns when what was asked for is done.
func (f *ourFile) Write(ctx context.Context, data []byte, _ int64) (uint32, syscall.Errno) {
	if len(data) > sysfsSize {
		return 0, syscall.EINVAL
	}
	if err := f.src.write(ctx, f.path, f.node, string(data)); err != nil {
		return 0, errnoOf(err)
	}
	return uint32(len(data)), 0
}

// A realFile is an open file of the real /sys. One call of the kernel gives or takes
// what one call of the program asks for, as attributes are not read in pieces.
type realFile struct {
	f  *os.File
	fd int
}

var (
	_ fs.FileReader   = (*realFile)(nil)
	_ fs.FileWriter   = (*realFile)(nil)
	_ fs.FileReleaser = (*realFile)(nil)
)

// Read implements fs.FileReader.
func (f *realFile) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := syscall.Pread(f.fd, dest, off)
	if err != nil {
		return nil, errnoOf(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Write implements fs.FileWriter.
func (f *realFile) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	n, err := syscall.Pwrite(f.fd, data, off)
	if err != nil {
		return 0, errnoOf(err)
	}
	return uint32(n), 0
}

// Release implements fs.FileReleaser.
func (f *realFile) Release(context.Context) syscall.Errno { return errnoOf(f.f.Close()) }
