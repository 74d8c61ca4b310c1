//go:build guest

package faults

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// kernelLog remembers how much the kernel has said so far. What it returns looks
// for a pattern in what came since: the tests before have their errors, too.
func kernelLog(t *testing.T) (since func(pattern string) string) {
	t.Helper()
	lines := func() []string {
		t.Helper()
		out, err := exec.Command("dmesg").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	}
	before := lines()
	last := before[len(before)-1]
	return func(pattern string) string {
		t.Helper()
		re := regexp.MustCompile("(?i)" + pattern)
		var found []string
		now := lines()
		for i := len(now) - 1; i >= 0 && now[i] != last; i-- {
			if re.MatchString(now[i]) {
				found = append([]string{now[i]}, found...)
			}
		}
		return strings.Join(found, "\n")
	}
}
