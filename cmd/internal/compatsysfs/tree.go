package compatsysfs

import (
	"path"
	"strings"
)

// A kind is what a node is.
type kind uint8

const (
	kindDir kind = iota
	kindLink
	kindFile
)

// A node is a directory, link or file of ours. It does not change once its
// tree is complete.
type node struct {
	kind kind
	perm uint32 // of a file
	text string // what reading a file gives; where a link leads
	// secret says that the text is asked for when the file is read.
	secret secret
	act    action // what writing a file does
	// children of a directory.
	children map[string]*node
	// graft is the real directory whose content a directory shows beside its
	// children; "" is the one with the same path.
	graft string
}

// A tree is what we have to show below /sys. Paths in it are relative and
// clean, with "." for its root.
type tree struct {
	root *node
	// grafts says where each real directory that is shown elsewhere is shown.
	grafts map[string]string
}

func newTree() *tree {
	return &tree{root: newDir(), grafts: make(map[string]string)}
}

func newDir() *node { return &node{kind: kindDir, perm: 0o755, children: make(map[string]*node)} }

// dir returns the directory at p, which it makes with its parents where they
// do not exist.
func (t *tree) dir(p string) *node {
	n := t.root
	for name := range strings.SplitSeq(p, "/") {
		next := n.children[name]
		if next == nil {
			next = newDir()
			n.children[name] = next
		}
		n = next
	}
	return n
}

// link makes a link at p that leads to another path of /sys.
func (t *tree) link(p, to string) {
	t.dir(path.Dir(p)).children[path.Base(p)] = &node{kind: kindLink, perm: 0o777, text: relative(path.Dir(p), to)}
}

// graft shows the real directory at p instead of at its own place.
func (t *tree) graft(p, real string) {
	t.dir(p).graft = real
	t.grafts[real] = p
}

// uevent adds a uevent file with the lines.
func (n *node) uevent(lines ...string) {
	text := ""
	for _, l := range lines {
		text += l + "\n"
	}
	n.children["uevent"] = &node{kind: kindFile, perm: 0o444, text: text}
}

// file adds a file that can be read. The text gets a newline.
func (n *node) file(name, text string) {
	n.children[name] = &node{kind: kindFile, perm: 0o444, text: text + "\n"}
}

// files adds files, name after text.
func (n *node) files(pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		n.file(pairs[i], pairs[i+1])
	}
}

// password adds a file for root's eyes whose text is asked for when it is read.
func (n *node) password(name string, s secret) {
	n.children[name] = &node{kind: kindFile, perm: 0o400, secret: s}
}

// binary adds a file that can be read.
func (n *node) binary(name string, b []byte) {
	n.children[name] = &node{kind: kindFile, perm: 0o444, text: string(b)}
}

// trigger adds a file that can only be written.
func (n *node) trigger(name string, a action) {
	n.children[name] = &node{kind: kindFile, perm: 0o200, act: a}
}

// setting adds a file that keeps what is written to it.
func (n *node) setting(name, text string, a action) {
	n.children[name] = &node{kind: kindFile, perm: 0o644, text: text + "\n", act: a}
}

// find returns the node at p, or nil, and the real path that p stands for,
// whether that exists or not.
func (t *tree) find(p string) (n *node, real string) {
	n, real = t.root, "."
	if p == "." {
		return n, real
	}
	for name := range strings.SplitSeq(p, "/") {
		real = path.Join(real, name)
		if n == nil {
			continue
		}
		if n = n.children[name]; n != nil && n.graft != "" {
			real = n.graft
		}
	}
	return n, real
}

// shown returns where a real path is shown.
func (t *tree) shown(real string) string {
	for p := real; p != "." && p != "/"; p = path.Dir(p) {
		if to, ok := t.grafts[p]; ok {
			return path.Join(to, strings.TrimPrefix(real, p))
		}
	}
	return real
}

// relative returns the text of a link in dir that leads to p. Both are clean and
// relative to the same place.
func relative(dir, p string) string {
	if dir == "." {
		return p
	}
	from, to := strings.Split(dir, "/"), strings.Split(p, "/")
	n := 0
	for n < len(from) && n < len(to)-1 && from[n] == to[n] {
		n++
	}
	return strings.Repeat("../", len(from)-n) + strings.Join(to[n:], "/")
}
