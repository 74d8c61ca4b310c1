//go:build linux

package nbd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMountPointsAreFoundByNumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mountinfo")
	text := `22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
40 22 43:1 / /mnt/a\040b rw shared:2 - ext4 /dev/nbd0p1 rw
41 22 43:32 / /mnt/other rw - ext4 /dev/nbd1 rw
42 22 43:0 /sub /srv rw - xfs /dev/nbd0 rw
short line
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := mountPoints(path, map[string]bool{"43:0": true, "43:1": true})
	if want := []string{"/mnt/a b", "/srv"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := mountPoints(path+".none", nil); len(got) != 0 {
		t.Errorf("got %q from no file", got)
	}
}

func TestSwapIsFoundByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "swaps")
	text := "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/nbd0p2 partition\t1\t0\t-2\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if !swapped(path, map[string]bool{"/dev/nbd0p2": true}) {
		t.Error("swap partition is not found")
	}
	if swapped(path, map[string]bool{"/dev/nbd0": true}) {
		t.Error("the disk is taken for its partition")
	}
}
