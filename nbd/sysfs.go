//go:build linux

package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// DeviceInfo is what sysfs tells of a device.
type DeviceInfo struct {
	Index int // N of nbdN
	// Connected says that it has a configuration; its sockets may be dead.
	Connected bool
	// PID is the thread (gettid(2)) that connected it, 0 when none. It is not
	// updated by Reconfigure.
	PID int
	// BackendID is the identifier that it was connected with.
	BackendID string
	// Size in bytes.
	Size uint64
	// ReadOnly is the block layer's flag.
	ReadOnly bool
}

// sysPath returns a path below the device's directory in sysfs.
func (c *Controller) sysPath(index int, elem ...string) string {
	return filepath.Join(append([]string{c.opt.Sys, "block", "nbd" + strconv.Itoa(index)}, elem...)...)
}

// readAttr returns the text of a sysfs attribute without its newline, and an
// empty one when it does not exist.
func readAttr(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimRight(string(b), "\n"), err
}

// Info returns what is known of a device, or ErrNoDevice when the kernel has
// none of that number.
func (c *Controller) Info(index int) (*DeviceInfo, error) {
	info, err := c.info(index)
	return info, deviceError("look at", index, err)
}

func (c *Controller) info(index int) (*DeviceInfo, error) {
	if _, err := os.Stat(c.sysPath(index)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNoDevice
		}
		return nil, err
	}
	info := &DeviceInfo{Index: index}
	attr := func(name string) string {
		s, err := readAttr(c.sysPath(index, name))
		if err != nil {
			// The device may be going; what cannot be read is not there.
			return ""
		}
		return s
	}
	if s := attr("pid"); s != "" {
		info.Connected = true
		info.PID, _ = strconv.Atoi(s) // 0 if it is not a number
	}
	info.BackendID = attr("backend")
	sectors, _ := strconv.ParseUint(attr("size"), 10, 64) // 0 if it is not a number
	info.Size = sectors << 9
	info.ReadOnly = attr("ro") == "1"
	return info, nil
}

// Devices lists the nbd devices that the kernel has, connected or not, by
// number.
func (c *Controller) Devices() ([]DeviceInfo, error) {
	entries, err := os.ReadDir(filepath.Join(c.opt.Sys, "block"))
	if err != nil {
		return nil, deviceError("list", -1, err)
	}
	var list []DeviceInfo
	for _, e := range entries {
		n, ok := strings.CutPrefix(e.Name(), "nbd")
		if !ok {
			continue
		}
		index, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		info, err := c.info(index)
		if errors.Is(err, ErrNoDevice) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, deviceError("list", index, err)
		}
		list = append(list, *info)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Index < list[j].Index })
	return list, nil
}

// QueueSettings are the settings of a block device's queue that matter for a
// disk on the network. A zero field leaves the kernel's value.
type QueueSettings struct {
	// MaxSectorsKB bounds a request, in KiB; it is lowered to what the driver
	// takes. The kernel starts with 128 (6.1) or 1280 (6.12).
	MaxSectorsKB int
	// Scheduler is the I/O scheduler; "none" saves its work, which the
	// target's side does again.
	Scheduler string
	// IOTimeout is the block layer's timer, in milliseconds' resolution; the
	// kernel starts with 30 s. With one connection and DeviceConfig.Timeout 0 it
	// fails nothing: it only notices requests that were in flight on a socket
	// that has been replaced since, and sends them again, so it should be
	// short. With several connections it declares a socket dead whose request
	// takes longer, so it must exceed the longest that the backend may take.
	IOTimeout time.Duration
	// ReadAheadKB is how far buffered reading reads ahead, in KiB.
	ReadAheadKB int
	// NrRequests is the number of requests in flight per hardware queue; the
	// driver has 128.
	NrRequests int
	// RQAffinity is 0, 1 or 2 in the kernel; 0 here leaves it.
	RQAffinity int
}

// DefaultQueueSettings returns what suits a device with the given number of
// connections. For more than one, IOTimeout has to be set by the caller, who
// knows how long a request may take.
func DefaultQueueSettings(connections int) QueueSettings {
	q := QueueSettings{MaxSectorsKB: 1024, Scheduler: "none", ReadAheadKB: 2048}
	if connections <= 1 {
		q.IOTimeout = 2 * time.Second
	}
	return q
}

// Tune applies queue settings. The sockets have to be served: changing the
// scheduler, and in newer kernels anything, waits for requests in flight, and holds
// up new ones meanwhile. So what is set already, as on a device that was taken over,
// is left alone: after Reconfigure the wait would be for the block layer's timer.
// Settings that this kernel does not have are passed over; of those that it refuses,
// all are tried and reported.
func (d *Device) Tune(q QueueSettings) error {
	if err := d.ours(); err != nil {
		return deviceError("tune", d.Index, err)
	}
	queue := func(name string) string { return d.c.sysPath(d.Index, "queue", name) }
	if q.MaxSectorsKB > 0 {
		if s, err := readAttr(queue("max_hw_sectors_kb")); err == nil {
			if hw, err := strconv.Atoi(s); err == nil {
				q.MaxSectorsKB = min(q.MaxSectorsKB, hw)
			}
		}
	}
	var errs []error
	set := func(name, value string) {
		if hasAttr(queue(name), value) {
			return
		}
		err := writeAttr(queue(name), value)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("set %s to %s: %w", name, value, err))
		}
	}
	number := func(name string, n int) {
		if n > 0 {
			set(name, strconv.Itoa(n))
		}
	}
	// The scheduler first: it brings a nr_requests of its own.
	if q.Scheduler != "" {
		set("scheduler", q.Scheduler)
	}
	number("max_sectors_kb", q.MaxSectorsKB)
	number("io_timeout", int(q.IOTimeout.Milliseconds()))
	number("read_ahead_kb", q.ReadAheadKB)
	number("nr_requests", q.NrRequests)
	number("rq_affinity", q.RQAffinity)
	if d.cfg.Export.Rotational {
		set("rotational", "1") // drivers before 6.12 do not know the flag
	}
	return deviceError("tune", d.Index, errors.Join(errs...))
}

// hasAttr reports whether a sysfs attribute has a value. One that lists what there
// is to choose from has the choice in brackets.
func hasAttr(path, value string) bool {
	s, err := readAttr(path)
	return err == nil && (s == value || strings.Contains(s, "["+value+"]"))
}

// writeAttr writes a sysfs attribute, which must exist.
func writeAttr(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
