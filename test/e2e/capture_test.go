//go:build integration

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCapture lets Wireshark's dissector read a whole session: discovery,
// login with CHAP, I/O in both directions, logout. It must find nothing to
// warn about, and must have seen the kinds of PDU that it was meant to see.
func TestCapture(t *testing.T) {
	h, tgt := discovered(t)
	update(h, chapTarget, tgt, "node.session.auth.authmethod", "CHAP",
		"node.session.auth.username", incoming.Username, "node.session.auth.password", incoming.Password)
	random := randomFile(t, h, 1<<20)
	file := filepath.Join(h.Dir, "session.pcapng")
	read := fmt.Sprintf("tshark -n -r %s -d tcp.port==%d,iscsi ", file, tgt.Port())
	session := func() {
		stop := capture(t, file, tgt.Port())
		defer stop()
		h.Must("-m", "discovery", "-t", "st", "-p", tgt.Portal().String(), "-o", "nonpersistent")
		h.Must(node(chapTarget, tgt, "--login")...)
		uri := "nbd+unix:///?socket=" + h.Socket()
		h.Shell("qemu-img convert -n -f raw -O raw " + random + " '" + uri + "' && nbdcopy '" + uri + "' null:")
		h.Must(node(chapTarget, tgt, "--logout")...)
	}
	// A busy machine may drop packets of the capture, and a stream with holes
	// says nothing of what was sent.
	for attempt := 1; ; attempt++ {
		session()
		holes := h.Shell(read + "-Y 'tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment' -T fields -e frame.number | head -n 1")
		if holes == "" {
			break
		}
		if attempt == 5 {
			t.Fatal("packets are missing in five captures")
		}
		t.Logf("capture %d lacks packets", attempt)
	}

	for _, opcode := range []struct{ number, name string }{
		{"0x03", "Login Request"},
		{"0x23", "Login Response"},
		{"0x04", "Text Request"},
		{"0x24", "Text Response"},
		{"0x01", "SCSI Command"},
		{"0x21", "SCSI Response"},
		{"0x05", "Data-Out"},
		{"0x25", "Data-In"},
		{"0x31", "R2T"},
		{"0x06", "Logout Request"},
		{"0x26", "Logout Response"},
	} {
		if h.Shell(read+"-c 100000 -Y 'iscsi.opcode == "+opcode.number+"' -T fields -e frame.number | head -n 1") == "" {
			t.Errorf("no %s in the capture", opcode.name)
		}
	}
	// 0x600000 is the severity "warning". What is said of TCP alone is the
	// kernel's: a segment sent twice, a window that was full.
	warned := h.Shell(read + "-Y '(iscsi && _ws.expert.severity >= 0x600000 && !tcp.analysis.flags && !tcp.options.sack.dsack) || _ws.malformed' " +
		"-T fields -e frame.number -e _ws.col.Info -e _ws.expert.message | head -n 20")
	if warned != "" {
		t.Errorf("the dissector warns:\n%s", warned)
	}
}

// capture starts tshark on the loopback device and returns when it captures;
// the returned function ends it.
func capture(t *testing.T, file string, port int) func() {
	t.Helper()
	cmd := exec.Command("tshark", "-q", "-i", "lo", "-w", file, "-B", "64", "-f", fmt.Sprintf("tcp port %d", port))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = cmd.Process.Signal(syscall.SIGINT)
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	lines := bufio.NewReader(stderr)
	for said := ""; ; {
		line, err := lines.ReadString('\n')
		if said += line; strings.Contains(line, "Capture started") {
			break
		}
		if err != nil {
			t.Fatalf("tshark: %s", said)
		}
	}
	go io.Copy(io.Discard, lines) //nolint:errcheck // ends with tshark
	return end
}
