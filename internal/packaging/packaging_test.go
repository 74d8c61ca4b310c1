package packaging_test

import (
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/packaging"
	"github.com/goiscsi/goiscsi/internal/paths"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := fs.ReadFile(packaging.Files, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A unit is a unit file: section → key → values, in order.
type unit map[string]map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	u := unit{}
	section := ""
	for n, line := range strings.Split(read(t, "systemd/"+name), "\n") {
		line = strings.TrimSpace(line)
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
			u[section] = map[string][]string{}
		case ok && section != "":
			u[section][key] = append(u[section][key], value)
		default:
			t.Fatalf("%s:%d: %q", name, n+1, line)
		}
	}
	return u
}

func units(t *testing.T) []string {
	t.Helper()
	entries, err := fs.ReadDir(packaging.Files, "systemd")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// words returns the words of all values of a key.
func (u unit) words(section, key string) []string {
	return strings.Fields(strings.Join(u[section][key], " "))
}

func TestSocketIsWhereTheProgramsLook(t *testing.T) {
	p := paths.FromLookup(func(string) string { return "" })
	if got := readUnit(t, "iscsid.socket").words("Socket", "ListenStream"); !slices.Equal(got, []string{p.ControlSocket()}) {
		t.Errorf("ListenStream=%q, iscsiadm connects to %s", got, p.ControlSocket())
	}
	if want := p.UdevDir() + "/$attr{backend}"; !strings.Contains(read(t, "udev/59-iscsid.rules"), `IMPORT{file}="`+want+`"`) {
		t.Errorf("the rule does not read %s", want)
	}
	if glob := readUnit(t, "iscsi-shutdown.service").words("Unit", "ConditionPathExistsGlob"); !slices.Equal(glob, []string{p.StateDir() + "/session-*.json"}) {
		t.Errorf("iscsi-shutdown.service looks for %q", glob)
	}
}

// TestDaemonHasNoMountNamespace: a copy of the machine's mounts in iscsid's own
// namespace could keep a file system on its own disk mounted.
func TestDaemonHasNoMountNamespace(t *testing.T) {
	makesOne := regexp.MustCompile(`^(Private(Tmp|Devices|Mounts|IPC)|Protect(System|Home|Kernel.*|ControlGroups|Proc|Clock|Hostname)|ProcSubset|` +
		`Root.*|(Read|Inaccessible|Exec|NoExec).*Paths|Bind.*|TemporaryFileSystem|MountFlags|MountImages|ExtensionImages|DynamicUser|` +
		`(State|Cache|Logs|Runtime)Directory)$`)
	for key := range readUnit(t, "iscsid.service")["Service"] {
		if makesOne.MatchString(key) {
			t.Errorf("iscsid.service has %s=", key)
		}
	}
}

// TestDaemonKeepsItsDisks are the settings without which a restart or a
// shutdown would take disks away from their users.
func TestDaemonKeepsItsDisks(t *testing.T) {
	u := readUnit(t, "iscsid.service")
	for key, want := range map[string]string{
		"Type": "notify", "KillMode": "mixed", "Restart": "always", "FileDescriptorStoreMax": "4096", "OOMScoreAdjust": "-1000",
		"LimitMEMLOCK": "infinity", "ExecStart": "@/usr/sbin/iscsid @/usr/sbin/iscsid -f",
	} {
		if got := strings.Join(u["Service"][key], " "); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	for _, name := range []string{"iscsid.service", "iscsid.socket"} {
		u := readUnit(t, name)
		if !slices.Equal(u.words("Unit", "DefaultDependencies"), []string{"no"}) || len(u.words("Unit", "Conflicts")) != 0 {
			t.Errorf("%s: a shutdown would stop it", name)
		}
	}
}

func TestLoginIsBeforeRemoteMountsAndTakes15And21ForSuccess(t *testing.T) {
	u := readUnit(t, "iscsi.service")
	if !slices.Contains(u.words("Unit", "Before"), "remote-fs-pre.target") || !slices.Contains(u.words("Unit", "After"), "iscsid.service") {
		t.Error("not ordered between iscsid.service and remote-fs-pre.target")
	}
	if got := u.words("Service", "SuccessExitStatus"); !slices.Equal(got, []string{"15", "21"}) {
		t.Errorf("SuccessExitStatus=%q", got)
	}
	if got := u.words("Install", "Alias"); !slices.Equal(got, []string{"open-iscsi.service"}) {
		t.Errorf("Alias=%q", got)
	}
}

// TestUnitsHang together: what one of ours names of another one is there, and
// every program is where the package puts it.
func TestUnitsHangTogether(t *testing.T) {
	names := units(t)
	build, err := os.ReadFile("stage")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		u := readUnit(t, name)
		for _, key := range []string{"After", "Before", "Requires", "Wants", "Also"} {
			for _, other := range append(u.words("Unit", key), u.words("Install", key)...) {
				if strings.HasPrefix(other, "iscsi") && !slices.Contains(names, other) {
					t.Errorf("%s: %s=%s, which there is not", name, key, other)
				}
			}
		}
		for _, key := range []string{"ExecStart", "ExecStop"} {
			for _, line := range u["Service"][key] {
				for _, m := range regexp.MustCompile(`/usr/sbin/([\w-]+)`).FindAllStringSubmatch(line, -1) {
					if !strings.Contains(string(build), `"$bin/`+m[1]+`"`) {
						t.Errorf("%s: the package has no %s", name, m[0])
					}
				}
			}
		}
	}
	for _, script := range []string{"postinst", "postrm"} {
		b, err := os.ReadFile("debian/" + script)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^enabled="(.*)"$`).FindSubmatch(b)
		if m == nil {
			t.Errorf("%s enables nothing", script)
			continue
		}
		enabled := strings.Fields(string(m[1]))
		for _, name := range names {
			_, wanted := readUnit(t, name)["Install"]
			// The socket starts the daemon.
			if wanted = wanted && name != "iscsid.service"; wanted != slices.Contains(enabled, name) {
				t.Errorf("%s: %s is enabled: %v, want %v", script, name, !wanted, wanted)
			}
		}
	}
}

func TestScriptsAreShell(t *testing.T) {
	for _, name := range []string{"stage", "tarball", "debian/build", "debian/preinst", "debian/postinst", "debian/prerm", "debian/postrm"} {
		if out, err := exec.Command("/bin/sh", "-n", name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestRuleSetsNothingForOthers: a network block device of someone else, and
// one of ours without its file, must leave as it came.
func TestRuleSetsNothingForOthers(t *testing.T) {
	var guarded bool
	for line := range strings.Lines(read(t, "udev/59-iscsid.rules")) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || strings.Contains(line, "GOTO=") || strings.HasPrefix(line, "LABEL="):
			guarded = guarded || strings.HasPrefix(line, `ATTRS{backend}!="iscsid:*", GOTO=`)
		case !guarded:
			t.Errorf("before the guard: %s", line)
		}
	}
	if !guarded {
		t.Error("no guard by the backend identifier")
	}
}
