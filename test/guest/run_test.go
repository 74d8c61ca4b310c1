//go:build integration

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/guest"
)

// TestRun is what the package promises: root, nbd, the exit status, streamed
// output, the host's files in sight and out of reach.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "word")
	if err := os.WriteFile(file, []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	res, err := guest.Run(t.Context(), guest.Job{
		Dir: dir, Stdout: &stream, Env: []string{"WORD=it's"}, Files: map[string]string{"word": file},
		Script: `echo "$WORD $(id -u) $(cat word)"
			modprobe nbd nbds_max=1 && ls /dev/nbd0
			echo changed >/etc/hostname; echo to the host >/lab/back; exit 7`,
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "it's 0 from the host\n/dev/nbd0\n"; string(res.Output) != want || stream.String() != want {
		t.Errorf("output %q, streamed %q, want %q", res.Output, stream.String(), want)
	}
	if res.ExitCode != 7 {
		t.Errorf("exit status %d, want 7", res.ExitCode)
	}
	if back, err := os.ReadFile(filepath.Join(dir, "back")); string(back) != "to the host\n" {
		t.Errorf("the guest left %q (%v)", back, err)
	}
	if name, _ := os.ReadFile("/etc/hostname"); string(name) == "changed\n" {
		t.Error("the guest has written to the host")
	}
}

// TestRunTimeout ends a job that does not, with all that it has started. A
// busy machine may take longer than the first timeout to boot the guest, which
// then has printed nothing: it gets more time.
func TestRunTimeout(t *testing.T) {
	for timeout := 8 * time.Second; ; timeout *= 2 {
		start := time.Now()
		_, err := guest.Run(t.Context(), guest.Job{Script: "echo begun; sleep 1000", Timeout: timeout})
		var exit *guest.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("got %v, want an *ExitError", err)
		}
		if want := fmt.Sprintf("not finished after %v", timeout); !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say why: %v", err)
		}
		if took := time.Since(start); took > timeout+time.Minute {
			t.Errorf("ended after %v, %v after its time was up", took, took-timeout)
		}
		if len(exit.Output) == 0 && timeout < time.Minute {
			t.Logf("not up within %v, once more with longer", timeout)
			continue
		}
		if string(exit.Output) != "begun\n" {
			t.Errorf("output until then is %q", exit.Output)
		}
		return
	}
}

// TestRunPanic reports a kernel that dies instead of a job's exit status.
func TestRunPanic(t *testing.T) {
	_, err := guest.Run(t.Context(), guest.Job{Script: "echo c >/proc/sysrq-trigger; sleep 1000", Timeout: time.Minute})
	var exit *guest.ExitError
	if !errors.As(err, &exit) || !bytes.Contains(exit.Console, []byte("panic")) {
		t.Errorf("got %v, want an *ExitError with the kernel's last words", err)
	}
}

// TestRunCancelled returns when its context ends.
func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	_, err := guest.Run(ctx, guest.Job{Script: "echo begun; sleep 1000", Stdout: out})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
