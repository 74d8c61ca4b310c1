package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/nodedb"
)

type options struct {
	records, rounds          int
	bin, theirs, dir, report string
}

// A program is one of the two iscsiadms.
type program struct {
	name string
	path string
	env  []string
}

// A command is what is measured.
type command struct {
	what string
	// goal is how many times faster than open-iscsi's ours is to be.
	goal float64
	args func(round int) []string
	took map[string][]time.Duration // by program
}

// key is record n; two portals have a target each.
func key(n int) nodedb.NodeKey {
	return nodedb.NodeKey{
		Target:  fmt.Sprintf("iqn.2016-01.com.example:storage.disk%05d", n/2),
		Address: fmt.Sprintf("10.0.%d.1", n%2), Port: 3260, Iface: nodedb.DefaultIface,
	}
}

// fill makes the records for both programs.
func (o *options) fill(ctx context.Context, ours string) error {
	db := nodedb.New(filepath.Join(ours, "var/lib/iscsi/nodes.db"), nodedb.Options{})
	var tree *nodedb.Tree
	if err := db.Update(ctx, func(tx *nodedb.Tx) error {
		for i := range o.records {
			n, err := nodedb.NewNode(nil, key(i), 1)
			if err != nil {
				return err
			}
			if err := tx.PutNode(n); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := db.View(ctx, func(tx *nodedb.Tx) error {
		tree = tx.Tree()
		return nil
	}); err != nil {
		return err
	}
	return tree.Write("/etc/iscsi")
}

func (o *options) run(ctx context.Context) error {
	ours, cleanup, err := o.place()
	if cleanup != nil {
		defer cleanup()
	}
	if err != nil {
		return err
	}
	bin, err := filepath.Abs(filepath.Join(o.bin, "iscsiadm"))
	if err != nil {
		return err
	}
	programs := []program{
		{name: "open-iscsi", path: o.theirs},
		{name: "goiscsi", path: bin, env: []string{"ISCSI_ROOT=" + ours, "ISCSI_DB=", "ISCSI_CONFIG=", "ISCSI_RUN="}},
	}
	fmt.Fprintf(os.Stderr, "writing %d records for each of the programs\n", o.records)
	if err := o.fill(ctx, ours); err != nil {
		return err
	}
	k := key(o.records / 2)
	one := []string{"-m", "node", "-T", k.Target, "-p", k.Address}
	fixed := func(args ...string) func(int) []string { return func(int) []string { return args } }
	commands := []*command{
		{what: "list all", goal: 5, args: fixed("-m", "node")},
		{what: "show one", goal: 20, args: fixed(one...)},
		{what: "update one", goal: 20, args: func(round int) []string {
			return append(slices.Clone(one), "-o", "update", "-n", "node.session.timeo.replacement_timeout", "-v", fmt.Sprint(100+round))
		}},
	}
	if err := same(ctx, programs, commands); err != nil {
		return err
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
		for _, c := range commands {
			for i := range programs {
				p := programs[(i+round)%len(programs)] // who is first changes
				out, d, err := p.do(ctx, c.args(round+1))
				if err != nil {
					return err
				}
				if c.what == "list all" && bytes.Count(out, []byte("\n")) != o.records {
					return fmt.Errorf("%s lists %d records", p.name, bytes.Count(out, []byte("\n")))
				}
				if c.took == nil {
					c.took = map[string][]time.Duration{}
				}
				c.took[p.name] = append(c.took[p.name], d)
			}
		}
	}
	// What was measured must have been done.
	if err := same(ctx, programs, commands[:2]); err != nil {
		return err
	}
	return o.write(ctx, programs, commands)
}

// do runs a program to its end.
func (p program) do(ctx context.Context, args []string) ([]byte, time.Duration, error) {
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Env = append(os.Environ(), p.env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	d := time.Since(start)
	if err != nil || stderr.String() != "" {
		return nil, 0, fmt.Errorf("%s %s: %w: %s", p.name, strings.Join(args, " "), err, stderr.String())
	}
	return out, d, nil
}

var recordVersion = regexp.MustCompile(`(?m)^# BEGIN RECORD .*$`)

// same runs each command once with both programs, which warms the page cache,
// and compares what they say.
func same(ctx context.Context, programs []program, commands []*command) error {
	for _, c := range commands {
		var said [][]byte
		for _, p := range programs {
			out, _, err := p.do(ctx, c.args(0))
			if err != nil {
				return err
			}
			said = append(said, recordVersion.ReplaceAll(out, []byte("# BEGIN RECORD")))
		}
		if !bytes.Equal(said[0], said[1]) {
			return fmt.Errorf("%s: the programs do not say the same: %s", c.what, firstDifference(said[0], said[1]))
		}
	}
	return nil
}

func firstDifference(a, b []byte) string {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d is %q and %q", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(x), len(y))
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
