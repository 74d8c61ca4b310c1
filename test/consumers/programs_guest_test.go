//go:build guest

package consumers

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// TestAnsible runs Ansible's module as Ansible does on a managed host: with
// the parameters of a task as JSON.
func TestAnsible(t *testing.T) {
	h, p := newMachine(t)
	type result struct {
		Changed, Failed   bool
		Msg               string
		Nodes             []string
		DeviceNodes       []string `json:"devicenodes"`
		ConnectionChanged bool     `json:"connection_changed"`
	}
	task := func(params string, code int) result {
		t.Helper()
		input := fmt.Sprintf(`{"ANSIBLE_MODULE_ARGS": {"portal": %q, "port": "%d", %s}}`, p.Host, p.Port, params)
		out := run(t, nil, input, "python3", "/usr/lib/python3/dist-packages/ansible_collections/community/general/plugins/modules/open_iscsi.py")
		var r result
		if err := json.Unmarshal([]byte(out.stdout), &r); err != nil || out.code != code {
			t.Fatalf("%s: exit status %d, %v\n%s", params, out.code, err, out)
		}
		return r
	}
	up := `"target": "` + guestTarget + `", "login": true`
	r := task(`"discover": true, "show_nodes": true, "auto_node_startup": true, `+up, 0)
	device := h.Shell("readlink -f " + byPath(p))
	if !r.Changed || !slices.Contains(r.Nodes, guestTarget) || !slices.Equal(r.DeviceNodes, []string{device}) {
		t.Errorf("%+v, want node %s and device %s", r, guestTarget, device)
	}
	if record := h.Must("-m", "node", "-T", guestTarget); !strings.Contains(record, "\nnode.startup = automatic\n") {
		t.Errorf("startup:\n%s", record)
	}
	// A second run of the play changes nothing.
	if r := task(`"auto_node_startup": true, `+up, 0); r.Changed || !slices.Equal(r.DeviceNodes, []string{device}) {
		t.Errorf("again: %+v", r)
	}
	if r := task(`"target": "`+guestTarget+`", "login": false`, 0); !r.ConnectionChanged || sessions(t, h) != "" {
		t.Errorf("logout: %+v", r)
	}
	if r := task(`"target": "iqn.2026-11.com.example:nothere", "login": true`, 1); !r.Failed {
		t.Errorf("a target that is not there: %+v", r)
	}
}

// TestPacemaker takes the resource agent through its actions, as Pacemaker
// calls them. The numbers are OCF's: 0 success, 7 not running.
func TestPacemaker(t *testing.T) {
	h, p := newMachine(t)
	env := []string{"OCF_ROOT=/usr/lib/ocf", "OCF_RESOURCE_INSTANCE=disk", "OCF_RESKEY_portal=" + p.String(), "OCF_RESKEY_target=" + guestTarget}
	action := func(name string, code int) {
		t.Helper()
		if out := run(t, env, "", "/usr/lib/ocf/resource.d/heartbeat/iscsi", name); out.code != code {
			t.Fatalf("%s: exit status %d, want %d\n%s\nsessions:\n%s", name, out.code, code, out, sessions(t, h))
		}
	}
	action("validate-all", 0)
	action("monitor", 7)
	action("start", 0)
	h.Shell("test -b " + byPath(p)) // start waits for it
	action("monitor", 0)
	action("start", 0)
	action("stop", 0)
	if s := sessions(t, h); s != "" {
		t.Errorf("sessions after stop:\n%s", s)
	}
	action("monitor", 7)
	action("stop", 0)
}

// TestOpenISCSIScripts runs iscsi_discovery, and the script that open-iscsi's
// unit runs at a shutdown.
func TestOpenISCSIScripts(t *testing.T) {
	for _, f := range []string{"/sbin/iscsi_discovery", "/lib/open-iscsi/logout-all.sh"} {
		if _, err := os.Stat(f); err != nil {
			t.Skipf("package open-iscsi is not installed: %v", err)
		}
	}
	h, p := newMachine(t)
	out := ok(t, nil, "/sbin/iscsi_discovery", p.Host, "-p", strconv.Itoa(p.Port), "-l")
	if !strings.Contains(out.stdout, "discovered 1 targets at "+p.Host) || !strings.Contains(out.stdout, "Set target "+guestTarget+" to automatic login over tcp") {
		t.Errorf("%s", out)
	}
	if !strings.Contains(sessions(t, h), guestTarget) {
		t.Errorf("no session:\n%s", out)
	}
	if record := h.Must("-m", "node", "-T", guestTarget); !strings.Contains(record, "\nnode.conn[0].startup = automatic\n") {
		t.Errorf("startup:\n%s", record)
	}
	ok(t, nil, "/lib/open-iscsi/logout-all.sh")
	if s := sessions(t, h); s != "" {
		t.Errorf("sessions after logout-all.sh:\n%s", s)
	}
}

