//go:build integration

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// freeAddress returns a loopback address that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestMetrics reads a disk of tgt and finds what was read in the metrics, at
// the configured address and on the control socket.
func TestMetrics(t *testing.T) {
	at := freeAddress(t)
	h, tgt := discovered(t, "iscsid.metrics_address = "+at)
	h.Must(node(openTarget, tgt, "--login")...)
	h.Shell("nbdcopy 'nbd+unix:///?socket=" + h.Socket() + "' null:")

	resp, err := http.Get("http://" + at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %s, %v\n%s", resp.Status, err, b)
	}
	value := func(page, name, labels string) float64 {
		t.Helper()
		m := regexp.MustCompile(`(?m)^` + name + `\{` + labels + `\} (\S+)$`).FindStringSubmatch(page)
		if m == nil {
			t.Fatalf("no %s{%s} in\n%s", name, labels, page)
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	target := regexp.QuoteMeta(openTarget)
	read := fmt.Sprintf(`device="",lun="1",op="read",sid="1",target="%s"`, target)
	size := value(string(b), "iscsi_lun_size_bytes", fmt.Sprintf(`lun="1",sid="1",target="%s"`, target))
	if got := value(string(b), "iscsi_lun_request_bytes_total", read); got < size || size == 0 {
		t.Errorf("%v bytes read of a disk of %v", got, size)
	}
	if value(string(b), "iscsi_lun_request_duration_seconds_count", read) < 1 || value(string(b), "iscsi_lun_request_duration_seconds_sum", read) <= 0 {
		t.Error("reads took no time")
	}
	if value(string(b), "iscsi_session_up", fmt.Sprintf(`sid="1",target="%s"`, target)) != 1 {
		t.Error("the session is not up")
	}

	socket := h.Shell("curl -sS --unix-socket " + h.Paths.ControlSocket() + " http://iscsid/metrics")
	if got, want := value(socket, "iscsi_lun_request_bytes_total", read), value(string(b), "iscsi_lun_request_bytes_total", read); got != want {
		t.Errorf("the control socket says %v bytes, the address %v", got, want)
	}
	if strings.Contains(socket, incoming.Password) {
		t.Error("a password is shown")
	}
}
