//go:build linux && guest

package attach_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/attach"
	"github.com/goiscsi/goiscsi/nbd"
)

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// A file system on a device of the real kernel: the device of a mounted disk is
// not detached, and survives that the program behind it leaves and comes back.
func TestGuestFileSystemOnAKernelDevice(t *testing.T) {
	r := newRig(t)
	r.store.Resize(64 << 20)
	opt := attach.Options{DeadConnTimeout: time.Minute}
	first := connect(t, r.target(t))
	d, err := attach.Kernel(t.Context(), first, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { d.Discard(t.Context()) }()
	run(t, "mkfs.ext4", "-q", d.Path())
	dir := t.TempDir()
	run(t, "mount", d.Path(), dir)
	mounted := true
	defer func() {
		if mounted {
			run(t, "umount", dir)
		}
	}()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = d.Detach(t.Context())
	var busy *nbd.BusyError
	if !errors.Is(err, attach.ErrInUse) || !errors.As(err, &busy) || len(busy.Mounts) != 1 || initiator.ErrorCode(err) != initiator.CodeBusy {
		t.Fatalf("Detach of a mounted device: %v", err)
	}

	h := d.Handle()
	if err := d.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	target, err := h.Target()
	if err != nil {
		t.Fatal(err)
	}
	second := connect(t, target)
	if d, err = attach.Reattach(t.Context(), second, h, opt); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "before" {
		t.Errorf("after Reattach the file reads %q, %v", got, err)
	}
	if err := os.WriteFile(file, []byte("after"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "umount", dir)
	mounted = false
	if err := d.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err = attach.Kernel(t.Context(), second, opt)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "fsck.ext4", "-n", "-f", d.Path())
	if err := d.Detach(t.Context()); err != nil {
		t.Error(err)
	}
}
