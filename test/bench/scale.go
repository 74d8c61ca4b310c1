package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goiscsi/goiscsi/nodedb"
)

// sessions is how many sessions scale logs in.
const sessions = 256

// scale measures what does not depend on the workload: the memory of idle
// sessions, and how long iscsiadm takes with few and many records.
func (b *bench) scale() error {
	b.out.line("")
	b.out.row("measure", "result", "goal")
	b.out.rule(3)
	if err := b.idleSessions(); err != nil {
		return err
	}
	for _, c := range []struct {
		records int
		goal    time.Duration
	}{{10, 15 * time.Millisecond}, {10_000, 100 * time.Millisecond}} {
		if err := b.listing(c.records, c.goal); err != nil {
			return err
		}
	}
	return nil
}

// idleSessions logs in to many targets, one unit each.
func (b *bench) idleSessions() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	portal := fmt.Sprintf("127.0.0.1:%d", port)
	args := []string{"-p", portal}
	for i := range sessions {
		args = append(args, "-T", fmt.Sprintf("%s%d", plainName, i), "--null", "1G")
	}
	p, err := start(b.command(filepath.Join(b.bin, "iscsi-target"), args...))
	if err != nil {
		return err
	}
	defer p.stop()
	d, err := b.daemon()
	if err != nil {
		return err
	}
	defer d.proc.stop()
	if err := p.await(func() error { return d.discover(&target{portal: portal}) }); err != nil {
		return err
	}
	before, err := d.proc.residentKiB()
	if err != nil {
		return err
	}
	begin := time.Now()
	if _, err := d.iscsiadm("-m", "node", "--login"); err != nil {
		return err
	}
	elapsed := time.Since(begin)
	after, err := d.proc.residentKiB()
	if err != nil {
		return err
	}
	each := (after - before) / sessions
	b.out.row(fmt.Sprintf("resident memory of an idle session with one unit on a socket, of %d", sessions),
		fmt.Sprintf("%d KiB", each), pick(each <= 200, "✓ ≤ 200 KiB", "✗ ≤ 200 KiB"))
	b.out.row(fmt.Sprintf("login to %d targets by one iscsiadm", sessions), elapsed.Round(time.Millisecond).String(), "")
	begin = time.Now()
	if _, err := d.iscsiadm("-m", "node", "--logout"); err != nil {
		return err
	}
	b.out.row("logout of them", time.Since(begin).Round(time.Millisecond).String(), "")
	return nil
}

// listing times iscsiadm -m node with a number of records.
func (b *bench) listing(records int, goal time.Duration) error {
	root, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return err
	}
	db := nodedb.New(filepath.Join(root, "nodes.db"), nodedb.Options{})
	err = db.Update(b.ctx, func(tx *nodedb.Tx) error {
		for i := range records {
			key := nodedb.NodeKey{
				Target:  fmt.Sprintf("%s-%d", plainName, i),
				Address: fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255), Port: 3260, Iface: nodedb.DefaultIface,
			}
			n, err := nodedb.NewNode(nil, key, 1)
			if err != nil {
				return err
			}
			if err := tx.PutNode(n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d := &daemon{b: b, bin: b.bin, root: root}
	var times []float64
	for range 4 * b.rounds {
		cmd := d.command("iscsiadm", "-m", "node")
		cmd.Env = append(cmd.Env, "ISCSI_DB="+filepath.Join(root, "nodes.db"))
		begin := time.Now()
		if _, err := output(cmd); err != nil {
			return err
		}
		times = append(times, time.Since(begin).Seconds())
	}
	got := time.Duration(median(times) * float64(time.Second))
	b.out.row(fmt.Sprintf("iscsiadm -m node with %d records", records), got.Round(100*time.Microsecond).String(),
		pick(got <= goal, "✓ ≤ ", "✗ ≤ ")+goal.String())
	return nil
}
