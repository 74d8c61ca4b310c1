package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Names of the targets, the second with CRC32C digests where our iscsi-target
// is the target.
const (
	plainName  = "iqn.2026-11.com.example:bench"
	digestName = "iqn.2026-11.com.example:digest"
)

// units is how many logical units a target has, numbered from 1.
const units = 8

// unitSize is the size of a unit whose store keeps what is written, in bytes.
const unitSize = 256 << 20

// A target is a process that serves logical units 1 to units.
type target struct {
	kind   string
	proc   *process
	portal string
	stop   func()
	// span is how much of a unit is read and written, in bytes.
	span int64
}

// ownTarget starts our iscsi-target with a store that forgets.
func (b *bench) ownTarget() (*target, error) {
	args := []string{"-p", "127.0.0.1:0"}
	for _, name := range []string{plainName, digestName} {
		args = append(args, "-T", name)
		for range units {
			args = append(args, "--null", "8G")
		}
	}
	p, err := start(b.command(filepath.Join(b.bin, "iscsi-target"), args...))
	if err != nil {
		return nil, err
	}
	t := &target{kind: "iscsi-target, null store", proc: p, stop: p.stop, span: 4 << 30}
	err = p.await(func() error {
		for line := range strings.Lines(p.output.String()) {
			if addr, ok := strings.CutPrefix(line, "listening on "); ok && strings.HasSuffix(addr, "\n") {
				t.portal = strings.TrimSpace(addr)
				return nil
			}
		}
		return fmt.Errorf("no line that says so")
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return t, nil
}

// tgtTarget starts tgt with a store that forgets or, with memory set, one of
// files in memory.
func (b *bench) tgtTarget(memory bool) (*target, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll("/var/run/tgtd", 0o755); err != nil {
		return nil, err
	}
	// tgtd and tgtadm meet on a socket named by a number of at most 32767, 0
	// being the machine's own tgtd.
	control := strconv.Itoa(port%32767 + 1)
	portal := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := start(b.command("tgtd", "-f", "-C", control, "--iscsi", "portal="+portal))
	if err != nil {
		return nil, err
	}
	t := &target{kind: "tgt, null store", proc: p, portal: portal, span: 4 << 30}
	var files []string
	t.stop = func() {
		p.kill() // its own shutdown waits for its initiators
		for _, f := range append(files, "/var/run/tgtd/socket."+control, "/var/run/tgtd/socket."+control+".lock") {
			os.Remove(f)
		}
	}
	adm := func(args ...string) error {
		_, err := output(b.command("tgtadm", append([]string{"-C", control, "--lld", "iscsi"}, args...)...))
		return err
	}
	setUp := func() error {
		if err := p.await(func() error { return adm("--op", "show", "--mode", "portal") }); err != nil {
			return err
		}
		if err := adm("--op", "new", "--mode", "target", "--tid", "1", "-T", plainName); err != nil {
			return err
		}
		for i := 1; i <= units; i++ {
			store := []string{"--bstype", "null", "-b", "null"}
			if memory {
				file, err := memoryFile(unitSize)
				if err != nil {
					return err
				}
				files = append(files, file)
				store = []string{"-b", file}
			}
			args := append([]string{"--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", strconv.Itoa(i)}, store...)
			if err := adm(args...); err != nil {
				return err
			}
		}
		return adm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
	}
	if memory {
		t.kind, t.span = "tgt, memory", unitSize
	}
	if err := setUp(); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// memoryFile makes a file of size bytes in a tmpfs. It takes memory as it is
// written.
func memoryFile(size int64) (string, error) {
	f, err := os.CreateTemp("/dev/shm", "bench-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	return f.Name(), f.Truncate(size)
}

// url names a unit of the target as libiscsi has it.
func (t *target) url(name string, lun int) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", t.portal, name, lun)
}
