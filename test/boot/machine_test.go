//go:build integration

package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/guest"
)

// bootTarget is logged in to by an onboot record.
const bootTarget = "iqn.2026-11.com.example:onboot"

const (
	target = "iqn.2026-11.com.example:boot"
	byPath = "/dev/disk/by-path/ip-127.0.0.1:3260-iscsi-" + target + "-lun-"
	// lastDisk is one that is in use when the machine halts, as its root would be.
	lastDisk = "/dev/disk/by-path/ip-127.0.0.1:3261-iscsi-" + target + ":last-lun-1"
)

// checkout is the root of the source.
const checkout = "../.."

// binDir is where the commands are: GOISCSI_BIN, else bin/ of the checkout.
func binDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GOISCSI_BIN")
	if dir == "" {
		dir = filepath.Join(checkout, "bin")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "iscsid")); err != nil {
		t.Fatalf("make build comes first: %v", err)
	}
	return dir
}

// buildPackage makes the Debian package of the commands.
func buildPackage(t *testing.T, env ...string) string {
	t.Helper()
	cmd := exec.Command("internal/packaging/debian/build", binDir(t), t.TempDir())
	cmd.Dir = checkout
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build the package: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// run boots a guest and returns what its job printed; the test ends if the
// job did not run to its end.
func run(t *testing.T, job guest.Job) guest.Result {
	t.Helper()
	res, err := guest.Run(t.Context(), job)
	var missing *guest.MissingError
	switch {
	case errors.As(err, &missing):
		t.Skip(err)
	case err != nil:
		t.Fatalf("%v\noutput:\n%s", err, res.Output)
	case res.ExitCode != 0:
		t.Errorf("exit status %d:\n%s\nconsole:\n%s", res.ExitCode, res.Output, guest.Tail(res.Console, 80))
	}
	t.Logf("%.0f s from power on to power off\n%s", res.Elapsed.Seconds(), res.Output)
	return res
}

// shell runs a line of shell on the host.
func shell(t *testing.T, dir, line string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-ec", line)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", line, err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

// makeDisks makes four disks: file systems on the whole of each, and in a
// partition of the second.
func makeDisks(t *testing.T, dir string) {
	t.Helper()
	shell(t, dir, `
		for d in 1 3 4; do truncate -s 64M disk$d; mkfs.ext4 -q -F disk$d; done
		truncate -s 8M disk5
		truncate -s 64M disk2
		printf 'label: gpt\nstart=2048\n' | sfdisk -q disk2
		mkfs.ext4 -q -F -E offset=1048576 disk2 62M`)
}

// checkDisk holds a file system against what the guest wrote, with nothing
// mounted and no journal replayed: it was unmounted and all of it has arrived.
func checkDisk(t *testing.T, dir, fs, sum string) {
	t.Helper()
	if out := shell(t, dir, "dumpe2fs -h '"+fs+"' 2>/dev/null"); strings.Contains(out, "needs_recovery") || !strings.Contains(out, "Filesystem state:         clean") {
		t.Errorf("%s was not unmounted:\n%s", fs, out)
	}
	if out := shell(t, dir, "e2fsck -fn '"+fs+"' 2>&1 || echo BAD"); strings.Contains(out, "BAD") {
		t.Errorf("%s:\n%s", fs, out)
	}
	out := filepath.Join(t.TempDir(), "marker")
	shell(t, dir, "debugfs -R 'dump /marker "+out+"' '"+fs+"' 2>&1")
	b, err := os.ReadFile(out)
	if err != nil {
		t.Errorf("%s has no marker: %v", fs, err)
		return
	}
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != sum {
		t.Errorf("marker on %s: %d bytes with sum %x, want %s", fs, len(b), got, sum)
	}
}
