package daemon

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// daemonNice is the nice value of iscsid, which is open-iscsi's: who waits for a
// disk should not wait for the processor as well.
const daemonNice = -10

// raisePriority gives every thread of the process a nice value of at most nice.
//
// On Linux the value is a thread's own (setpriority(2), "C library/kernel
// differences"), and the runtime has started threads by now, on any of which a
// goroutine may run. A thread inherits from the one that makes it, so after a
// pass that found nothing to change there is none that was missed.
func raisePriority(nice int) error {
	for changed := true; changed; {
		changed = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			now, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
			if err == nil && 20-now > nice { // the system call returns 1 to 40
				changed = true
				err = unix.Setpriority(unix.PRIO_PROCESS, tid, nice)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) { // the thread has ended
				return os.NewSyscallError("setpriority", err)
			}
		}
	}
	return nil
}
