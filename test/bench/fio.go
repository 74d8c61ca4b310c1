package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// fio drives NBD exports on unix sockets, all at once, with the workload's
// depth shared among them, and returns the I/Os a second and their number.
func (b *bench) fio(w workload, span int64, sockets []string) (iops, total float64, err error) {
	args := []string{
		"--output-format=json", "--ioengine=nbd", "--group_reporting",
		"--rw=" + w.rw, fmt.Sprintf("--bs=%d", w.size), fmt.Sprintf("--iodepth=%d", max(w.depth/len(sockets), 1)),
		fmt.Sprintf("--size=%d", span), "--time_based", fmt.Sprintf("--runtime=%.0fms", b.seconds*1000),
		"--norandommap", "--randrepeat=0", "--thread",
	}
	if w.rw == "randrw" {
		args = append(args, fmt.Sprintf("--rwmixread=%d", w.mix))
	}
	for i, s := range sockets {
		args = append(args, fmt.Sprintf("--name=unit%d", i+1), "--uri=nbd+unix:///?socket="+s)
	}
	out, err := output(b.command("fio", args...))
	if err != nil {
		return 0, 0, err
	}
	return parseFio(out)
}

// parseFio reads fio's JSON, before which it may print warnings.
func parseFio(out string) (iops, total float64, err error) {
	_, rest, _ := strings.Cut(out, "{")
	var report struct {
		Jobs []struct {
			Error       int
			Read, Write struct {
				IOPS  float64
				Total float64 `json:"total_ios"`
			}
		}
	}
	if err := json.NewDecoder(strings.NewReader("{" + rest)).Decode(&report); err != nil {
		return 0, 0, fmt.Errorf("fio: %w\n%s", err, out)
	}
	for _, j := range report.Jobs {
		if j.Error != 0 {
			return 0, 0, fmt.Errorf("fio: error %d\n%s", j.Error, out)
		}
		iops += j.Read.IOPS + j.Write.IOPS
		total += j.Read.Total + j.Write.Total
	}
	if total == 0 {
		return 0, 0, fmt.Errorf("fio did nothing:\n%s", out)
	}
	return iops, total, nil
}

// overFio returns a contender that serves sockets by some processes.
func (b *bench) overFio(name string, span int64, sockets []string, procs ...*process) contender {
	used := func() (sum time.Duration, err error) {
		for _, p := range procs {
			t, err := p.cpu()
			if err != nil {
				return 0, err
			}
			sum += t
		}
		return sum, nil
	}
	return contender{name, func(w workload) (sample, error) {
		before, err := used()
		if err != nil {
			return sample{}, err
		}
		iops, total, err := b.fio(w, span, sockets)
		if err != nil {
			return sample{}, err
		}
		after, err := used()
		return sample{iops, time.Duration(float64(after-before) / total)}, err
	}}
}
