//go:build guest

package matrix

import (
	"testing"

	"github.com/goiscsi/goiscsi/test/targets"
)

// TestLIO runs where the kernel may be changed.
func TestLIO(t *testing.T) {
	file := targets.SparseFile(t, diskSize)
	portal := targets.PortalAddr{Host: "127.0.0.1", Port: 3260}
	l := targets.StartLIO(t, []targets.PortalAddr{portal}, targets.Target{Name: targetName, LUNs: []targets.LUN{{Number: 0, Path: file}}})
	l.Param(targetName, "InitialR2T", "No")
	s := &subject{portal: portal, lun: 0, file: file}
	s.run(t, 0, 1)
}
