package iscsiadm_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
)

// localCommands work on records alone.
func localCommands() map[string][]string {
	one := []string{"-m", "node", "-T", tg1, "-p", "127.0.0.1"}
	with := func(a ...string) []string { return append(one[:len(one):len(one)], a...) }
	return map[string][]string{
		"version":             {"-V"},
		"help":                {"-h"},
		"list of nodes":       {"-m", "node"},
		"tree of nodes":       {"-m", "node", "-P", "1"},
		"one record":          one,
		"record with secrets": with("-S"),
		"update":              with("-o", "update", "-n", "node.startup", "-v", "automatic"),
		"new record":          {"-m", "node", "-T", "iqn.x", "-p", "192.0.2.1", "-o", "new"},
		"wrong option":        {"-m", "node", "-Z"},
		"wrong field":         with("-o", "update", "-n", "node.bogus", "-v", "1"),
		"interfaces":          {"-m", "iface"},
		"one interface":       {"-m", "iface", "-I", "default"},
		"discoveries":         {"-m", "discovery"},
		"tree of discoveries": {"-m", "discovery", "-P", "1"},
		"one discovery":       {"-m", "discoverydb", "-t", "st", "-p", "127.0.0.1"},
		"update of discovery": {"-m", "discoverydb", "-t", "st", "-p", "127.0.0.1", "-o", "update", "-n", "discovery.startup", "-v", "manual"},
	}
}

// daemonCommands ask the daemon, if there is one, and nobody else.
func daemonCommands() map[string][]string {
	return map[string][]string{
		"sessions":           {"-m", "session"},
		"tree of sessions":   {"-m", "session", "-P", "3"},
		"statistics":         {"-m", "session", "-s"},
		"hosts":              {"-m", "host"},
		"new interface":      {"-m", "iface", "-I", "lan", "-o", "new"},
		"delete":             {"-m", "node", "-T", tg1, "-o", "delete"},
		"delete interface":   {"-m", "iface", "-I", "lan", "-o", "delete"},
		"update interface":   {"-m", "iface", "-I", "lan", "-o", "update", "-n", "iface.mtu", "-v", "9000"},
		"delete discovery":   {"-m", "discovery", "-p", "127.0.0.1", "-o", "delete"},
		"logout of nothing":  {"-m", "node", "-T", tg1, "-u"},
		"logout of all":      {"-m", "node", "-U", "all"},
		"one session":        {"-m", "session", "-r", "1"},
		"rescan of nothing":  {"-m", "session", "-R"},
		"loginall of nobody": {"-m", "node", "-L", "onboot"},
	}
}

// TestCommandsThatNeedNoNetwork makes sure of what makes commands quick: those
// that need no network use none, not even the name service; they start no
// daemon and wait for nothing; and those that work on records do not talk to
// the daemon either. BenchmarkCommand says how long they take.
func TestCommandsThatNeedNoNetwork(t *testing.T) {
	l := newLab(t)
	l.mustRun(discovery...)
	write(t, l.env.Paths.Config, "iscsid.startup = must not be run\n")
	l.env.Resolver = noResolver{t}
	l.env.Discover = func(context.Context, initiator.DiscoveryConfig) ([]initiator.DiscoveredPortal, error) {
		t.Error("a discovery")
		return nil, context.Canceled
	}
	l.env.Start = func(_ context.Context, cmd string, _ io.Writer) error {
		t.Errorf("starts a daemon: %s", cmd)
		return fmt.Errorf("no")
	}
	l.slept = nil
	answering := l.env.Control
	asked := false
	l.env.Control = func(socket string) control.Service {
		asked = true
		return answering(socket)
	}
	run := func(t *testing.T, args []string) {
		asked = false
		if r := l.run(args...); r.out == "" && r.err == "" && r.code != 0 {
			t.Errorf("code %d without a word", r.code)
		}
		if len(l.slept) > 0 {
			t.Errorf("waits %v", l.slept)
		}
	}
	for name, args := range localCommands() {
		t.Run(name, func(t *testing.T) {
			if run(t, args); asked {
				t.Error("talks to the daemon")
			}
		})
	}
	for name, args := range daemonCommands() {
		t.Run(name, func(t *testing.T) { run(t, args) })
	}
	// Where no daemon runs they do not wait for one either.
	l.env.Control = newLabWithoutDaemon(t).env.Control
	l.env.Paths.Run = t.TempDir()
	for name, args := range daemonCommands() {
		t.Run(name+" without a daemon", func(t *testing.T) { run(t, args) })
	}
}

// noResolver fails the test when it is asked.
type noResolver struct{ t *testing.T }

func (r noResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	r.t.Errorf("looks up %s", host)
	return nil, context.Canceled
}
