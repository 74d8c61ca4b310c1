// Command records measures iscsiadm's work on records beside open-iscsi's own
// iscsiadm: a list of all, one record shown, one record updated. Both programs
// have the same records, take turns in one run, and are measured from the start
// of the process to its end.
//
//	make bench-records
//
// It runs as root and does open-iscsi's part in a mount namespace of its own
// with another directory on /etc/iscsi, so that the machine's own records are
// neither seen nor changed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// inside is set in the environment of the process that has the namespace.
const inside = "GOISCSI_BENCH_RECORDS"

func main() {
	var o options
	flag.IntVar(&o.records, "records", 10_000, "`number` of records")
	flag.IntVar(&o.rounds, "rounds", 9, "`number` of rounds, at least 5")
	flag.StringVar(&o.bin, "bin", "bin", "`directory` of our iscsiadm")
	flag.StringVar(&o.theirs, "open-iscsi", "/sbin/iscsiadm", "open-iscsi's `iscsiadm`")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "`directory` for the records; its file system is measured, too")
	flag.StringVar(&o.report, "report", "", "write the Markdown report to this `file`")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 5 || o.records < 2 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if os.Getenv(inside) == "" {
		err = enter(ctx)
	} else {
		err = o.run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "records:", err)
		os.Exit(1)
	}
}

// enter runs this program again in a mount namespace of its own.
func enter(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("must be root: open-iscsi's records are in /etc/iscsi")
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Go makes all mounts of the namespace private.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// bind puts a directory in place of another, for this namespace.
func bind(from, to string) error {
	if err := os.MkdirAll(from, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", from, to, err)
	}
	return nil
}

// place makes the directories that both programs work in.
func (o *options) place() (ours string, cleanup func(), err error) {
	dir, err := os.MkdirTemp(o.dir, "bench-records-")
	if err != nil {
		return "", nil, err
	}
	cleanup = func() { os.RemoveAll(dir) }
	// The machine's settings hold for both, if it has any.
	conf, err := os.ReadFile("/etc/iscsi/iscsid.conf")
	if err != nil && !os.IsNotExist(err) {
		return "", cleanup, err
	}
	theirs := filepath.Join(dir, "etc")
	// open-iscsi's lock is in /run/lock/iscsi.
	if err := os.MkdirAll(filepath.Join(dir, "run/lock/iscsi"), 0o700); err != nil {
		return "", cleanup, err
	}
	if err := bind(theirs, "/etc/iscsi"); err != nil {
		return "", cleanup, err
	}
	if err := bind(filepath.Join(dir, "run"), "/run"); err != nil {
		return "", cleanup, err
	}
	ours = filepath.Join(dir, "ours")
	for _, d := range []string{"/etc/iscsi", filepath.Join(ours, "etc/iscsi")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return "", cleanup, err
		}
		if conf == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(d, "iscsid.conf"), conf, 0o600); err != nil {
			return "", cleanup, err
		}
	}
	return ours, cleanup, nil
}
