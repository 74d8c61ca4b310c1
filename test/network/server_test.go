//go:build guest

package network

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// startISNS starts Open-iSNS's server with two targets registered, and
// returns when it answers.
func startISNS(t *testing.T, h *lab.Host) {
	t.Helper()
	server, client := filepath.Join(h.Dir, "isnsd.conf"), filepath.Join(h.Dir, "isnsadm.conf")
	h.WriteFile(server, "Database = "+filepath.Join(h.Dir, "isns")+"\nSecurity = 0\nDefaultDiscoveryDomain = 1\nBindAddress = 127.0.0.1\n")
	h.WriteFile(client, "Security = 0\nServerAddress = 127.0.0.1\nSourceName = iqn.2026-11.com.example:registrar\n")
	var output bytes.Buffer
	cmd := exec.Command("isnsd", "-f", "-c", server)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}) // closed when the process has ended
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	deadline := time.After(20 * time.Second)
	register := func() error {
		return exec.Command("isnsadm", "-c", client, "--register", "entity=lab",
			"target="+target, "target="+target+"2", "portal=127.0.0.1:3260").Run()
	}
	for register() != nil {
		select {
		case <-done:
			t.Fatalf("isnsd ended: %s", output.String())
		case <-deadline:
			t.Fatal("isnsd does not take registrations")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestISNS asks Open-iSNS's server for targets, by both discovery modes, and
// logs in to what it tells.
func TestISNS(t *testing.T) {
	h := lab.NewMachine(t)
	lun := []targets.LUN{{Number: 1, Path: targets.SparseFile(t, 16<<20)}}
	targets.StartTGT(t, 3260, nil, targets.Target{Name: target, LUNs: lun})
	h.StartDaemon()
	r := h.Iscsiadm("-m", "discovery", "-t", "isns", "-p", "127.0.0.1")
	if r.Code == 0 {
		t.Errorf("nobody listens, and yet\n%s", r)
	}
	startISNS(t, h)
	const both = "127.0.0.1:3260,1 " + target + "\n127.0.0.1:3260,1 " + target + "2\n"
	h.Check(lab.Expect{Stdout: both}, "-m", "discovery", "-t", "isns", "-p", "127.0.0.1")
	h.Check(lab.Expect{Stdout: both}, "-m", "node")
	if record := h.Must("-m", "node", "-T", target); !strings.Contains(record, "\nnode.discovery_type = isns\n") ||
		!strings.Contains(record, "\nnode.discovery_port = 3205\n") {
		t.Errorf("the record is\n%s", record)
	}
	h.Must("-m", "node", "-T", target, "-l")
	h.Must("-m", "node", "-T", target, "-u")

	h.Must("-m", "discoverydb", "-t", "isns", "-p", "127.0.0.1:3205", "-o", "new")
	h.Check(lab.Expect{Stdout: both}, "-m", "discoverydb", "-t", "isns", "-p", "127.0.0.1:3205", "-D")
	h.Check(lab.Expect{Stdout: "127.0.0.1:3205 via isns\n"}, "-m", "discoverydb")
	h.Must("-m", "discoverydb", "-t", "isns", "-p", "127.0.0.1:3205", "-o", "delete")
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No records found\n"}, "-m", "node")
}

// TestDiscoveryWithCHAP asks the kernel's target, which tells its targets only
// to who has the password, the password being in a file.
func TestDiscoveryWithCHAP(t *testing.T) {
	h := lab.NewMachine(t)
	lun := []targets.LUN{{Number: 0, Path: targets.SparseFile(t, 16<<20)}}
	targets.StartLIO(t, []targets.PortalAddr{{Host: "127.0.0.1", Port: 3260}}, targets.Target{Name: target, LUNs: lun})
	const auth = "/sys/kernel/config/target/iscsi/discovery_auth/"
	for _, kv := range [][2]string{{"userid", "disco"}, {"password", "discoverypass"}, {"enforce_discovery_auth", "1"}} {
		if err := os.WriteFile(auth+kv[0], []byte(kv[1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := h.Iscsiadm("-m", "discovery", "-t", "st", "-p", "127.0.0.1")
	if r.Code != 24 || r.Stdout != "" {
		t.Errorf("without a password: exit status %d, want 24\n%s", r.Code, r)
	}
	const field = "discovery.sendtargets.auth."
	db := []string{"-m", "discoverydb", "-t", "st", "-p", "127.0.0.1"}
	with := func(args ...string) []string { return append(db[:len(db):len(db)], args...) }
	secret := filepath.Join(h.Dir, "secret")
	h.WriteFile(secret, "wrongpassword\n")
	h.Must(with("-o", "new")...)
	h.Must(with("-o", "update", "-n", field+"authmethod", "-v", "CHAP", "-n", field+"username", "-v", "disco")...)
	h.Must(with("-o", "update", "-n", field+"password", "-v", "@"+secret)...)
	if r := h.Iscsiadm(with("-D")...); r.Code != 24 || strings.Contains(r.String(), "wrongpassword") {
		t.Errorf("with a wrong password: exit status %d, want 24\n%s", r.Code, r)
	}
	h.WriteFile(secret, "discoverypass\n")
	h.Must(with("-o", "update", "-n", field+"password", "-v", "@"+secret)...)
	h.Check(lab.Expect{Stdout: "127.0.0.1:3260,1 " + target + "\n"}, with("-D")...)
}
