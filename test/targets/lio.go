package targets

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// LIO is the kernel's target, set up through configfs alone. It belongs to
// the whole machine, so it is for guests; one test at a time.
type LIO struct {
	t    testing.TB
	root string // configfs's target directory
	undo []func() error
}

// StartLIO loads the kernel's target and serves the targets on the portals.
// A LUN's backing is a file. The test must be root on a machine of its own.
func StartLIO(t testing.TB, portals []PortalAddr, tgts ...Target) *LIO {
	t.Helper()
	const config = "/sys/kernel/config"
	_ = exec.Command("modprobe", "configfs").Run() // built in on most kernels
	if _, err := os.Stat(config + "/target"); err != nil {
		_ = exec.Command("mount", "-t", "configfs", "configfs", config).Run()
	}
	// LIO keeps reservations in files and complains where it cannot.
	_ = os.MkdirAll("/var/target/pr", 0o700)
	_ = os.MkdirAll("/etc/target/pr", 0o700)
	for _, m := range []string{"target_core_mod", "target_core_file", "iscsi_target_mod"} {
		if out, err := exec.Command("modprobe", m).CombinedOutput(); err != nil {
			t.Fatalf("modprobe %s: %v\n%s", m, err, out)
		}
	}
	l := &LIO{t: t, root: config + "/target"}
	t.Cleanup(l.Stop)
	l.mkdir("iscsi", false)
	for i, tgt := range tgts {
		l.serve(i, tgt, portals)
	}
	return l
}

func (l *LIO) serve(index int, tgt Target, portals []PortalAddr) {
	l.t.Helper()
	l.mkdir("iscsi/"+tgt.Name, true)
	tpg := "iscsi/" + tgt.Name + "/tpgt_1"
	l.mkdir(tpg, true)
	for _, lun := range tgt.LUNs {
		hba := fmt.Sprintf("core/fileio_%d", index*100+lun.Number)
		dev := hba + "/disk"
		l.mkdir(hba, true)
		l.mkdir(dev, true)
		st, err := os.Stat(lun.Path)
		if err != nil {
			l.t.Fatal(err)
		}
		l.write(dev+"/control", fmt.Sprintf("fd_dev_name=%s,fd_dev_size=%d", lun.Path, st.Size()))
		l.write(dev+"/enable", "1")
		if lun.BlockSize != 0 {
			l.write(dev+"/attrib/block_size", strconv.Itoa(lun.BlockSize))
		}
		l.write(dev+"/wwn/vpd_unit_serial", fmt.Sprintf("lio-%d-%d", index, lun.Number))
		at := fmt.Sprintf("%s/lun/lun_%d", tpg, lun.Number)
		l.mkdir(at, true)
		l.link(filepath.Join(l.root, dev), at+"/backing")
		if lun.ReadOnly {
			l.write(tpg+"/attrib/demo_mode_write_protect", "1")
		}
	}
	if len(tgt.LUNs) == 0 || !tgt.LUNs[0].ReadOnly {
		l.write(tpg+"/attrib/demo_mode_write_protect", "0")
	}
	l.write(tpg+"/attrib/generate_node_acls", "1")
	l.write(tpg+"/attrib/cache_dynamic_acls", "1")
	l.write(tpg+"/attrib/authentication", "0")
	if tgt.Incoming != nil {
		l.write(tpg+"/attrib/authentication", "1")
		l.write(tpg+"/auth/userid", tgt.Incoming.Username)
		l.write(tpg+"/auth/password", tgt.Incoming.Password)
	}
	if tgt.Outgoing != nil {
		l.write(tpg+"/auth/userid_mutual", tgt.Outgoing.Username)
		l.write(tpg+"/auth/password_mutual", tgt.Outgoing.Password)
	}
	for _, p := range portals {
		l.mkdir(tpg+"/np/"+p.String(), true)
	}
	l.Enable(tgt.Name, true)
	l.undo = append(l.undo, func() error { return os.WriteFile(filepath.Join(l.root, tpg, "enable"), []byte("0"), 0) })
}

// Enable makes the target answer logins or stop answering them; a disabled
// target drops its sessions.
func (l *LIO) Enable(name string, on bool) {
	l.t.Helper()
	v := "0"
	if on {
		v = "1"
	}
	l.write("iscsi/"+name+"/tpgt_1/enable", v)
}

// Param sets what the target negotiates: a key of RFC 7143 and its value.
func (l *LIO) Param(name, key, value string) {
	l.t.Helper()
	l.write("iscsi/"+name+"/tpgt_1/param/"+key, value)
}

// Attrib sets an attribute of a LUN of the first target, such as emulate_tpu.
func (l *LIO) Attrib(lun int, name, value string) {
	l.t.Helper()
	l.write(fmt.Sprintf("core/fileio_%d/disk/attrib/%s", lun, name), value)
}

// RecoveryLevel sets the highest ErrorRecoveryLevel that the target agrees to. It
// is no parameter: an attribute of the initiator's node overrides that.
func (l *LIO) RecoveryLevel(name string, level int) {
	l.t.Helper()
	l.write("iscsi/"+name+"/tpgt_1/attrib/default_erl", strconv.Itoa(level))
}

// Sessions returns what the kernel says of the target's dynamic sessions.
func (l *LIO) Sessions(name string) string {
	b, _ := os.ReadFile(filepath.Join(l.root, "iscsi", name, "tpgt_1", "dynamic_sessions"))
	return strings.Trim(string(b), "\x00\n")
}

// Stop takes everything apart again, last made first.
func (l *LIO) Stop() {
	var errs []error
	for len(l.undo) > 0 {
		last := len(l.undo) - 1
		errs = append(errs, l.undo[last]())
		l.undo = l.undo[:last]
	}
	if err := errors.Join(errs...); err != nil {
		l.t.Errorf("taking LIO apart: %v", err)
	}
}

func (l *LIO) mkdir(name string, remove bool) {
	l.t.Helper()
	path := filepath.Join(l.root, name)
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, os.ErrExist) && !remove {
		return
	}
	if err != nil {
		l.t.Fatal(err)
	}
	if remove {
		l.undo = append(l.undo, func() error { return os.Remove(path) })
	}
}

func (l *LIO) link(oldname, name string) {
	l.t.Helper()
	path := filepath.Join(l.root, name)
	if err := os.Symlink(oldname, path); err != nil {
		l.t.Fatal(err)
	}
	l.undo = append(l.undo, func() error { return os.Remove(path) })
}

// write sets one attribute. Configfs takes a value in one write only.
func (l *LIO) write(name, value string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.root, name), []byte(value), 0); err != nil {
		l.t.Fatal(err)
	}
}
