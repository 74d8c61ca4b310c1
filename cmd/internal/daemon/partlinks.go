package daemon

import (
	"context"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// A linkKeeper keeps the links of the kernel devices that are offered: those of
// the disk, and -partN for each of its partitions as the kernel announces
// them. Where udev runs, the by-id links are its own affair: it knows which of
// several paths to a disk is to have them.
type linkKeeper struct {
	byPath *linker
	byID   *linker
	udev   func() bool // whether udev runs
	dev    string      // directory of device nodes
	sys    string      // root of sysfs
	log    *slog.Logger

	// mu guards disks, and makes looking at sysfs and changing the links of
	// a disk one step.
	mu    sync.Mutex
	disks map[string]*diskLinks // "nbd0" → its links
}

type diskLinks struct {
	names []diskName
	parts map[string]int // partitions that have their links, "nbd0p1" → 1
}

// A diskName is a link of a disk; those of its partitions are called after it.
type diskName struct {
	in   *linker
	name string
}

// newLinkKeeper returns the keeper of the links below dev/disk. udevRuns is
// asked before by-id links are made.
func newLinkKeeper(dev, sys string, udevRuns func() bool, log *slog.Logger) *linkKeeper {
	live := func(node string) bool { return nodeLive(sys, node) }
	byID := newLinker(filepath.Join(dev, "disk", "by-id"), live)
	byID.shared = true
	return &linkKeeper{
		byPath: newLinker(filepath.Join(dev, "disk", "by-path"), live), byID: byID,
		udev: udevRuns, dev: dev, sys: sys, log: log, disks: make(map[string]*diskLinks),
	}
}

// offer links the disk and the partitions it has now, and from now on those
// that come. The error is that of the by-path link, whose name may be empty
// for none; without it the others are made all the same.
func (k *linkKeeper) offer(disk, byPath string, byID []string) error {
	d := &diskLinks{parts: make(map[string]int)}
	node := filepath.Join(k.dev, disk)
	var err error
	if byPath != "" {
		if err = k.byPath.add(byPath, node); err == nil {
			d.names = append(d.names, diskName{k.byPath, byPath})
		}
	}
	if !k.udev() {
		for _, name := range byID {
			if err := k.byID.add(name, node); err != nil {
				k.logErr(err)
				continue
			}
			d.names = append(d.names, diskName{k.byID, name})
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.disks[disk] = d
	k.sync(disk, d)
	return err
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
	for _, l := range d.names {
		for part, n := range d.parts {
			k.logErr(l.in.remove(partName(l.name, n), filepath.Join(k.dev, part)))
		}
		k.logErr(l.in.remove(l.name, filepath.Join(k.dev, disk)))
	}
}

// forget removes the links of a disk that nobody offers any more: an earlier
// daemon's, or what udev has made of an event from before. by-id links are
// found by where they lead, because their names are not on file.
func (k *linkKeeper) forget(disk, byPath string) {
	nodes := []string{filepath.Join(k.dev, disk)}
	if byPath != "" {
		k.logErr(k.byPath.drop(byPath, nodes[0]))
	}
	files, err := filepath.Glob(filepath.Join(k.dev, disk+"p*"))
	k.logErr(err)
	for _, file := range files {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(file), disk+"p"))
		if err != nil {
			continue
		}
		nodes = append(nodes, file)
		if byPath != "" {
			k.logErr(k.byPath.drop(partName(byPath, n), file))
		}
	}
	if !k.udev() {
		k.logErr(k.byID.dropAll(nodes))
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
		if now[part] == n {
			continue
		}
		for _, l := range d.names {
			k.logErr(l.in.remove(partName(l.name, n), filepath.Join(k.dev, part)))
		}
		delete(d.parts, part)
	}
	for part, n := range now {
		if d.parts[part] == n {
			continue
		}
		for _, l := range d.names {
			k.logErr(l.in.add(partName(l.name, n), filepath.Join(k.dev, part)))
		}
		d.parts[part] = n
	}
}

func (k *linkKeeper) logErr(err error) {
	if err != nil {
		k.log.Warn("link of a device", "err", err)
	}
}

func partName(base string, n int) string { return base + "-part" + strconv.Itoa(n) }
