package daemon

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// A linkKeeper keeps the by-path links of the kernel devices that are
// offered: one for the disk, and -partN for each of its partitions as the
// kernel announces them.
type linkKeeper struct {
	links *linker
	dev   string // directory of device nodes
	sys   string // root of sysfs
	log   *slog.Logger

	// mu guards disks, and makes looking at sysfs and changing the links of
	// a disk one step.
	mu    sync.Mutex
	disks map[string]*diskLinks // "nbd0" → its links
}

type diskLinks struct {
	base  string         // link name of the disk
	parts map[string]int // partitions that have a link, "nbd0p1" → 1
}

func newLinkKeeper(links *linker, dev, sys string, log *slog.Logger) *linkKeeper {
	return &linkKeeper{links: links, dev: dev, sys: sys, log: log, disks: make(map[string]*diskLinks)}
}

// offer links the disk and the partitions it has now, and from now on those
// that come.
func (k *linkKeeper) offer(disk, base string) error {
	if err := k.links.add(base, filepath.Join(k.dev, disk)); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	d := &diskLinks{base: base, parts: make(map[string]int)}
	k.disks[disk] = d
	k.sync(disk, d)
	return nil
}

// withdraw removes the links of the disk and of its partitions.
func (k *linkKeeper) withdraw(disk string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.disks[disk]
	if d == nil {
		return
	}
	delete(k.disks, disk)
	for part, n := range d.parts {
		k.logErr(k.links.remove(partName(d.base, n), filepath.Join(k.dev, part)))
	}
	k.logErr(k.links.remove(d.base, filepath.Join(k.dev, disk)))
}

// forget removes the links that an earlier daemon made for a disk.
func (k *linkKeeper) forget(disk, base string) {
	k.logErr(k.links.drop(base, filepath.Join(k.dev, disk)))
	files, err := filepath.Glob(filepath.Join(k.dev, disk+"p*"))
	k.logErr(err)
	for _, file := range files {
		if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(file), disk+"p")); err == nil {
			k.logErr(k.links.drop(partName(base, n), file))
		}
	}
}

// run follows the kernel's announcements until the source is closed, which
// is the caller's to do when ctx ends.
func (k *linkKeeper) run(ctx context.Context, src ueventSource) {
	for {
		ev, err := src.receive()
		if err != nil {
			if ctx.Err() == nil {
				k.log.Warn("links of partitions are not followed any more", "err", err)
			}
			return
		}
		k.handle(ev)
	}
}

func (k *linkKeeper) handle(ev uevent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ev.lost {
		for disk, d := range k.disks {
			k.sync(disk, d)
		}
		return
	}
	if d := k.disks[ev.disk]; d != nil {
		k.sync(ev.disk, d)
	}
}

// sync makes the partition links what sysfs says. k.mu is held.
func (k *linkKeeper) sync(disk string, d *diskLinks) {
	now, err := partitions(k.sys, disk)
	if err != nil {
		k.logErr(err)
		return
	}
	for part, n := range d.parts {
		if now[part] != n {
			k.logErr(k.links.remove(partName(d.base, n), filepath.Join(k.dev, part)))
			delete(d.parts, part)
		}
	}
	for part, n := range maps.All(now) {
		if d.parts[part] == n {
			continue
		}
		if err := k.links.add(partName(d.base, n), filepath.Join(k.dev, part)); err != nil {
			k.logErr(err)
			continue
		}
		d.parts[part] = n
	}
}

func (k *linkKeeper) logErr(err error) {
	if err != nil {
		k.log.Warn("by-path link", "err", err)
	}
}

func partName(base string, n int) string { return base + "-part" + strconv.Itoa(n) }
