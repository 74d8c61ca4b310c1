package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// DefaultTimeout bounds a job that sets no Timeout of its own.
const DefaultTimeout = 5 * time.Minute

// A Kind names the sort of kernel that a guest runs.
type Kind string

const (
	// UML is Debian's user-mode Linux (package user-mode-linux): one
	// processor, up in about two seconds.
	UML Kind = "uml"
	// QEMU is Debian's kernel package in QEMU by software emulation: two
	// processors, up in ten to twenty seconds.
	QEMU Kind = "qemu"
	// Systemd is user-mode Linux in which Debian's own systemd and udev are
	// booted, which takes about a minute; the job is a unit that
	// multi-user.target wants, and its end a regular shutdown.
	Systemd Kind = "systemd"
)

// A Job is what a guest is booted for.
type Job struct {
	// Kind of guest; empty means UML.
	Kind Kind
	// Script is run by /bin/sh as root, with /lab as working directory. Its
	// exit status becomes Result.ExitCode.
	Script string
	// Prepare, if not empty, is run by /bin/sh as root in the guest's root
	// before its systemd starts, for a guest of kind Systemd: units and
	// configuration are put in place here. It shares Env with Script; the boot
	// ends when it fails.
	Prepare string
	// Files are copied into /lab before the boot: name below /lab → path on
	// the host. A directory is copied with all that is below it. Modes are
	// kept.
	Files map[string]string
	// Env are "NAME=value" pairs added to the script's environment.
	Env []string
	// Timeout bounds the whole run, boot included; 0 means DefaultTimeout.
	Timeout time.Duration
	// MemoryMiB is the guest's memory; 0 means 1024. User-mode Linux takes
	// only what the guest really touches.
	MemoryMiB int
	// Stdout gets the script's output (both streams) as it comes. It may be
	// nil: Result.Output has it all in any case.
	Stdout io.Writer
	// Dir is the exchange directory on the host. Empty means a temporary one
	// that is removed when Run returns; a Dir that the caller names is made
	// when missing and left as the job left it.
	Dir string
}

// A Result is what a guest that ran its job to the end left behind.
type Result struct {
	ExitCode int           // exit status of Script
	Output   []byte        // both streams of Script
	Console  []byte        // the kernel's messages
	Elapsed  time.Duration // boot, job and halt
}

// An ExitError says that a guest ended without having run its job to the end:
// it did not boot, its kernel panicked, or its time was up.
type ExitError struct {
	Reason  error  // what ended it
	Console []byte // the kernel's messages, for the report
	Output  []byte // what the job had printed until then
}

// Error returns the reason together with the last lines of the console,
// without which nobody can tell what happened.
func (e *ExitError) Error() string {
	return fmt.Sprintf("guest ended without finishing its job: %v\n%s", e.Reason, Tail(e.Console, 30))
}

// Unwrap returns the reason.
func (e *ExitError) Unwrap() error { return e.Reason }

// A MissingError says what has to be installed before a kind of guest can
// run here.
type MissingError struct {
	Kind     Kind
	Packages []string // Debian's names
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("no %s guest here: install %s", e.Kind, strings.Join(e.Packages, " "))
}

// Available returns nil when a guest of this kind can be booted here, else a
// *MissingError.
func Available(k Kind) error {
	m, err := machineFor(k)
	if err != nil {
		return err
	}
	return m.available()
}

// A machine knows how to boot one kind of guest.
type machine interface {
	available() error
	// prepare puts what the boot needs into dir.
	prepare(ctx context.Context, dir string) error
	// run boots on dir and returns when no process of the guest is left.
	// Output of the job goes to out, the kernel's messages to console.
	run(ctx context.Context, dir string, memoryMiB int, out, console io.Writer) error
}

func machineFor(k Kind) (machine, error) {
	switch k {
	case UML, "":
		return uml{}, nil
	case Systemd:
		return uml{systemd: true}, nil
	case QEMU:
		return qemu{}, nil
	}
	return nil, fmt.Errorf("unknown kind of guest %q", k)
}

// Run boots a guest, runs the job in it and returns when the guest is gone.
// The error is nil whenever the script ran to its end, whatever its exit
// status; otherwise it is a *MissingError, an *ExitError or an error of the
// host's file system. Cancelling ctx ends the guest at once.
func Run(ctx context.Context, job Job) (Result, error) {
	m, err := machineFor(job.Kind)
	if err != nil {
		return Result{}, err
	}
	if err := m.available(); err != nil {
		return Result{}, err
	}
	dir := job.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "guest-"); err != nil {
			return Result{}, err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return Result{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return Result{}, err
	}
	if err := fill(dir, job); err != nil {
		return Result{}, err
	}
	if err := m.prepare(ctx, dir); err != nil {
		return Result{}, err
	}

	timeout := job.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not finished after %v", timeout))
	defer cancel()
	memory := job.MemoryMiB
	if memory == 0 {
		memory = 1024
	}
	var output, console bytes.Buffer
	var out io.Writer = &output
	if job.Stdout != nil {
		out = io.MultiWriter(&output, job.Stdout)
	}
	start := time.Now()
	runErr := m.run(ctx, dir, memory, out, &console)
	res := Result{Output: output.Bytes(), Console: console.Bytes(), Elapsed: time.Since(start)}

	// The status file is the only word that counts: a kernel that panicked
	// in its halt has still run the job.
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err == nil {
		if res.ExitCode, err = strconv.Atoi(strings.TrimSpace(string(status))); err == nil {
			return res, nil
		}
	}
	reason := runErr
	if cause := context.Cause(ctx); cause != nil {
		reason = cause
	}
	if reason == nil {
		reason = errors.New("the guest halted before its job was done")
	}
	return res, &ExitError{Reason: reason, Console: res.Console, Output: res.Output}
}

// fill puts the job and its files into the exchange directory.
func fill(dir string, job Job) error {
	os.Remove(filepath.Join(dir, "status"))
	var env strings.Builder
	for _, e := range job.Env {
		name, value, _ := strings.Cut(e, "=")
		fmt.Fprintf(&env, "export %s=%s\n", name, quote(value))
	}
	for name, script := range map[string]string{".job": job.Script, ".prepare": job.Prepare} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(env.String()+script), 0o755); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(job.Files))
	for name := range job.Files {
		names = append(names, name)
	}
	sort.Strings(names) // a directory before what another entry adds to it
	for _, name := range names {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("guest file %q is not below /lab", name)
		}
		if err := copyTree(filepath.Join(dir, name), job.Files[name]); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies a file or a directory with all regular files below it. Links are
// followed.
func copyTree(dst, src string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		info, err := os.Stat(path) // follows links: the guest may not see their ends
		switch {
		case err != nil:
			return err
		case info.IsDir() && d.Type()&fs.ModeSymlink != 0:
			real, err := filepath.EvalSymlinks(path)
			if err != nil {
				return err
			}
			return copyTree(to, real)
		case info.IsDir():
			return os.MkdirAll(to, 0o755)
		case info.Mode().IsRegular():
			return copyFile(to, path, info.Mode().Perm())
		}
		return nil
	})
}

func copyFile(dst, src string, mode fs.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// Tail returns the last n lines of a console or output.
func Tail(b []byte, n int) []byte {
	b = bytes.TrimRight(b, "\r\n")
	for i := len(b); n > 0; n-- {
		i = bytes.LastIndexByte(b[:i], '\n')
		if i < 0 {
			return b
		}
		if n == 1 {
			return b[i+1:]
		}
	}
	return nil
}
