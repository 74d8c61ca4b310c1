//go:build integration

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// export logs in to the open target and returns the URI of its LUN.
func export(t *testing.T) (h *lab.Host, uri string) {
	t.Helper()
	h, tgt := discovered(t)
	h.Must(node(openTarget, tgt, "--login")...)
	return h, "nbd+unix:///?socket=" + h.Socket()
}

// randomFile makes a file that no LUN holds by accident.
func randomFile(t *testing.T, h *lab.Host, size int) string {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.Read(b) // never fails
	path := filepath.Join(h.Dir, "random")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExportNBDInfo shows the LUN's size and abilities to libnbd.
func TestExportNBDInfo(t *testing.T) {
	h, uri := export(t)
	out := h.Shell("nbdinfo --json '" + uri + "'")
	var info struct {
		Protocol string
		Exports  []struct {
			Size      int64  `json:"export-size"`
			ReadOnly  bool   `json:"is_read_only"`
			CanFlush  bool   `json:"can_flush"`
			BlockSize int    `json:"block_size_minimum"`
			Name      string `json:"export-name"`
		}
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if info.Protocol != "newstyle-fixed" || len(info.Exports) != 1 {
		t.Fatalf("nbdinfo shows\n%s", out)
	}
	e := info.Exports[0]
	if e.Size != diskSize || e.ReadOnly || !e.CanFlush {
		t.Errorf("nbdinfo shows\n%s", out)
	}
	if list := h.Shell("nbdinfo --list '" + uri + "'"); !strings.Contains(list, "export=") {
		t.Errorf("nbdinfo --list shows\n%s", list)
	}
}

// TestExportNBDCopy takes a file there and back by nbdcopy, which keeps many
// requests in flight on several connections.
func TestExportNBDCopy(t *testing.T) {
	h, uri := export(t)
	file := randomFile(t, h, diskSize)
	h.Shell("nbdcopy --flush " + file + " '" + uri + "'")
	h.Shell("nbdcopy '" + uri + "' " + h.Dir + "/back && cmp " + file + " " + h.Dir + "/back")
}

// TestExportQEMU lets qemu-img look at, write to and compare with the LUN.
func TestExportQEMU(t *testing.T) {
	h, uri := export(t)
	file := randomFile(t, h, diskSize)
	info := h.Shell("qemu-img info --output=json '" + uri + "'")
	if !strings.Contains(info, `"virtual-size": 67108864`) {
		t.Errorf("qemu-img info shows\n%s", info)
	}
	h.Shell("qemu-img convert -n -f raw -O raw " + file + " '" + uri + "'")
	h.Shell("qemu-img compare -f raw -F raw " + file + " '" + uri + "'")
	// And a disk format of qemu's own, with its many small writes.
	h.Shell("qemu-img convert -f raw -O qcow2 '" + uri + "' " + h.Dir + "/copy.qcow2 && qemu-img compare -f raw -F qcow2 '" + uri + "' " + h.Dir + "/copy.qcow2")
}

// TestExportFIO writes with fio's verification on, at a depth, in sizes from
// one sector to more than one command of the target may move.
func TestExportFIO(t *testing.T) {
	h, uri := export(t)
	for _, bs := range []string{"512", "4k", "64k", "1m", "512-256k"} {
		flag := "--bs=" + bs
		if strings.Contains(bs, "-") {
			flag = "--bsrange=" + bs
		}
		h.Shell("fio --name=verify --ioengine=nbd '--uri=" + uri + "' --rw=randwrite " + flag +
			" --iodepth=32 --size=8m --verify=crc32c --do_verify=1 --verify_fatal=1 --output=" + h.Dir + "/fio.log" +
			" || { cat " + h.Dir + "/fio.log >&2; exit 1; }")
	}
}

// TestExportHasGoneAfterLogout wants a client that is still connected to be
// told, and nothing to be left to connect to.
func TestExportHasGoneAfterLogout(t *testing.T) {
	h, tgt := discovered(t)
	h.Must(node(openTarget, tgt, "--login")...)
	socket := h.Socket()
	h.Must(node(openTarget, tgt, "--logout")...)
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", socket, err)
	}
}

// TestReadOnlyLUN is exported as what it is.
func TestReadOnlyLUN(t *testing.T) {
	tgt := targets.StartTGT(t, 0, nil, targets.Target{
		Name: openTarget,
		LUNs: []targets.LUN{{Number: 1, Path: targets.SparseFile(t, diskSize), ReadOnly: true}},
	})
	h := lab.NewPrefix(t)
	h.StartDaemon()
	h.Must("-m", "discovery", "-t", "st", "-p", tgt.Portal().String())
	h.Must(node(openTarget, tgt, "-l")...)
	out := h.Shell("nbdinfo --json 'nbd+unix:///?socket=" + h.Socket() + "'")
	if !strings.Contains(out, `"is_read_only": true`) {
		t.Errorf("nbdinfo shows\n%s", out)
	}
}
