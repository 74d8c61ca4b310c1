package iscsiadm_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestSlowPackagesStayOut: a command that lives for a few milliseconds must not
// initialise what only the daemon needs.
func TestSlowPackagesStayOut(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, slow := range []string{"github.com/prometheus/", "github.com/gopacket/", "google.golang.org/protobuf"} {
			if strings.HasPrefix(dep, slow) {
				t.Errorf("iscsiadm imports %s", dep)
			}
		}
	}
}
