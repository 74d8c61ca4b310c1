package iscsiadm_test

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkCommand measures commands that need no network from end to end in
// one process: parsing, the database opened and closed, printing. The start
// of a process comes on top.
func BenchmarkCommand(b *testing.B) {
	for _, records := range []int{10, 1000} {
		l := newLab(b)
		for i := range records {
			l.portals["127.0.0.1:3260"] = append(l.portals["127.0.0.1:3260"], fmt.Sprintf("iqn.2016-01.com.example:%05d", i))
		}
		l.mustRun(discovery...)
		one := "iqn.2016-01.com.example:00003"
		for _, args := range [][]string{
			{"-V"},
			{"-m", "node"},
			{"-m", "node", "-P", "1"},
			{"-m", "node", "-T", one},
			{"-m", "node", "-T", one, "-p", "127.0.0.1", "-o", "update", "-n", "node.startup", "-v", "automatic"},
			{"-m", "discovery"},
			{"-m", "discoverydb", "-t", "st", "-p", "127.0.0.1"},
			{"-m", "iface"},
			{"-m", "session"},
			{"-m", "host"},
		} {
			name := strings.ReplaceAll(strings.Join(args, " "), "/", "")
			b.Run(fmt.Sprintf("records=%d/%s", records, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					l.run(args...)
				}
			})
		}
	}
}
