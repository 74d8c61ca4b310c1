package iscsiadm_test

import (
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/version"
)

const (
	tryHelp    = "Try `iscsiadm --help' for more information.\n"
	allModes   = "discovery, discoverydb, node, session, iface, host, fw, nodedb\n"
	whichMode  = "iscsiadm: hint: no mode is given: -m and one of " + allModes
	versionOut = "iscsiadm version "
)

// TestArgumentErrors has every command line that is refused before anything
// is done, with the text and code that scripts see.
func TestArgumentErrors(t *testing.T) {
	l := newLabWithoutDaemon(t)
	for _, tc := range []struct {
		args string // words, separated by one blank; "''" is an empty word
		code int
		out  string
		err  string
	}{
		{"", 7, "", tryHelp + whichMode},
		{"word", 7, "", tryHelp + whichMode},
		{"-m bogus", 7, "", "iscsiadm: mode -1 is not yet supported\niscsiadm: hint: there is no mode \"bogus\", but " + allModes},
		{"-m nod", 7, "", "iscsiadm: mode -1 is not yet supported\niscsiadm: hint: there is no mode \"nod\", but " + allModes},
		{"-m ''", 7, "", tryHelp + whichMode},
		{"-m", 7, "", "iscsiadm: option requires an argument -- 'm'\niscsiadm: unrecognized character 'm'\n"},
		{"-Z", 7, "", "iscsiadm: invalid option -- 'Z'\niscsiadm: unrecognized character 'Z'\n"},
		{"--bogus", 7, "", "iscsiadm: unrecognized option '--bogus'\n" + tryHelp + whichMode},
		{"--log -m node", 7, "", "iscsiadm: option '--log' is ambiguous; possibilities: '--login' '--loginall' '--logout' '--logoutall'\n" +
			"iscsiadm: option '--log' is ambiguous; possibilities: '--login' '--loginall' '--logout' '--logoutall'\niscsiadm: node mode: option '-?' is not allowed/supported\n"},
		{"-m node -Z", 7, "", "iscsiadm: invalid option -- 'Z'\niscsiadm: node mode: option '-Z' is not allowed/supported\n"},
		{"-m node --bogus", 7, "", "iscsiadm: unrecognized option '--bogus'\niscsiadm: node mode: option '-?' is not allowed/supported\n"},
		{"-m session -P", 7, "", "iscsiadm: option requires an argument -- 'P'\niscsiadm: session mode: option '-P' is not allowed/supported\n"},
		{"-m session -T x", 7, "", "iscsiadm: session mode: option '-T' is not allowed/supported\n"},
		{"-T x -m session", 7, "", "iscsiadm: session mode: option '-T' is not allowed/supported\n"},
		{"-m session --targetname=x", 7, "", "iscsiadm: session mode: option '-T' is not allowed/supported\n"},
		{"-m session -p 1.2.3.4", 7, "", "iscsiadm: session mode: option '-p' is not allowed/supported\n"},
		{"-m node -r 1", 7, "", "iscsiadm: node mode: option '-r' is not allowed/supported\n"},
		{"-m node -t st", 7, "", "iscsiadm: node mode: option '-t' is not allowed/supported\n"},
		{"-m discovery -W -t st -p 127.0.0.1", 7, "", "iscsiadm: discovery mode: option '-W' is not allowed/supported\n"},
		{"-m discovery -L all", 7, "", "iscsiadm: discovery mode: option '-L' is not allowed/supported\n"},
		{"-m session -U all", 7, "", "iscsiadm: session mode: option '-U' is not allowed/supported\n"},
		{"-m host -l", 7, "", "iscsiadm: host mode: option '-l' is not allowed/supported\n"},
		{"-m fw -p 127.0.0.1", 7, "", "iscsiadm: fw mode: option '-p' is not allowed/supported\n"},
		{"-m iface -T x", 7, "", "iscsiadm: iface mode: option '-T' is not allowed/supported\n"},
		{"-m node -h", 7, "", "iscsiadm: node mode: option '-h' is not allowed/supported\n"},
		{"-m node -V", 7, "", "iscsiadm: node mode: option '-V' is not allowed/supported\n"},
		{"-V -m node -Z", 0, versionOut + version.Version + "\n", ""},
		{"--version", 0, versionOut + version.Version + "\n", ""},
		{"-o frob -m node", 7, "", "iscsiadm: can not recognize operation: 'frob'\n"},
		{"-m node -o show -o frob", 7, "", "iscsiadm: can not recognize operation: 'frob'\n"},
		{"-m node -o ''", 7, "", "iscsiadm: can not recognize operation: ''\n"},
		{"-m node -L bogus", 7, "", "iscsiadm: Invalid loginall option bogus.\n" + tryHelp},
		{"-m node -U bogus", 7, "", "iscsiadm: Invalid logoutall option bogus.\n" + tryHelp},
		{"-m node -U onboot", 7, "", "iscsiadm: Invalid logoutall option onboot.\n" + tryHelp},
		{"-m session -r abc", 1, "", "iscsiadm: abc is an invalid session ID or path\n"},
		{"-m session -r 0", 1, "", "iscsiadm: 0 is an invalid session ID or path\n"},
		{"-m session -r -1", 1, "", "iscsiadm: -1 is an invalid session ID or path\n"},
		{"-m session -r /sys/class/iscsi_session", 1, "", "iscsiadm: /sys/class/iscsi_session is an invalid session ID or path\n"},
		{"-m session -r 99", 22, "", "iscsiadm: could not read session targetname: 5\niscsiadm: Could not get session info for sid 99\n"},
		{"-m session -r /sys/devices/platform/host2/session99/target2:0:0/2:0:0:0", 22, "", "iscsiadm: could not read session targetname: 5\niscsiadm: Could not get session info for sid 99\n"},
		{"-m session -r session98", 22, "", "iscsiadm: could not read session targetname: 5\niscsiadm: Could not get session info for sid 98\n"},
		{"-m session -P x", 7, "", "iscsiadm: Invalid info level 'x'. Must be a number from 0.\n"},
		{"-m session -P -1", 7, "", "iscsiadm: Invalid info level '-1'. Must be a number from 0.\n"},
		{"-m session -P 4", 21, "", "iscsiadm: No active sessions.\n"},
		{"-m node -P 2", 7, "", "iscsiadm: Invalid info level 2. Try 0 or 1.\n"},
		{"-m host -P 5", 7, "", "iscsiadm: Invalid info level 5. Try 0 - 4.\n"},
		{"-m node -d x", 7, "", "iscsiadm: Invalid debug level 'x'. Must be a number from 0.\n"},
		{"-m node -I ''", 7, "Invalid iface name . Must be from 1 to 64 characters.\n", ""},
		{"-m node -I " + strings.Repeat("x", 65), 7, "Invalid iface name " + strings.Repeat("x", 65) + ". Must be from 1 to 64 characters.\n", ""},
		{"-m node -I nothere", 3, "", "iscsiadm: Could not read iface info for nothere.\n"},
		{"-m node -I nothere -l", 3, "", "iscsiadm: Could not read iface info for nothere.\n"},
		{"-m node -p 127.0.0.1:abc", 7, "", "iscsiadm: invalid portal \"127.0.0.1:abc\": port is not a number from 1 to 65535\n"},
		{"-m node -p 127.0.0.1:99999", 7, "", "iscsiadm: invalid portal \"127.0.0.1:99999\": port is not a number from 1 to 65535\n"},
		{"-m node -p [::1", 7, "", "iscsiadm: invalid portal \"[::1\": no closing bracket\n"},
		{"-m node -p ''", 7, "", "iscsiadm: invalid portal \"\": no host\n"},
		{"-m node -l -u", 7, "", "iscsiadm: Invalid parameters. Both login and logout passed in\n"},
		{"-m node -l -o show", 7, "", "iscsiadm: Invalid parameters. Login/logout and op passed in\n"},
		{"-m node -u -o new", 7, "", "iscsiadm: Invalid parameters. Login/logout and op passed in\n"},
		{"-m node -o nonpersistent", 7, "", "iscsiadm: operation is not supported.\n"},
		{"-m node -o update -o delete", 7, "", "iscsiadm: operation is not supported.\n"},
		{"-m node -o new -o delete", 7, "", "iscsiadm: operation is not supported.\n"},
		{"-m node -o update -n node.startup", 7, "", "iscsiadm: update requires name and value\n"},
		{"-m node -o update -v automatic", 7, "", "iscsiadm: update requires name and value\n"},
		{"-m node -T iqn.x -o update -n a -v b", 21, "", "iscsiadm: No records found\n"},
		{"-m node -T iqn.x -o new", 21, "", "iscsiadm: No records found\n"},
		{"-m node -o new", 21, "", "iscsiadm: No records found\n"},
		{"-m node -T a/b -p 127.0.0.1 -o new", 7, "", "iscsiadm: invalid target name \"a/b\": slash\n"},
		{"-m node -l", 21, "", "iscsiadm: No records found\n"},
		{"-m node -L all", 21, "", "iscsiadm: No records found\n"},
		{"-m node -u", 21, "", "iscsiadm: No matching sessions found\n"},
		{"-m node -U all", 21, "", "iscsiadm: No matching sessions found\n"},
		{"-m node -R", 21, "", "iscsiadm: No session found.\n"},
		{"-m node -s", 21, "", "iscsiadm: No session found.\n"},
		{"-m session -R", 21, "", "iscsiadm: No session found.\n"},
		{"-m session -s", 21, "", "iscsiadm: No session found.\n"},
		{"-m session -o new", 7, "", "iscsiadm: session mode: Operation 'new' only allowed with specific session IDs\n"},
		{"-m session -o show", 21, "", "iscsiadm: No active sessions.\n"},
		{"-m discovery -t st", 7, "", "iscsiadm: Please specify portal as <ipaddr>[:<ipport>]\n"},
		{"-m discovery -t bogus", 21, "", ""},
		{"-m discovery -o new", 7, "", "iscsiadm: Invalid operation.\n"},
		{"-m discovery -p 10.0.0.1", 7, "", "iscsiadm: Discovery record [10.0.0.1,3260] not found!\n"},
		{"-m discovery -t bogus -p 10.0.0.1", 7, "", "iscsiadm: Discovery record [10.0.0.1,3260] not found!\n"},
		{"-m discovery -t fw", 21, "", "iscsiadm: Could not get list of targets from firmware. (err 21)\n"},
		{"-m discovery -t st -p 127.0.0.1 -o apply", 7, "", "iscsiadm: Invalid operation.\n"},
		{"-m discoverydb -p 10.0.0.1", 7, "", "iscsiadm: Invalid command. Portal not needed or Possibly missing discovery --type.\n"},
		{"-m discoverydb -p 10.0.0.1 -o new", 7, "", "iscsiadm: Invalid command. Possibly missing discovery --type.\n"},
		{"-m discoverydb -t st", 7, "", "iscsiadm: Please specify portal as <ipaddr>[:<ipport>]\n"},
		{"-m discoverydb -t fw", 7, "", "iscsiadm: Invalid command. Possibly missing --discover argument.\n"},
		{"-m discoverydb -t st -p 10.0.0.1", 6, "", "iscsiadm: Discovery record [10.0.0.1,3260] not found.\n"},
		{"-m discoverydb -t isns -p 10.0.0.1 -o show", 6, "", "iscsiadm: Discovery record [10.0.0.1,3205] not found.\n"},
		{"-m discoverydb -t st -p 10.0.0.1 -o delete", 6, "", "iscsiadm: Discovery record [10.0.0.1,3260] not found.\n"},
		{"-m discoverydb -t st -p 10.0.0.1 -o update", 6, "", "iscsiadm: Discovery record [10.0.0.1,3260] not found.\n"},
		{"-m discoverydb -t st -p 10.0.0.1 -o update -n discovery.startup -v manual", 6, "", "iscsiadm: Discovery record [10.0.0.1,3260] not found.\n"},
		{"-m discoverydb -o show -P 1", 21, "SENDTARGETS:\nNo targets found.\niSNS:\nNo targets found.\nSTATIC:\nNo targets found.\nFIRMWARE:\nNo targets found.\n", ""},
		{"-m iface -o new", 22, "", "iscsiadm: Could not add interface. No interface passed in.\n"},
		{"-m iface -o delete", 7, "", "iscsiadm: Could not delete interface. No interface passed in.\n"},
		{"-m iface -I x -o update", 7, "", "iscsiadm: Update requires name, value, and iface.\n"},
		{"-m iface -o update -n iface.mtu -v 1", 7, "", "iscsiadm: Update requires name, value, and iface.\n"},
		{"-m iface -I nothere", 6, "", "iscsiadm: Could not read iface info for nothere.\n"},
		{"-m iface -I nothere -o delete", 7, "", "iscsiadm: Could not read iface info for nothere.\niscsiadm: Could not delete iface nothere: invalid parameter\n"},
		{"-m iface -I nothere -o update -n iface.mtu -v 1", 7, "", "iscsiadm: Could not read iface info for nothere.\n"},
		{"-m iface -I default -o delete", 7, "", "iscsiadm: iface default is a special interface and cannot be deleted.\niscsiadm: Could not delete iface default: invalid parameter\n"},
		{"-m iface -I default -o update -n iface.mtu -v 1", 0, "", "iscsiadm: iface default is a special interface and cannot be modified.\niscsiadm: Could not update iface default: invalid parameter\n"},
		{"-m iface -C ping", 7, "", "iscsiadm: Ping requires iface.\n"},
		{"-m iface -I default -C ping", 7, "", "iscsiadm: Ping requires destination ipaddress.\n"},
		{
			"-m iface -I default -C ping -a 10.0.0.1", 27, "Ping 1 failed: operation not supported\n",
			"iscsiadm: hint: submode ping is for adapters that do iSCSI in hardware; use ping(8)\n",
		},
		{"-m iface -o apply", 7, "", "iscsiadm: Apply requires iface.\n"},
		{"-m iface -I default -o apply", 0, "default applied.\n", "iscsiadm: Nothing to configure.\n"},
		{"-m iface -o applyall", 7, "", "iscsiadm: Applyall requires a valid host number or MAC passed in with the --host argument.\n"},
		{"-m node -L all -U all", 7, "", "iscsiadm: Invalid parameters. Both loginall and logoutall passed in\n"},
		{"-m discovery -t slp -p 127.0.0.1", 7, "", "iscsiadm: SLP discovery is not fully implemented yet.\n"},
		{"-m discovery -t isns", 7, "", "iscsiadm: Please specify portal as <ipaddr>:[<ipport>]\n"},
		{"-m discoverydb -o delete", 7, "", "iscsiadm: Invalid operation. Operation not supported.\n"},
		{"-m session -u -o delete", 7, "", "iscsiadm: Invalid parameters. Login/logout and op passed in\n"},
		{"-m iface -H 1 -o applyall", 27, "", "iscsiadm: operation is for adapters that do iSCSI in hardware\n"},
		{"-m host", 21, "", "iscsiadm: No iSCSI hosts.\n"},
		{"-m host -P 4", 21, "iSCSI Transport Class version 2.0-870\nversion " + version.Version + "\n", "iscsiadm: No iSCSI hosts.\n"},
		{"-m host -P 1 -H 00:11:22:33:44:55", 7, "", "iscsiadm: Could not match MAC to host.\n"},
		{"-m host -C chap", 7, "", "iscsiadm: CHAP mode requires host no and valid operation\n"},
		{"-m host -C flashnode", 7, "", "iscsiadm: FLASHNODE mode requires host no\n"},
		{"-m host -C stats", 7, "", "iscsiadm: STATS mode requires host no\n"},
		{"-m fw", 21, "", "iscsiadm: Could not get list of targets from firmware. (err 21)\n"},
		{"-m fw -l -W", 21, "", "iscsiadm: Could not get list of targets from firmware. (err 21)\n"},
		{"-k 1", 0, "", "iscsiadm: Invalid iscsid priority 1. Priority must be 0.\n"},
		{"-k -1", 7, "", "iscsiadm: Invalid iscsid priority '-1'. Must be a number from 0.\n"},
		{"-k 0", 0, "", "iscsiadm: can not connect to iSCSI daemon (111)!\niscsiadm: Could not stop iscsid. Trying sending iscsid SIGTERM or SIGKILL signals manually\n"},
		{"-m node -T \x1b[31mx -o frob\nx", 7, "", "iscsiadm: can not recognize operation: 'frob?x'\n"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			var args []string
			if tc.args != "" {
				args = strings.Split(strings.ReplaceAll(tc.args, "''", ""), " ")
			}
			got := l.run(args...)
			if want := (result{tc.out, tc.err, tc.code}); got != want {
				t.Errorf("got code %d\nout %q\nerr %q\nwant code %d\nout %q\nerr %q", got.code, got.out, got.err, want.code, want.out, want.err)
			}
		})
	}
}

