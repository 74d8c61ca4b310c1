package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// MarkIOFlusher marks every thread of the process as one that writes dirty memory
// out (PR_SET_IO_FLUSHER, Linux 5.6), so that its allocations never wait for
// a disk that it serves itself. The mark is a thread's own, and inherited by the
// threads it makes, so all there are get it.
//
// In a program with C in it the runtime cannot do that. There main's thread gets the
// mark, which exec keeps, and the program is executed again: the runtime of that
// image starts all its threads from the marked one. So it must be the first thing
// that main does.
//
// It returns an error where the mark is refused (it takes CAP_SYS_RESOURCE), which is
// no reason not to run.
func MarkIOFlusher() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	on, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0)
	if err == nil && on == 1 {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("prctl(PR_GET_IO_FLUSHER)", err)
	}
	err = allThreads(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
	if !errors.Is(err, errors.ErrUnsupported) {
		return os.NewSyscallError("prctl(PR_SET_IO_FLUSHER)", err)
	}
	if err = unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_IO_FLUSHER)", err)
	}
	return os.NewSyscallError("execve", syscall.Exec(executable(), os.Args, os.Environ()))
}

// allThreads makes a system call on each thread. In a program with C in it that is
// not possible: errors.ErrUnsupported.
func allThreads(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// executable returns the path of the running program: its real one, which
// gives the process its name for pidof and ps, or where that has been
// replaced by an upgrade the kernel's link to it.
func executable() string {
	const link = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil {
		return link
	}
	running, err1 := os.Stat(link)
	there, err2 := os.Stat(path)
	if err1 != nil || err2 != nil || !os.SameFile(running, there) {
		return link
	}
	return path
}

// protect asks the kernel not to kill the process for want of memory and not
// to page it out, and the runtime to keep its heap small. Each part is
// tried; refusals are logged.
//
// It does not raise the priority: a thread that goes before its clients takes
// the processor from them with each request that they send, and so gets requests
// one by one instead of in batches (docs/benchmarks.md, "Tried and not kept").
func protect(log *slog.Logger) {
	// The heap is small and lives of pooled buffers, so collecting at half
	// growth costs little and keeps an idle daemon under 30 MiB.
	debug.SetGCPercent(50)
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		log.Warn("Cannot adjust oom-killer's pardon", "err", err)
	}
	if err := lockMemory(); err != nil {
		log.Warn("memory is not locked, it may be paged out", "err", err)
	}
}

// lockMemory keeps what the process has touched in memory, and what it will
// touch; a Go process maps much more than it uses. Below a limit of locked
// memory it must not be tried: the limit counts what is mapped, and once it was
// reached the runtime would get no more memory at all.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if limit.Cur != unix.RLIM_INFINITY && !haveCapability(unix.CAP_IPC_LOCK) {
		return fmt.Errorf("CAP_IPC_LOCK: %w", unix.EPERM)
	}
	return os.NewSyscallError("mlockall", unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT))
}

// haveCapability reports whether the process has a capability in effect.
func haveCapability(c int) bool {
	var data [2]unix.CapUserData
	if unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]) != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

// bootID names the time since the machine was started.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// A lockFile is a file that one process at a time can hold. The lock ends
// with the process; the file stays.
type lockFile struct{ f *os.File }

// errLocked says that another process holds the file.
var errLocked = errors.New("held by another process")

// lockPath takes the lock without waiting. A new file is for its owner alone:
// whoever can open a file can lock it.
func lockPath(path string) (*lockFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", path, errLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &lockFile{f}, nil
}

// writePID makes the process id the file's content, as a pid file has it.
func (l *lockFile) writePID(pid int) error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	if err := l.f.Chmod(0o644); err != nil { // scripts read it, whatever the umask is
		return err
	}
	_, err := l.f.WriteAt([]byte(strconv.Itoa(pid)+"\n"), 0)
	return err
}

// unlock gives the lock up, removing the file first when asked to: a pid file
// goes with its process.
func (l *lockFile) unlock(remove bool) {
	if remove {
		os.Remove(l.f.Name())
	}
	l.f.Close()
}

// dropPrivileges changes to the group and user, where they are not negative,
// for all threads.
func dropPrivileges(uid, gid int) error {
	if gid >= 0 {
		if err := syscall.Setgroups([]int{gid}); err != nil {
			return os.NewSyscallError("setgroups", err)
		}
		if err := syscall.Setgid(gid); err != nil {
			return os.NewSyscallError("setgid", err)
		}
	}
	if uid >= 0 {
		if err := syscall.Setuid(uid); err != nil {
			return os.NewSyscallError("setuid", err)
		}
	}
	return nil
}
