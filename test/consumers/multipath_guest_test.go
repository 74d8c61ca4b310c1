//go:build guest

package consumers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/internal/packaging"
	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// start starts a program that runs until the test ends.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), filepath.Base(name))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		log.Close()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", name, b[max(0, len(b)-8000):])
		}
	})
}

// eventually is lab.Eventually with the patience that the loss of a portal
// takes: silence, recovery timeout, path checker.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 90 s: %s", what)
		}
	}
}

// put copies a file of the package to where it is installed.
func put(t *testing.T, h *lab.Host, name, dir string) {
	t.Helper()
	b, err := packaging.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	h.Shell("mkdir -p " + dir)
	h.WriteFile(filepath.Join(dir, filepath.Base(name)), string(b))
}

// paths returns the states that multipathd gives the paths of a disk.
func paths(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	out := run(t, nil, "", "multipathd", "show", "paths", "raw", "format", "%d %t %T")
	for line := range strings.Lines(out.stdout) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[0], "nbd") {
			all[f[0]] = f[1] + " " + f[2]
		}
	}
	return all
}

// TestMultipath has Debian's multipath-tools make one device of two sessions to
// one disk through two portals, with udev and the fragment of multipath.conf
// that the package has. A file system on it is written to without an error
// while one portal goes away and comes back, and then the other.
func TestMultipath(t *testing.T) {
	h, _ := newMachine(t)
	for _, m := range []string{"dm-mod", "dm-multipath", "dm-service-time"} {
		h.Shell("modprobe " + m)
	}
	put(t, h, "multipath/iscsid.conf", "/etc/multipath/conf.d")
	put(t, h, "udev/59-iscsid.rules", "/usr/lib/udev/rules.d")
	h.WriteFile("/etc/multipath.conf", "defaults {\n polling_interval 1\n max_polling_interval 1\n}\n")
	h.Shell("mkdir -p /run/udev /run/lock")
	t.Cleanup(func() { h.Shell("rm -rf /run/udev /etc/multipath.conf /etc/multipath/conf.d") })
	start(t, "/lib/systemd/systemd-udevd")
	h.Shell("for i in $(seq 300); do [ -S /run/udev/control ] && break; sleep 0.1; done; udevadm trigger; udevadm settle")
	start(t, "/sbin/multipathd", "-d", "-v2")
	eventually(t, "multipathd answers", func() bool {
		return strings.Contains(run(t, nil, "", "multipathd", "show", "daemon").stdout, "idle")
	})

	portals := []string{"10.9.0.1", "10.9.0.2"}
	var listen []string
	for _, p := range portals {
		h.Shell("ip address add " + p + "/32 dev lo")
		listen = append(listen, "-p", p+":3260")
	}
	t.Cleanup(func() { h.Shell("ip address flush dev lo to 10.9.0.0/24") })
	image := filepath.Join(h.Dir, "shared")
	h.Shell("truncate -s 64M " + image)
	const iqn = "iqn.2026-11.com.example:multipath"
	targets.StartOwn(t, func(args ...string) *exec.Cmd { return h.Command("iscsi-target", args...) },
		targets.Target{Name: iqn, LUNs: []targets.LUN{{Path: image}}}, listen...)
	h.Must("-m", "discovery", "-t", "st", "-p", portals[0])
	for name, value := range map[string]string{
		"node.session.timeo.replacement_timeout": "2", "node.conn[0].timeo.noop_out_interval": "1", "node.conn[0].timeo.noop_out_timeout": "1",
	} {
		h.Must("-m", "node", "-T", iqn, "-o", "update", "-n", name, "-v", value)
	}
	disks := map[string]string{} // portal → nbdN
	for _, p := range portals {
		h.Must("-m", "node", "-T", iqn, "-p", p, "-l")
		disks[p] = filepath.Base(h.Shell("readlink -f /dev/disk/by-path/ip-" + p + ":3260-iscsi-" + iqn + "-lun-1"))
	}
	both := func() bool {
		now := paths(t)
		return now[disks[portals[0]]] == "active ready" && now[disks[portals[1]]] == "active ready"
	}
	eventually(t, "both paths are active", both)
	wwid := h.Shell("udevadm info -q property -n /dev/" + disks[portals[0]] + " | sed -n 's/^ID_SERIAL=//p'")
	device := "/dev/mapper/" + wwid
	eventually(t, "the device is there", func() bool { _, err := os.Stat(device); return err == nil })
	h.Shell("udevadm settle")
	if slaves := strings.Fields(h.Shell("ls /sys/block/$(basename $(readlink -f " + device + "))/slaves")); len(slaves) != 2 {
		t.Fatalf("paths of the device: %q", slaves)
	}
	// Nobody takes a path for a disk: the names of the disk lead to the device.
	eventually(t, "the by-id link leads to the device", func() bool {
		return h.Shell("readlink -f /dev/disk/by-id/scsi-"+wwid) == h.Shell("readlink -f "+device)
	})
	for _, disk := range disks {
		eventually(t, disk+" is marked as a path", func() bool {
			props := strings.Split(h.Shell("udevadm info -q property -n /dev/"+disk), "\n")
			return slices.Contains(props, "ID_FS_TYPE=mpath_member") && slices.Contains(props, "SYSTEMD_READY=0")
		})
	}

	dir := t.TempDir()
	h.Shell("mkfs.ext4 -q -F " + device + "; mount " + device + " " + dir)
	stop, written := make(chan struct{}), make(chan error, 1)
	var blocks int
	go func() { // ends with stop, or an error
		written <- func() error {
			f, err := os.Create(filepath.Join(dir, "blocks"))
			if err != nil {
				return err
			}
			defer f.Close()
			for ; ; blocks++ {
				select {
				case <-stop:
					return nil
				default:
				}
				if _, err := fmt.Fprintf(f, "%09d\n", blocks); err != nil {
					return err
				}
				if err := f.Sync(); err != nil {
					return err
				}
			}
		}()
	}()
	for _, p := range portals {
		h.Shell("ip address del " + p + "/32 dev lo")
		eventually(t, "the path through "+p+" has failed", func() bool { return strings.HasPrefix(paths(t)[disks[p]], "failed ") })
		h.Shell("echo $(date) >" + dir + "/without-" + p + "; sync -f " + dir)
		h.Shell("ip address add " + p + "/32 dev lo")
		eventually(t, "the path through "+p+" is back", both)
	}
	close(stop)
	if err := <-written; err != nil {
		t.Errorf("a write has failed: %v", err)
	}
	h.Shell("umount " + dir)
	if out := h.Shell("e2fsck -fn " + device + " 2>&1"); strings.Contains(out, "ERROR") {
		t.Errorf("%s", out)
	}
	h.Shell("mount -o ro " + device + " " + dir)
	b, err := os.ReadFile(filepath.Join(dir, "blocks"))
	if want := fmt.Sprintf("%09d\n", blocks-1); err != nil || blocks == 0 || len(b) != 10*blocks || !strings.HasSuffix(string(b), want) {
		t.Errorf("%d lines were written and flushed, %d are there, %v", blocks, len(b)/10, err)
	}
	t.Logf("%d lines written and flushed through %s and %s", blocks, disks[portals[0]], disks[portals[1]])
	h.Shell("umount " + dir + "; multipath -f " + wwid)
	h.Must("-m", "node", "-T", iqn, "-u")
}