func TestOptionsInAnyForm(t *testing.T) {
	l := newLab(t)
	l.mustRun("-m", "node", "-T", "iqn.a", "-p", "127.0.0.1:3260,1", "-o", "new")
	want := l.mustRun("-m", "node", "-P", "1")
	for _, args := range [][]string{
		{"-mnode", "-P1"},
		{"--mode=node", "--print=1"},
		{"--mode", "node", "--pri", "1"},
		{"-P", "1", "-m", "node"},
		{"-SP1", "-mnode"},
		{"node", "-m", "node", "words", "-P1", "ignored"},
		{"-m", "node", "-P", "1", "--", "-Z"},
		{"-P0", "-m", "node", "-P1"},
	} {
		if got := l.mustRun(args...); got != want {
			t.Errorf("iscsiadm %q = %q, want %q", args, got, want)
		}
	}
	record := l.mustRun("-m", "node", "--target", "iqn.a")
	for _, args := range [][]string{
		{"-m", "node", "--targ=iqn.a", "-p127.0.0.1"},
		{"-m", "node", "-p", "127.0.0.1:3260"},
		{"-m", "node", "-p", "127.0.0.1,1"},
		{"-m", "node", "-p", "127.0.0.1:3260,7"},
		{"-m", "node", "-p", "127.0.0.1:3260,4294967295"},
		{"-m", "node", "-I", "default"},
		{"-m", "node", "-T", "iqn.a", "--op=show"},
	} {
		if got := l.mustRun(args...); got != record {
			t.Errorf("iscsiadm %q = %q, want the record", args, got)
		}
	}
	l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "node", "-p", "127.0.0.1:3261")
	l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "node", "-T", "IQN.A")
}

