//go:build integration

package boot

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestUnitIsConfined asks systemd how much iscsid.service leaves to its process: no
// more than now, which is what docs/system.md gives the reasons for. TestBoot shows
// that it is enough.
func TestUnitIsConfined(t *testing.T) {
	const most = "53" // the rating in tenths: 0 is nothing, 100 everything
	unit := filepath.Join(checkout, "internal/packaging/systemd/iscsid.service")
	cmd := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold="+most, unit)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
}
