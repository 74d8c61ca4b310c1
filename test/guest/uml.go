package guest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

//go:embed boot.sh
var bootScript []byte

//go:embed init.sh
var initScript []byte

// Where Debian's package user-mode-linux puts its kernel and modules.
const (
	umlKernel  = "linux.uml"
	umlModules = "/usr/lib/uml/modules"
)

// systemdInit is where every Debian has systemd, merged /usr or not.
const systemdInit = "/lib/systemd/systemd"

//go:embed systemd.sh
var systemdScript []byte

// uml boots user-mode Linux, with init.sh as the first process of the guest's
// root, or systemd.
type uml struct{ systemd bool }

func (u uml) available() error {
	var missing []string
	if _, err := exec.LookPath(umlKernel); err != nil {
		missing = append(missing, "user-mode-linux")
	} else if _, err := os.Stat(umlModules); err != nil {
		missing = append(missing, "user-mode-linux")
	}
	if !hasAny("/sbin/modprobe", "/usr/sbin/modprobe") {
		missing = append(missing, "kmod")
	}
	if !hasAny("/sbin/ip", "/usr/sbin/ip", "/bin/ip", "/sbin/ifconfig") {
		missing = append(missing, "iproute2")
	}
	kind := UML
	if u.systemd {
		kind = Systemd
		if !hasAny(systemdInit) {
			missing = append(missing, "systemd")
		}
		if !hasAny("/lib/systemd/systemd-udevd", "/usr/lib/systemd/systemd-udevd") {
			missing = append(missing, "udev")
		}
	}
	if missing != nil {
		return &MissingError{Kind: kind, Packages: missing}
	}
	return nil
}

func hasAny(paths ...string) bool {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return true
		}
	}
	return false
}

func (uml) prepare(_ context.Context, dir string) error {
	if err := os.WriteFile(filepath.Join(dir, ".boot"), bootScript, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, ".systemd"), systemdScript, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ".init"), initScript, 0o755)
}

func (u uml) run(ctx context.Context, dir string, memoryMiB int, out, console io.Writer) error {
	serialRead, serialWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer serialRead.Close()
	defer serialWrite.Close()

	// File descriptor 3 is the serial line on which the job's output comes.
	init := "GUEST_INIT=sh"
	if u.systemd {
		init = "GUEST_INIT=systemd"
	}
	cmd := exec.CommandContext(ctx, umlKernel, init,
		fmt.Sprintf("mem=%dM", memoryMiB),
		"rootfstype=hostfs", "rootflags=/", "rw",
		"init="+filepath.Join(dir, ".boot"),
		"GUEST_DIR="+dir,
		"con=null", "con0=null,fd:1", "ssl0=null,fd:3",
		"uml_dir="+filepath.Join(dir, ".uml"), "umid=guest",
		"noreboot", "quiet")
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{serialWrite}
	cmd.Env = append(os.Environ(), memoryDir(memoryMiB)...)
	// Each process of the guest is a process of the host: one group holds
	// them all, so that one signal ends them all.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killGroup := func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.Cancel = killGroup
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	serialWrite.Close()

	// copied is closed when the serial line has no writer left, which is
	// when the last process of the guest is gone.
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, serialRead)
		copied <- err
	}()
	err = cmd.Wait()
	if kerr := killGroup(); kerr != nil && !errors.Is(kerr, os.ErrProcessDone) {
		err = errors.Join(err, kerr)
	}
	return errors.Join(err, <-copied)
}

// memoryDir returns the environment that moves the file behind the guest's
// memory away from /dev/shm where that is too small for it, as it is in most
// containers: the kernel would die of SIGBUS in the middle of the job.
func memoryDir(memoryMiB int) []string {
	var st syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &st); err == nil &&
		st.Bavail*uint64(st.Bsize) >= uint64(memoryMiB)<<20 {
		return nil
	}
	return []string{"TMPDIR=" + os.TempDir()}
}
