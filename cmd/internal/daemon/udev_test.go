package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUdevProperties(t *testing.T) {
	const path = "ip-10.0.0.1:3260-iscsi-iqn.2016-01.com.example:d-lun-1"
	for _, tc := range []struct {
		name string
		info unitInfo
		want []string
	}{
		{
			"naa with extension",
			unitInfo{vendor: "IET     ", model: "VIRTUAL-DISK", revision: "0001", serial: "beaf11", wwid: "360000000000000000e00000000010001"},
			[]string{
				"ID_VENDOR=IET", "ID_VENDOR_ENC=IET", "ID_MODEL=VIRTUAL-DISK", "ID_MODEL_ENC=VIRTUAL-DISK", "ID_REVISION=0001",
				"ID_SCSI_SERIAL=beaf11", "SCSI_IDENT_SERIAL=beaf11",
				"ID_SERIAL=360000000000000000e00000000010001", "ID_SERIAL_SHORT=60000000000000000e00000000010001",
				"ID_WWN_WITH_EXTENSION=0x60000000000000000e00000000010001", "ID_WWN_VENDOR_EXTENSION=0x0e00000000010001", "ID_WWN=0x6000000000000000",
			},
		},
		{
			"naa of eight bytes",
			unitInfo{wwid: "35000c500155c5d2b"},
			[]string{"ID_SERIAL=35000c500155c5d2b", "ID_SERIAL_SHORT=5000c500155c5d2b", "ID_WWN_WITH_EXTENSION=0x5000c500155c5d2b", "ID_WWN=0x5000c500155c5d2b"},
		},
		{
			"no name of the unit",
			unitInfo{vendor: "ACME", model: "Big Disk", serial: "17"},
			[]string{
				"ID_VENDOR=ACME", "ID_VENDOR_ENC=ACME", "ID_MODEL=Big_Disk", `ID_MODEL_ENC=Big\x20Disk`, "ID_SCSI_SERIAL=17",
				"SCSI_IDENT_SERIAL=17", "ID_SERIAL=SACME_Big_Disk_17", "ID_SERIAL_SHORT=ACME_Big_Disk_17",
			},
		},
		{
			"hostile",
			unitInfo{vendor: "A\nDEVLINKS=x", model: `"$(reboot)/..`, wwid: "1x/../../y"},
			[]string{
				"ID_VENDOR=A_DEVLINKS=x", `ID_VENDOR_ENC=A\x0aDEVLINKS=x`, "ID_MODEL=___reboot__..", `ID_MODEL_ENC=\x22\x24\x28reboot\x29\x2f..`,
				"ID_SERIAL=1x_.._.._y", "ID_SERIAL_SHORT=x_.._.._y",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := append([]string{"ID_ISCSI=1", "ID_BUS=scsi", "ID_SCSI=1", "ID_TYPE=disk"}, tc.want...)
			want = append(want, "ID_PATH="+path, "ID_PATH_TAG=ip-10_0_0_1_3260-iscsi-iqn_2016-01_com_example_d-lun-1")
			got := strings.Split(strings.TrimSuffix(udevProperties(&tc.info, path), "\n"), "\n")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestUdevFilesComeAndGoWithTheDevices(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeController(), fakeDisk("naa.1", 1<<20)))
	dir := b.opt.Paths.UdevDir()
	files := func() []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	s := b.login()
	got := files()
	if len(got) != 1 || !strings.HasPrefix(filepath.Base(got[0]), backendPrefix(b.m.instance)) {
		t.Fatalf("files %q", got)
	}
	if text, err := os.ReadFile(got[0]); err != nil || !strings.Contains(string(text), "\nID_PATH="+linkName("1")+"\n") {
		t.Errorf("properties %q, %v", text, err)
	}
	// A file that a dead daemon left goes, that of a device which stays stays.
	b.halt()
	if err := os.WriteFile(filepath.Join(dir, "iscsid:dead:1:1:x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.up(s.SID)
	if now := files(); !slices.Equal(now, got) {
		t.Errorf("files %q after a restart, want %q", now, got)
	}
	b.logout(s.SID)
	if now := files(); len(now) != 0 {
		t.Errorf("files %q after the logout", now)
	}
}

func TestDevicesAreAnnouncedWhenUdevCanKnowThem(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	// The fake kernel's next device, with a partition that is found at once.
	disk := filepath.Join(b.kern.sys, "block", "nbd0")
	for _, dir := range []string{disk, filepath.Join(disk, "nbd0p1")} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "uevent"), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	b.login()
	for _, file := range []string{"uevent", "nbd0p1/uevent"} {
		if text, err := os.ReadFile(filepath.Join(disk, file)); err != nil || string(text) != "add" {
			t.Errorf("%s got %q, %v", file, text, err)
		}
	}
}
