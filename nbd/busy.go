//go:build linux

package nbd

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A BusyError says who uses a device.
type BusyError struct {
	Device  string   // path of the node
	Mounts  []string // mount points of it and its partitions in this mount namespace
	Holders []string // devices stacked on it, such as dm-0
	Swap    bool     // swapped to
}

// Error implements error.
func (e *BusyError) Error() string {
	var by []string
	for _, m := range e.Mounts {
		by = append(by, "mounted on "+m)
	}
	for _, h := range e.Holders {
		by = append(by, "held by "+h)
	}
	if e.Swap {
		by = append(by, "used as swap")
	}
	if len(by) == 0 {
		by = append(by, "claimed by another user")
	}
	return fmt.Sprintf("nbd: %s is in use: %s", e.Device, strings.Join(by, ", "))
}

// Busy returns a *BusyError when the device or a partition of it is mounted,
// is part of another device, or is swapped to. It sees mounts of other mount
// namespaces too, though it cannot name those. A device that is merely open is
// not busy.
func (d *Device) Busy() error {
	// A whole disk cannot be opened exclusively while it or a part of it is
	// claimed.
	f, err := os.OpenFile(d.Path(), os.O_RDONLY|syscall.O_EXCL|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO) {
		return nil
	}
	if !errors.Is(err, syscall.EBUSY) {
		return deviceError("open", d.Index, err)
	}
	busy := &BusyError{Device: d.Path()}
	numbers := make(map[string]bool) // major:minor of the disk and its partitions
	names := make(map[string]bool)
	look := func(dir string) {
		if s, err := readAttr(filepath.Join(dir, "dev")); err == nil && s != "" {
			numbers[s] = true
			names[filepath.Join(d.c.opt.Dev, filepath.Base(dir))] = true
		}
		holders, _ := os.ReadDir(filepath.Join(dir, "holders")) // none without the directory
		for _, h := range holders {
			busy.Holders = append(busy.Holders, h.Name())
		}
	}
	look(d.c.sysPath(d.Index))
	parts, _ := filepath.Glob(d.c.sysPath(d.Index, d.Name()+"p*")) // the pattern is well-formed
	for _, p := range parts {
		look(p)
	}
	busy.Mounts = mountPoints("/proc/self/mountinfo", numbers)
	busy.Swap = swapped("/proc/swaps", names)
	return busy
}

// mountPoints returns the mount points of devices by their numbers
// (proc_pid_mountinfo(5)).
func mountPoints(path string, numbers map[string]bool) []string {
	var list []string
	eachLine(path, func(f []string) {
		if len(f) >= 5 && numbers[f[2]] {
			list = append(list, unescape.Replace(f[4]))
		}
	})
	return list
}

// swapped reports whether one of the device nodes is swapped to (proc_swaps(5)).
func swapped(path string, names map[string]bool) bool {
	found := false
	eachLine(path, func(f []string) {
		found = found || len(f) > 0 && names[unescape.Replace(f[0])]
	})
	return found
}

// unescape undoes the kernel's escaping of blanks in /proc files.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// eachLine calls fn with the fields of each line; a file that cannot be read has
// none.
func eachLine(path string, fn func(fields []string)) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fn(strings.Fields(s.Text()))
	}
}
