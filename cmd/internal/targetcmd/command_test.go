package targetcmd_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/cmd/internal/targetcmd"
	"github.com/goiscsi/goiscsi/internal/version"
	"github.com/goiscsi/goiscsi/pdu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the program until stop is called, which returns its exit status
// and what it wrote to standard error. addrs are where it listens.
func start(t *testing.T, args ...string) (addrs []string, stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- targetcmd.Main(ctx, append([]string{"iscsi-target"}, args...), w, &stderr)
		w.Close()
	}()
	portals := max(1, strings.Count(strings.Join(args, " "), "-p "))
	lines := bufio.NewScanner(r)
	for len(addrs) < portals {
		if !lines.Scan() {
			cancel()
			t.Fatalf("status %d, %s", <-done, stderr.String())
		}
		addr, ok := strings.CutPrefix(lines.Text(), "listening on ")
		if !ok {
			t.Fatalf("line %q", lines.Text())
		}
		addrs = append(addrs, addr)
	}
	stopped := false
	stop = func() (int, string) {
		if stopped {
			return 0, ""
		}
		stopped = true
		cancel()
		_, _ = io.Copy(io.Discard, r)
		return <-done, stderr.String()
	}
	t.Cleanup(func() { stop() })
	return addrs, stop
}

// discover returns the text of SendTargets=All.
func discover(t *testing.T, addr string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	w, r := pdu.NewWriter(nc), pdu.NewReader(nc, 0)
	exchange := func(p pdu.PDU) []byte {
		t.Helper()
		if err := w.Append(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		data, err := r.Data()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	exchange(&pdu.LoginRequest{
		Transit: true, CurrentStage: pdu.StageOperational, NextStage: pdu.StageFullFeature, ISID: [6]byte{0x80},
		Data: []byte("InitiatorName=iqn.2001-04.com.example:host\x00SessionType=Discovery\x00"),
	})
	return strings.ReplaceAll(string(exchange(&pdu.TextRequest{
		Final: true, TargetTransferTag: pdu.ReservedTag, ExpStatSN: 1, Data: []byte("SendTargets=All\x00"),
	})), "\x00", "\n")
}

func TestServesTargetsOnAllPortals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk,1")
	addrs, stop := start(t, "-p", "127.0.0.1:0", "-p", "[::1]:0",
		"-T", "iqn.2001-04.com.example:a", "-mem", "1M", "-T", "iqn.2001-04.com.example:b", "-tpgt", "3", "-file", file+",2M")
	want := "TargetName=iqn.2001-04.com.example:a\nTargetAddress=" + addrs[0] + ",1\nTargetAddress=" + addrs[1] + ",1\n" +
		"TargetName=iqn.2001-04.com.example:b\nTargetAddress=" + addrs[0] + ",3\nTargetAddress=" + addrs[1] + ",3\n"
	if got := discover(t, addrs[1]); got != want {
		t.Errorf("discovered\n%swant\n%s", got, want)
	}
	if status, stderr := stop(); status != 0 || stderr != "" {
		t.Errorf("status %d, %q", status, stderr)
	}
	if fi, err := os.Stat(file); err != nil || fi.Size() != 2<<20 {
		t.Errorf("file: %v, %v", fi, err)
	}
}

func TestStrictReportsViolations(t *testing.T) {
	addrs, stop := start(t, "-p", "127.0.0.1:0", "-mem", "1M", "-strict")
	nc, err := net.Dial("tcp", addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(make([]byte, pdu.BHSLen)); err != nil { // a NOP-Out before login
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, nc); err != nil { // until the target ends it
		t.Fatal(err)
	}
	if status, stderr := stop(); status != 3 || !strings.Contains(stderr, "before the login") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

func TestErrorsAreOneClearLine(t *testing.T) {
	t.Setenv("ISCSI_TARGET_PASSWORD", "")
	dir := t.TempDir()
	tests := []struct {
		args   string
		status int
		want   string
	}{
		{"", 1, "no unit: use -file, -mem or -null"},
		{"-mem 1M extra", 2, `unexpected argument "extra"`},
		{"-bogus", 2, "-bogus"},
		{"-mem 1X", 1, `-mem: "1X" is not a size`},
		{"-mem -5", 1, "is not a size"},
		{"-mem 99999999999G", 1, "is not a size"},
		{"-T bad/name -mem 1M", 2, "bad/name"},
		{"-T a -mem 1M -T a -mem 1M", 1, "twice"},
		{"-file " + dir + "/none", 1, "no such file"},
		{"-user u -mem 1M", 1, "ISCSI_TARGET_PASSWORD"},
		{"-user u -password-file " + dir + "/none -mem 1M", 1, "no such file"},
		{"-mutual-user u -mem 1M", 1, "need -user"},
		{"-blocksize 100 -mem 1M", 1, "power of two"},
		{"-blocksize x -mem 1M", 2, "not a number"},
		{"-tpgt 0 -mem 1M", 2, "from 1 to 65535"},
		{"-readonly=maybe -mem 1M", 2, "neither true nor false"},
		{"-max-burst 10 -mem 1M", 1, "MaxBurstLength 10"},
		{"-header-digest md5 -mem 1M", 2, "md5"},
		{"-p 192.0.2.1:1 -mem 1M", 1, "192.0.2.1:1"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append([]string{"iscsi-target"}, strings.Fields(tt.args)...)
			status := targetcmd.Main(context.Background(), args, &stdout, &stderr)
			if status != tt.status || !strings.Contains(stderr.String(), tt.want) || strings.Count(stderr.String(), "\n") != 1 {
				t.Errorf("status %d, %q; want %d and %q", status, stderr.String(), tt.status, tt.want)
			}
			if stdout.Len() != 0 {
				t.Errorf("standard output %q", stdout.String())
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for arg, want := range map[string]string{"-help": "-mutual-password-file FILE", "-version": version.Version} {
		var stdout, stderr bytes.Buffer
		if status := targetcmd.Main(context.Background(), []string{"iscsi-target", arg}, &stdout, &stderr); status != 0 ||
			!strings.Contains(stdout.String(), want) || stderr.Len() != 0 {
			t.Errorf("%s: status %d\n%s%s", arg, status, stdout.String(), stderr.String())
		}
	}
}
