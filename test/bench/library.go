package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// library compares package initiator with libiscsi on our own target.
func (b *bench) library() error {
	t, err := b.ownTarget()
	if err != nil {
		return err
	}
	defer t.stop()
	return b.libraryOn(t, 2)
}

// libraryTgt does so on tgt.
func (b *bench) libraryTgt() error {
	for _, memory := range []bool{false, true} {
		t, err := b.tgtTarget(memory)
		if err != nil {
			return err
		}
		err = b.libraryOn(t, 1)
		t.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// reads are what libiscsi's iscsi-perf can do.
func reads(quick bool) []workload {
	var list []workload
	for _, depth := range []int{1, 8, 16, 32, 128} {
		if !quick || depth == 1 || depth == 32 {
			list = append(list, workload{rw: "randread", size: 4 << 10, depth: depth})
		}
	}
	return append(list, workload{rw: "read", size: 1 << 20, depth: 8})
}

func (b *bench) libraryOn(t *target, goal float64) error {
	url := t.url(plainName, 1)
	return b.table(table{
		title: "library on " + t.kind,
		contenders: []contender{
			{"goiscsi", func(w workload) (sample, error) { return b.iscsiperf(url, w) }},
			{"libiscsi", func(w workload) (sample, error) { return b.libiscsi(url, w) }},
		},
		goal: func(w workload) float64 { return pick(w.size == 4<<10 && w.depth == 32, goal, 0) },
	}, reads(b.quick))
}

// iscsiperf runs our driver of the library.
func (b *bench) iscsiperf(url string, w workload) (sample, error) {
	cmd := b.command(filepath.Join(b.tools, "iscsiperf"), "-json", "-rw", w.rw,
		"-size", strconv.Itoa(w.size), "-depth", strconv.Itoa(w.depth), "-seconds", fmt.Sprint(b.seconds), url)
	out, err := output(cmd)
	if err != nil {
		return sample{}, err
	}
	var r struct{ IOPS, Total float64 }
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return sample{}, err
	}
	return sample{r.IOPS, perIO(cmd, r.Total)}, nil
}

var perfLine = regexp.MustCompile(`(?m)^iops average (\d+)`)

// libiscsi runs iscsi-perf, which counts whole seconds.
func (b *bench) libiscsi(url string, w workload) (sample, error) {
	seconds := max(int(b.seconds), 1)
	args := []string{"-m", strconv.Itoa(w.depth), "-b", strconv.Itoa(w.size / 512), "-t", strconv.Itoa(seconds)}
	if w.rw == "randread" {
		args = append(args, "-r")
	}
	cmd := b.command("iscsi-perf", append(args, url)...)
	begin := time.Now()
	out, err := output(cmd)
	if err != nil {
		return sample{}, err
	}
	m := perfLine.FindStringSubmatch(strings.ReplaceAll(out, "\r", "\n"))
	if m == nil {
		return sample{}, fmt.Errorf("iscsi-perf after %v: no result in\n%s", time.Since(begin), out)
	}
	iops, err := strconv.ParseFloat(m[1], 64)
	if err == nil && iops == 0 {
		err = fmt.Errorf("iscsi-perf did nothing:\n%s", out)
	}
	return sample{iops, perIO(cmd, iops*float64(seconds))}, err
}

// perIO returns the CPU time of a finished process for one of n I/Os.
func perIO(cmd *exec.Cmd, n float64) time.Duration {
	return time.Duration(float64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()) / n)
}
