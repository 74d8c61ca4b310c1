package main

import (
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/test/guest"
)

// guestScript takes the measurements in the guest and prints a line "result
// CONTENDER RW BYTES DEPTH IOPS" for each.
//
//go:embed guest.sh
var guestScript string

// guestUML compares block devices in a guest. System calls are dear in user-mode
// Linux, so only ratios mean something, and there is one processor.
func (b *bench) guestUML() error { return b.guest(guest.UML, "user-mode Linux") }

// guestQEMU does so where each instruction is emulated: two processors, and a
// kernel whose system calls cost what they should beside the rest.
func (b *bench) guestQEMU() error { return b.guest(guest.QEMU, "QEMU with software emulation") }

func (b *bench) guest(kind guest.Kind, name string) error {
	res, err := guest.Run(b.ctx, guest.Job{
		Kind:   kind,
		Script: guestScript, Files: map[string]string{"bin": b.bin}, MemoryMiB: 1024,
		Env: []string{
			"PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"ROUNDS=" + strconv.Itoa(b.rounds), "SECONDS_EACH=" + strconv.Itoa(max(int(b.seconds), 1)),
			"CASES=" + b.guestCases(),
		},
		Timeout: 40 * time.Minute,
	})
	var missing *guest.MissingError
	if errors.As(err, &missing) {
		b.out.line("\nNot measured: %v.", err)
		return nil
	}
	if err != nil {
		return err
	}
	if res.ExitCode != 0 {
		return fmt.Errorf("exit status %d in the guest:\n%s\n%s", res.ExitCode, res.Output, guest.Tail(res.Console, 30))
	}
	return b.guestTable(name, string(res.Output))
}

// guestCases lists the workloads as guest.sh wants them: the telling ones first.
func (b *bench) guestCases() string {
	list := []workload{
		{rw: "randread", size: 4 << 10, depth: 1},
		{rw: "randread", size: 4 << 10, depth: 32},
		{rw: "randwrite", size: 4 << 10, depth: 32},
		{rw: "read", size: 1 << 20, depth: 8},
		{rw: "write", size: 1 << 20, depth: 8},
	}
	if !b.quick {
		list = append(list,
			workload{rw: "randread", size: 4 << 10, depth: 8},
			workload{rw: "randread", size: 4 << 10, depth: 16},
			workload{rw: "randread", size: 4 << 10, depth: 128},
			workload{rw: "randwrite", size: 4 << 10, depth: 1},
			workload{rw: "randrw", size: 16 << 10, depth: 16, mix: mixedReads},
		)
	}
	var cases []string
	for _, w := range list {
		if b.load.MatchString(w.String()) {
			cases = append(cases, fmt.Sprintf("%s:%d:%d", w.rw, w.size, w.depth))
		}
	}
	return strings.Join(cases, " ")
}

// guestTable makes a table of the guest's lines.
func (b *bench) guestTable(where, out string) error {
	results := map[workload]map[string]*result{}
	var order []workload
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 6 || f[0] != "result" {
			continue
		}
		size, err1 := strconv.Atoi(f[3])
		depth, err2 := strconv.Atoi(f[4])
		iops, err3 := strconv.ParseFloat(f[5], 64)
		if err := errors.Join(err1, err2, err3); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		w := workload{rw: f[2], size: size, depth: depth}
		if w.rw == "randrw" {
			w.mix = mixedReads
		}
		if results[w] == nil {
			results[w] = map[string]*result{}
			order = append(order, w)
		}
		r := results[w][f[1]]
		if r == nil {
			r = &result{name: f[1]}
			results[w][f[1]] = r
		}
		r.samples = append(r.samples, sample{iops: iops})
	}
	if len(order) == 0 {
		return fmt.Errorf("no results from the guest:\n%s", out)
	}
	b.out.heading("block devices in " + where + ", our target with a null store")
	b.out.row("workload", "ours ÷ qemu-nbd -c", "ours ÷ the kernel's initiator")
	b.out.rule(3)
	for _, w := range order {
		row := []string{w.String()}
		for _, peer := range []struct {
			name string
			goal float64
		}{{"qemu-nbd", 2}, {"kernel", 0.7}} {
			ours, theirs := results[w]["iscsid"], results[w][peer.name]
			if ours == nil || theirs == nil || len(ours.samples) != len(theirs.samples) {
				row = append(row, "not measured")
				continue
			}
			q := ratioOf(ours, theirs)
			goal := func(workload) float64 { return peer.goal }
			row = append(row, q.String()+verdict(goal, w, func(g float64) bool { return q.median >= g }, "≥"))
		}
		b.out.row(row...)
	}
	return nil
}
