package daemon

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// inPriorityTest is set in the process whose priority the test changes: it
// cannot be had back without a privilege.
const inPriorityTest = "GOISCSI_TEST_PRIORITY"

func TestPriorityIsThatOfAllThreads(t *testing.T) {
	if os.Getenv(inPriorityTest) == "" {
		// The process starts with the lowest priority, so that there is one to
		// be raised to.
		cmd := exec.Command("nice", "-n", "19", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inPriorityTest+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	const want = 15
	if err := raisePriority(want); errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		t.Logf("this user may not raise a priority, and is told: %v", err)
		return
	} else if err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	if len(threads) < 2 {
		t.Fatalf("%d threads: nothing was tried", len(threads))
	}
	for _, e := range threads {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		got, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		if err != nil {
			t.Fatal(err)
		}
		if 20-got != want {
			t.Errorf("thread %d has the nice value %d, want %d", tid, 20-got, want)
		}
	}
	// A priority that is higher already stays.
	if err := raisePriority(want + 2); err != nil {
		t.Error(err)
	}
	if got, _ := unix.Getpriority(unix.PRIO_PROCESS, 0); 20-got != want {
		t.Errorf("the nice value went from %d to %d", want, 20-got)
	}
}
