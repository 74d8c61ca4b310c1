package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// attachedDisk is the line of "-m session -P 3" that names a LUN's device.
var attachedDisk = regexp.MustCompile(`Lun: (\d+)\n\t*Attached scsi disk (\S+)\t`)

// Disk returns the path of the block device that "-m session -P 3" shows for
// a target's LUN. The test ends when there is none.
func (h *Host) Disk(target, lun string) string {
	h.t.Helper()
	out := h.Must("-m", "session", "-P", "3")
	for _, section := range strings.Split(out, "Target: ") {
		if !strings.HasPrefix(section, target+" ") {
			continue
		}
		for _, m := range attachedDisk.FindAllStringSubmatch(section, -1) {
			if m[1] == lun {
				return "/dev/" + m[2]
			}
		}
	}
	h.t.Fatalf("no disk for LUN %s of %s in\n%s", lun, target, out)
	return ""
}

// SID returns the id of a target's only session.
func (h *Host) SID(target string) string {
	h.t.Helper()
	out := h.Must("-m", "session")
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == target {
			return strings.Trim(f[1], "[]")
		}
	}
	h.t.Fatalf("no session with %s in\n%s", target, out)
	return ""
}

// Socket returns the unix socket on which a target's only disk is served.
func (h *Host) Socket() string {
	h.t.Helper()
	all := h.Sockets()
	if len(all) != 1 {
		h.t.Fatalf("want one socket below %s, have %q", h.Paths.LUNDir(), all)
	}
	return all[0]
}

// Sockets returns all sockets on which LUNs are served.
func (h *Host) Sockets() []string {
	h.t.Helper()
	var found []string
	err := filepath.WalkDir(h.Paths.LUNDir(), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}
		if d.Type()&os.ModeSocket != 0 {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

// Shell runs a line of shell and returns its standard output without the last
// newline; the test ends when it fails.
func (h *Host) Shell(line string) string {
	h.t.Helper()
	cmd := exec.Command("/bin/sh", "-ec", line)
	cmd.Dir = h.Dir // where a program's droppings do no harm
	cmd.Env = append(os.Environ(), h.env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("%s\n%v\n%s%s", line, err, out, stderr.String())
	}
	return strings.TrimRight(string(out), "\n")
}