// virsh calls libvirt's storage driver.
func virsh(t *testing.T, args ...string) program {
	t.Helper()
	return run(t, nil, "", "virsh", append([]string{"-c", "storage:///system?socket=/run/libvirt/libvirt-sock"}, args...)...)
}

// startLibvirt starts libvirt with its storage driver alone, and with sys, if it
// is not empty, in place of /sys.
func startLibvirt(t *testing.T, h *lab.Host, sys string) {
	t.Helper()
	h.Shell(`
		mkdir -p /run/libvirt /var/log/libvirt /var/lib/libvirt /var/cache/libvirt
		cd /usr/lib/*/libvirt/connection-driver
		for f in *.so; do [ $f = libvirt_driver_storage.so ] || rm -f $f; done
		rm -f /run/libvirt/libvirt-sock`)
	conf := filepath.Join(h.Dir, "libvirtd.conf")
	h.WriteFile(conf, "listen_tls = 0\nunix_sock_group = \"root\"\nauth_unix_rw = \"none\"\n")
	line := []string{"/usr/sbin/libvirtd", "-f", conf}
	if sys != "" {
		line = inView(sys, line...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	log, err := os.Create(filepath.Join(h.Dir, "libvirtd.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("libvirtd:\n%s", b)
		}
	})
	h.Shell("for i in $(seq 600); do [ -S /run/libvirt/libvirt-sock ] && exit 0; sleep 0.1; done; exit 1")
}

func pool(p targets.PortalAddr, name, iqn string) string {
	return fmt.Sprintf(`<pool type='iscsi'><name>%s</name><source><host name='%s' port='%d'/><device path='%s'/></source>
		<target><path>/dev/disk/by-path</path></target></pool>`, name, p.Host, p.Port, iqn)
}

// TestLibvirt has libvirt find targets and log in and out of one. It takes the
// pool's disks from the kernel's SCSI tree, which an nbd device is not in: it
// says so, and logs out again. TestLibvirtPool is what helps.
func TestLibvirt(t *testing.T) {
	h, p := newMachine(t)
	startLibvirt(t, h, "")
	out := virsh(t, "find-storage-pool-sources-as", "iscsi", p.Host, strconv.Itoa(p.Port))
	if out.code != 0 || !strings.Contains(out.stdout, "<device path='"+guestTarget+"'/>") {
		t.Errorf("%s", out)
	}
	if r := h.Iscsiadm("-m", "node"); r.Code != 21 {
		t.Errorf("a look has left records behind:\n%s", r)
	}
	file := filepath.Join(h.Dir, "pool.xml")
	h.WriteFile(file, pool(p, "disks", guestTarget))
	out = virsh(t, "pool-create", file)
	const lacks = "/sys/class/iscsi_session/session"
	if out.code == 0 || !strings.Contains(out.stderr, lacks) {
		t.Errorf("want the one thing that is missing, %s: exit status %d\n%s", lacks, out.code, out)
	}
	if s := sessions(t, h); s != "" {
		t.Errorf("libvirt has not logged out:\n%s", s)
	}
	if record := h.Must("-m", "node"); !strings.Contains(record, guestTarget) {
		t.Errorf("no record of the target:\n%s", record)
	}
}

// TestLibvirtPool gives libvirt the view of /sys that iscsid keeps: the pool
// starts, has the disk for a volume, and stops.
func TestLibvirtPool(t *testing.T) {
	h, p := newMachine(t)
	view := compatSysfs(t, h)
	startLibvirt(t, h, view)
	file := filepath.Join(h.Dir, "pool.xml")
	h.WriteFile(file, pool(p, "disks", guestTarget))
	if out := virsh(t, "pool-create", file); out.code != 0 {
		t.Fatalf("%s", out)
	}
	out := virsh(t, "vol-list", "disks")
	if out.code != 0 || !strings.Contains(out.stdout, byPath(p)) {
		t.Errorf("volumes:\n%s", out)
	}
	if out := virsh(t, "pool-info", "disks"); !strings.Contains(out.stdout, "64.00 MiB") {
		t.Errorf("capacity:\n%s", out)
	}
	if out := virsh(t, "pool-destroy", "disks"); out.code != 0 || sessions(t, h) != "" {
		t.Errorf("%s\nsessions: %s", out, sessions(t, h))
	}
}
