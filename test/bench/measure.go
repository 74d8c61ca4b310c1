package main

import (
	"fmt"
	"slices"
	"time"
)

// A workload is what is done to a unit.
type workload struct {
	rw    string // fio's: randread, randwrite, read, write, randrw
	size  int    // bytes of a request
	depth int
	mix   int // percent of reads, for randrw
}

func (w workload) String() string {
	size := fmt.Sprintf("%d KiB", w.size>>10)
	if w.size >= 1<<20 {
		size = fmt.Sprintf("%d MiB", w.size>>20)
	}
	kind := map[string]string{
		"randread": "random read", "randwrite": "random write",
		"read": "sequential read", "write": "sequential write",
		"randrw": fmt.Sprintf("random %d/%d", w.mix, 100-w.mix),
	}[w.rw]
	return fmt.Sprintf("%s %s, depth %d", kind, size, w.depth)
}

// mixedReads is the percentage of reads in the mixed workload; guest.sh has it
// too.
const mixedReads = 70

// workloads are those of the issue; with quick set, the telling ones.
func workloads(quick bool) []workload {
	var list []workload
	for _, rw := range []string{"randread", "randwrite"} {
		for _, depth := range []int{1, 8, 16, 32, 128} {
			if !quick || depth != 8 && (rw == "randread" || depth == 32) {
				list = append(list, workload{rw: rw, size: 4 << 10, depth: depth})
			}
		}
	}
	list = append(list, workload{rw: "read", size: 1 << 20, depth: 8}, workload{rw: "write", size: 1 << 20, depth: 8})
	if !quick {
		list = append(list, workload{rw: "randrw", size: 16 << 10, depth: 16, mix: mixedReads})
	}
	return list
}

// A sample is one measurement.
type sample struct {
	iops float64
	cpu  time.Duration // of the initiator, for one I/O
}

// A contender takes part in a comparison.
type contender struct {
	name    string
	measure func(w workload) (sample, error)
}

// A result is what one contender did in all rounds.
type result struct {
	name    string
	samples []sample
}

func (r *result) iops() float64 { return median(r.each(func(s sample) float64 { return s.iops })) }

func (r *result) cpu() time.Duration {
	return time.Duration(median(r.each(func(s sample) float64 { return float64(s.cpu) })))
}

func (r *result) each(f func(sample) float64) []float64 {
	list := make([]float64, len(r.samples))
	for i, s := range r.samples {
		list[i] = f(s)
	}
	return list
}

// A ratio compares two results round by round.
type ratio struct{ low, median, high float64 }

func ratioOf(a, b *result) ratio {
	var list []float64
	for i := range a.samples {
		list = append(list, a.samples[i].iops/b.samples[i].iops)
	}
	return ratio{slices.Min(list), median(list), slices.Max(list)}
}

func (r ratio) String() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", r.median, r.low, r.high) }

// median returns the middle of a list that is not empty.
func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// compare lets the contenders take turns.
func (b *bench) compare(w workload, list []contender) ([]*result, error) {
	results := make([]*result, len(list))
	for i, c := range list {
		results[i] = &result{name: c.name}
	}
	for range b.rounds {
		for i, c := range list {
			s, err := c.measure(w)
			if err != nil {
				return nil, fmt.Errorf("%s, %v: %w", c.name, w, err)
			}
			results[i].samples = append(results[i].samples, s)
		}
	}
	return results, nil
}

// A table is a comparison over workloads. The first contender is ours; the
// others are what it is measured against.
type table struct {
	title      string
	contenders []contender
	goal       func(workload) float64 // least ratio to the second contender; 0: none
	cpuGoal    func(workload) float64 // greatest ratio of CPU time; 0: none
}

func (b *bench) table(t table, list []workload) error {
	if !b.only.MatchString(t.title) {
		return nil
	}
	cols := []string{"workload"}
	for _, c := range t.contenders {
		cols = append(cols, c.name+", IOPS", "µs CPU/IO")
	}
	for _, c := range t.contenders[1:] {
		cols = append(cols, "IOPS ÷ "+c.name+"'s", "CPU/IO ÷ "+c.name+"'s")
	}
	b.out.heading(t.title)
	b.out.row(cols...)
	b.out.rule(len(cols))
	for _, w := range list {
		if !b.load.MatchString(w.String()) {
			continue
		}
		results, err := b.compare(w, t.contenders)
		if err != nil {
			return err
		}
		row := []string{w.String()}
		for _, r := range results {
			row = append(row, fmt.Sprintf("%.0f", r.iops()), fmt.Sprintf("%.1f", float64(r.cpu())/1e3))
		}
		for i, r := range results[1:] {
			q := ratioOf(results[0], r)
			cpu := float64(results[0].cpu()) / float64(r.cpu())
			text, cpuText := q.String(), fmt.Sprintf("%.2f", cpu)
			if i == 0 {
				text += verdict(t.goal, w, func(goal float64) bool { return q.median >= goal }, "≥")
				cpuText += verdict(t.cpuGoal, w, func(goal float64) bool { return cpu <= goal }, "≤")
			}
			row = append(row, text, cpuText)
		}
		b.out.row(row...)
	}
	return nil
}

// verdict tells whether a goal is reached.
func verdict(goal func(workload) float64, w workload, reached func(float64) bool, sign string) string {
	if goal == nil || goal(w) == 0 {
		return ""
	}
	g := goal(w)
	return fmt.Sprintf(" %s %s%g", pick(reached(g), "✓", "✗"), sign, g)
}
