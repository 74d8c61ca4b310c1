package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A daemon is our iscsid in a prefix of its own, logged in to targets whose
// units it serves on unix sockets.
type daemon struct {
	b    *bench
	bin  string // directory of its programs
	proc *process
	root string
}

func (b *bench) daemon() (*daemon, error) { return b.daemonOf(b.bin, "initiator") }

// daemonOf starts the iscsid in a directory. One that shares a target with another
// needs a name of its own, else each would end the other's sessions.
func (b *bench) daemonOf(bin, name string) (*daemon, error) {
	root, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, err
	}
	d := &daemon{b: b, bin: bin, root: root}
	files := map[string]string{
		"etc/iscsi/iscsid.conf":         "node.session.attach = socket\n",
		"etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.2026-11.com.example:" + name + "\n",
		"var/lib/iscsi/.keep":           "",
		"run/.keep":                     "",
		"dev/.keep":                     "",
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if d.proc, err = start(d.command("iscsid", "-f")); err != nil {
		return nil, err
	}
	if err := d.proc.await(func() error {
		c, err := net.Dial("unix", filepath.Join(root, "run/iscsid/control.sock"))
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		d.proc.stop()
		return nil, err
	}
	return d, nil
}

// command makes a command of ours that works in the prefix.
func (d *daemon) command(name string, args ...string) *exec.Cmd {
	cmd := d.b.command(filepath.Join(d.bin, name), args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "ISCSI_") { // the machine's own settings
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "ISCSI_ROOT="+d.root)
	return cmd
}

func (d *daemon) iscsiadm(args ...string) (string, error) {
	return output(d.command("iscsiadm", args...))
}

// discover makes records of what a target's portal offers.
func (d *daemon) discover(t *target) error {
	_, err := d.iscsiadm("-m", "discovery", "-t", "sendtargets", "-p", t.portal)
	return err
}

// login logs in to a target after changing settings of its record, each
// "name=value", and returns the sockets of its units.
func (d *daemon) login(t *target, name string, settings ...string) ([]string, error) {
	node := []string{"-m", "node", "-T", name, "-p", t.portal}
	for _, s := range settings {
		field, value, _ := strings.Cut(s, "=")
		if _, err := d.iscsiadm(append(node, "-o", "update", "-n", field, "-v", value)...); err != nil {
			return nil, err
		}
	}
	if _, err := d.iscsiadm(append(node, "--login")...); err != nil {
		return nil, err
	}
	var sockets []string
	for lun := 1; lun <= units; lun++ {
		link := fmt.Sprintf("run/iscsid/luns/ip-%s-iscsi-%s-lun-%d.sock", t.portal, name, lun)
		socket, err := filepath.EvalSymlinks(filepath.Join(d.root, link)) // the link's name is too long for connect
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, socket)
	}
	return sockets, nil
}

// crc32c are the settings for both digests.
var crc32c = []string{"node.conn[0].iscsi.HeaderDigest=CRC32C", "node.conn[0].iscsi.DataDigest=CRC32C"}

// qemuNBD serves a unit by qemu-nbd on a unix socket.
func (b *bench) qemuNBD(url string) (*process, string, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, "", err
	}
	socket := filepath.Join(dir, "s")
	p, err := start(b.command("qemu-nbd", "-t", "-e", "8", "-f", "raw", "--cache=none", "-k", socket, url))
	if err != nil {
		return nil, "", err
	}
	if err := p.await(func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		p.stop()
		return nil, "", err
	}
	return p, socket, nil
}
