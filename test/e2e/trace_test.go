//go:build integration

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/test/lab"
)

// TestTrace traces a session with CHAP and digests through I/O, a recovery and a
// logout with "iscsiadm --trace", and gives the file to Wireshark's dissector,
// which must not find anything wrong.
func TestTrace(t *testing.T) {
	creds := iscsitest.CHAP{Username: "user", Password: "secretsecret12", MutualUsername: "tgt", MutualPassword: "othersecret123"}
	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: memTarget, CHAP: creds, LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(8 << 20)}},
	}}})
	t.Cleanup(srv.Close)
	h := lab.NewPrefix(t)
	h.StartDaemon()
	h.Must("-m", "discovery", "-t", "st", "-p", srv.Portal())
	rec := []string{"-m", "node", "-T", memTarget, "-p", srv.Portal()}
	for name, value := range map[string]string{
		"node.session.auth.authmethod": "CHAP", "node.session.auth.username": creds.Username, "node.session.auth.password": creds.Password,
		"node.session.auth.username_in": creds.MutualUsername, "node.session.auth.password_in": creds.MutualPassword,
		"node.conn[0].iscsi.HeaderDigest": "CRC32C", "node.conn[0].iscsi.DataDigest": "CRC32C", "node.session.iscsi.DefaultTime2Wait": "0",
	} {
		h.Must(with(rec, "-o", "update", "-n", name, "-v", value)...)
	}
	h.Must(with(rec, "--login")...)
	file := filepath.Join(h.Dir, "trace.pcapng")
	random := randomFile(t, h, 1<<20)
	uri := "nbd+unix:///?socket=" + h.Socket()

	cmd := h.Command("iscsiadm", "-m", "session", "-r", "1", "--trace", file)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := false
	defer func() {
		if !waited {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	lab.Eventually(t, "the trace begins", func() bool {
		st, err := os.Stat(file)
		return err == nil && st.Size() > 0
	})
	h.Check(lab.Expect{Code: 28, Stderr: "iscsiadm: device or resource in use: session 1: the session is being traced already\n"},
		"-m", "session", "-r", "1", "--trace", filepath.Join(h.Dir, "second"))
	h.Shell("qemu-img convert -n -f raw -O raw " + random + " '" + uri + "'")
	srv.DropConnections()
	h.Shell("nbdcopy '" + uri + "' null:")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	waited = true
	if err != nil || stderr.Len() > 0 || !strings.HasSuffix(stdout.String(), " PDUs of session 1 written to "+file+"\n") {
		t.Fatalf("%v\nstdout %sstderr %s", err, &stdout, &stderr)
	}
	if _, err := os.Stat(filepath.Join(h.Dir, "second")); err == nil {
		t.Error("a trace that was refused made a file")
	}
	t.Log(stdout.String())

	p, err := initiator.ParsePortal(srv.Portal())
	if err != nil {
		t.Fatal(err)
	}
	read := fmt.Sprintf("tshark -n -r %s -d tcp.port==%d,iscsi ", file, p.Port)
	for _, opcode := range []string{"0x03", "0x23", "0x01", "0x21", "0x05", "0x25", "0x31"} {
		if h.Shell(read+"-Y 'iscsi.opcode == "+opcode+"' -T fields -e frame.number | head -n 1") == "" {
			t.Errorf("no PDU with opcode %s in the trace", opcode)
		}
	}
	if warned := h.Shell(read + "-Y '_ws.expert.severity >= 0x600000 || _ws.malformed' " +
		"-T fields -e frame.number -e _ws.col.Info -e _ws.expert.message | head -n 20"); warned != "" {
		t.Errorf("the dissector warns:\n%s", warned)
	}
	// The payload is whole.
	lengths := h.Shell(read + "-Y 'iscsi.opcode == 0x25' -T fields -e iscsi.datasegmentlength")
	total := 0
	for _, n := range strings.FieldsFunc(lengths, func(r rune) bool { return r == '\n' || r == ',' }) {
		var v int
		if _, err := fmt.Sscanf(n, "0x%x", &v); err != nil {
			if _, err := fmt.Sscanf(n, "%d", &v); err != nil {
				t.Fatalf("length %q", n)
			}
		}
		total += v
	}
	if total < 8<<20 {
		t.Errorf("%d bytes of Data-In, want the 8 MiB that were read", total)
	}
	keys := h.Shell(read + "-Y 'iscsi.keyvalue' -T fields -e iscsi.keyvalue")
	if n := strings.Count(keys, "CHAP_R=*"); n != 2 || strings.Count(keys, "CHAP_R=") != n {
		t.Errorf("%d masked responses, want two and no other:\n%s", n, keys)
	}
}
