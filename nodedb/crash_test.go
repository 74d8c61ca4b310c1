package nodedb_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goiscsi/goiscsi/nodedb"
)

// The processes that these tests need are this test program, run with
// NODEDB_CHILD set; see TestMain.

func child(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "NODEDB_CHILD="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

func runChild(what string, args []string) error {
	switch what {
	case "forever":
		return updateForever(args[0], args[1])
	case "count":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return countUp(args[0], args[1], n)
	}
	return fmt.Errorf("no child %q", what)
}

var counterA, counterB = key("iqn.counter", "10.0.0.1"), key("iqn.counter", "10.0.0.2")

// bump adds one to the counters that two records hold as user name, making the
// records where there are none, and returns the count.
func bump(tx *nodedb.Tx) (int, error) {
	var count int
	for _, k := range []nodedb.NodeKey{counterA, counterB} {
		n, err := tx.Node(k)
		if err != nil {
			if n, err = nodedb.NewNode(nil, k, 1); err != nil {
				return 0, err
			}
		}
		count, _ = strconv.Atoi(n.Text(nodedb.FieldUsername))
		count++
		if err := n.Set(nodedb.FieldUsername, strconv.Itoa(count)); err != nil {
			return 0, err
		}
		if err := tx.PutNode(n); err != nil {
			return 0, err
		}
	}
	return count, nil
}

// updateForever counts until the process is killed and says how far it got,
// after each transaction. The records come and go, too, so that pages are
// freed and used again.
func updateForever(path, mirror string) error {
	db := nodedb.New(path, nodedb.Options{Mirror: mirror})
	fmt.Println(0)
	for i := 0; ; i++ {
		var count int
		err := db.Update(context.Background(), func(tx *nodedb.Tx) (err error) {
			if count, err = bump(tx); err != nil {
				return err
			}
			for j := range 20 {
				k := key("iqn.filler", fmt.Sprintf("10.0.%d.%d", i%7, j))
				if i%2 == 1 {
					_ = tx.DeleteNode(k)
					continue
				}
				n, err := nodedb.NewNode(nil, k, 1)
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
		fmt.Println(count)
	}
}

// count returns what the two counters hold.
func count(t *testing.T, db *nodedb.DB) (a, b int) {
	t.Helper()
	view(t, db, func(tx *nodedb.Tx) error {
		for k, v := range map[nodedb.NodeKey]*int{counterA: &a, counterB: &b} {
			if n, err := tx.Node(k); err == nil {
				*v, _ = strconv.Atoi(n.Text(nodedb.FieldUsername))
			}
		}
		return nil
	})
	return a, b
}

// killAfter runs updateForever, kills it when it has said lines lines, and
// returns the last that it said.
func killAfter(t *testing.T, path, mirror string, lines int) int {
	t.Helper()
	cmd := child(t, "forever", path, mirror)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last, seen := 0, 0
	s := bufio.NewScanner(out)
	for s.Scan() {
		if n, err := strconv.Atoi(s.Text()); err == nil {
			last = n
		}
		if seen++; seen == lines {
			// The child goes on meanwhile: the signal hits it anywhere.
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	return last
}

func TestKilledProcessLeavesAGoodDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "nodes.db")
	db := openDB(path)
	for round := range 30 {
		last := killAfter(t, path, "", 1+round%4)
		a, b := count(t, db)
		if a != b || a < last {
			t.Fatalf("round %d: counters are %d and %d, the process had said %d", round, a, b, last)
		}
	}
}

func TestProcessKilledAtItsFirstUpdateLeavesAGoodDatabase(t *testing.T) {
	for range 15 {
		path := filepath.Join(t.TempDir(), "nodes.db")
		last := killAfter(t, path, "", 1)
		if a, b := count(t, openDB(path)); a != b || a < last {
			t.Fatalf("counters are %d and %d, the process had said %d", a, b, last)
		}
		put(t, openDB(path), newNode(t, key("iqn.x", "10.0.0.1"), 1))
	}
}

func TestMirrorOfAKilledProcessCatchesUp(t *testing.T) {
	dir := t.TempDir()
	path, mirror := filepath.Join(dir, "nodes.db"), filepath.Join(dir, "etc")
	for round := range 8 {
		killAfter(t, path, mirror, 1+round%3)
		db := nodedb.New(path, nodedb.Options{Mirror: mirror})
		update(t, db, func(*nodedb.Tx) error { return nil })
		checkMirror(t, db, mirror)
	}
}

// countUp adds n records of its own and adds as many to the counters.
func countUp(path, name string, n int) error {
	db := nodedb.New(path, nodedb.Options{})
	for i := range n {
		err := db.Update(context.Background(), func(tx *nodedb.Tx) error {
			if _, err := bump(tx); err != nil {
				return err
			}
			node, err := nodedb.NewNode(nil, key("iqn."+name, "10.0.0."+strconv.Itoa(i)), 1)
			if err != nil {
				return err
			}
			return tx.PutNode(node)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestParallelProcessesLoseNothing(t *testing.T) {
	const procs, each = 12, 15
	path := filepath.Join(t.TempDir(), "d", "nodes.db")
	var wg sync.WaitGroup
	for i := range procs {
		wg.Go(func() {
			if err := child(t, "count", path, "p"+strconv.Itoa(i), strconv.Itoa(each)).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	db := openDB(path)
	if a, b := count(t, db); a != procs*each || b != a {
		t.Errorf("counters are %d and %d, want %d", a, b, procs*each)
	}
	if got := len(refs(t, db, nodedb.Match{})); got != procs*each+2 {
		t.Errorf("%d records, want %d", got, procs*each+2)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		t.Errorf("left behind: %s", strings.Join(names, " "))
	}
}
