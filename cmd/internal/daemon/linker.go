package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// A linker keeps the links in one directory below disk that lead to our
// devices. Two sessions with one key ask for the same name; the first holds
// it, and when it leaves the link goes over to the next one.
type linker struct {
	dir string // …/disk/by-path, …/disk/by-id
	// shared says that others may have the names by the same right, as all
	// paths to one disk have its by-id names: a link to a live device of
	// someone else is no error then, and the claim waits behind it.
	shared bool
	// live says whether the node that a foreign link leads to is in use; a
	// link to a dead one may be replaced.
	live func(node string) bool

	// mu guards claims and makes a claim and its link one step.
	mu     sync.Mutex
	claims map[string][]string // link name → nodes, the holder first
}

func newLinker(dir string, live func(node string) bool) *linker {
	return &linker{dir: dir, live: live, claims: make(map[string][]string)}
}

// errForeignLink says that a link leads to a device that is not ours.
var errForeignLink = errors.New("the link leads to another device")

// add makes the link name lead to node, unless another device of ours holds
// the name. A link that leads to a live device of someone else stays as it
// is, which is an error that wraps errForeignLink.
func (l *linker) add(name, node string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.claims[name]
	if slices.Contains(held, node) {
		return nil
	}
	if len(held) > 0 {
		l.claims[name] = append(held, node)
		return nil
	}
	if err := l.point(name, node); err != nil && (!l.shared || !errors.Is(err, errForeignLink)) {
		return err
	}
	l.claims[name] = []string{node}
	return nil
}

// remove gives up node's claim to the name. The link goes, or leads to the
// next device that claims it.
func (l *linker) remove(name, node string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.claims[name]
	i := slices.Index(held, node)
	if i < 0 {
		return nil
	}
	held = slices.Delete(held, i, i+1)
	if len(held) == 0 {
		delete(l.claims, name)
		return l.unlink(name, node)
	}
	l.claims[name] = held
	// The link need not lead to the first claim: see shared.
	to, err := l.leadsTo(filepath.Join(l.dir, name))
	if err == nil && to != node || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.replace(name, held[0])
}

// dropAll removes every link that leads to one of the nodes and that no device
// of ours claims.
func (l *linker) dropAll(nodes []string) error {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if to, lerr := l.leadsTo(filepath.Join(l.dir, e.Name())); lerr == nil && slices.Contains(nodes, to) {
			err = errors.Join(err, l.drop(e.Name(), to))
		}
	}
	return err
}

// drop removes the link if it leads to node, whoever made it: a daemon that
// died left it.
func (l *linker) drop(name, node string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.claims[name]) > 0 {
		return nil
	}
	return l.unlink(name, node)
}

// point makes the link unless it leads to a live device already.
func (l *linker) point(name, node string) error {
	link := filepath.Join(l.dir, name)
	switch to, err := l.leadsTo(link); {
	case err == nil && to == node:
		return nil // udev was faster
	case err == nil && l.live(to):
		return fmt.Errorf("%s → %s: %w", link, to, errForeignLink)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return l.replace(name, node)
}

// replace makes the link with one rename, so that no one finds it missing.
func (l *linker) replace(name, node string) error {
	link := filepath.Join(l.dir, name)
	if err := os.MkdirAll(l.dir, 0o755); err != nil { // as udev makes it
		return err
	}
	to, err := filepath.Rel(l.dir, node)
	if err != nil {
		to = node
	}
	temp := filepath.Join(l.dir, ".#"+name)
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, link); err != nil {
		os.Remove(temp)
		return err
	}
	return nil
}

func (l *linker) unlink(name, node string) error {
	link := filepath.Join(l.dir, name)
	to, err := l.leadsTo(link)
	if errors.Is(err, fs.ErrNotExist) || err == nil && to != node {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// leadsTo returns the link's destination as a clean absolute path. What is
// not a link is an error other than fs.ErrNotExist.
func (l *linker) leadsTo(link string) (string, error) {
	to, err := os.Readlink(link)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(l.dir, to)
	}
	return filepath.Clean(to), nil
}