func TestParametersPairUp(t *testing.T) {
	l := newLab(t)
	node := []string{"-m", "node", "-T", "iqn.a", "-p", "127.0.0.1"}
	l.mustRun(append(node, "-o", "new")...)
	update := func(args ...string) { l.mustRun(append(append(node, "-o", "update"), args...)...) }
	has := func(line string) {
		t.Helper()
		if out := l.mustRun(node...); !strings.Contains(out, line+"\n") {
			t.Errorf("record has no line %q", line)
		}
	}
	update("-n", "node.startup", "-v", "automatic", "-n", "node.session.queue_depth", "-v", "7")
	has("node.startup = automatic")
	has("node.session.queue_depth = 7")
	update("-v", "onboot", "-n", "node.startup")
	has("node.startup = onboot")
	update("-n", "node.session.cmds_max", "-n", "node.session.queue_depth", "-v", "9", "-v", "lost")
	has("node.session.queue_depth = 9")
	has("node.session.cmds_max = 128")
	update("-n", "node.session.queue_depth", "-v", "1", "-n", "node.session.queue_depth", "-v", "2")
	has("node.session.queue_depth = 2")
	update("-n", "node.session.auth.username", "-v", "with = and , and  blanks")
	has("node.session.auth.username = with = and , and  blanks")
	update("-n", "node.session.auth.username", "-v", "")
	has("node.session.auth.username = <empty>")

	// A wrong parameter leaves everything as it was.
	l.expect(result{"", "iscsiadm: unknown value format 'x' for parameter name 'node.startup'\niscsiadm: Unknown parameter node.startup.\n" +
		"iscsiadm: Could not execute operation on all records: invalid parameter\n", 7},
		append(node, "-o", "update", "-n", "node.session.queue_depth", "-v", "3", "-n", "node.startup", "-v", "x")...)
	has("node.session.queue_depth = 2")
}
