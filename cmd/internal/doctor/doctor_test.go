package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator/manager"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/paths"
	"github.com/goiscsi/goiscsi/nodedb"
)

// A machine is a System that a test makes up; files below the test's own
// directory are real.
type machine struct {
	root      string
	files     fstest.MapFS // by path without the first slash
	family    error
	available bool
	synced    bool
	now       time.Time
	paths     map[string]Path
	errs      map[string]error
}

func (m *machine) real(path string) bool { return strings.HasPrefix(path, m.root) }

func (m *machine) ReadFile(path string) ([]byte, error) {
	return m.files.ReadFile(strings.TrimPrefix(path, "/"))
}

func (m *machine) Stat(path string) (fs.FileInfo, error) {
	if m.real(path) {
		return os.Stat(path)
	}
	return m.files.Stat(strings.TrimPrefix(path, "/"))
}

func (m *machine) Glob(pattern string) []string {
	l, _ := m.files.Glob(strings.TrimPrefix(pattern, "/"))
	return l
}

func (m *machine) NBDFamily() error                 { return m.family }
func (m *machine) ModuleAvailable(string) bool      { return m.available }
func (m *machine) ClockSynchronised() (bool, error) { return m.synced, nil }
func (m *machine) Now() time.Time                   { return m.now }

func (m *machine) Probe(ctx context.Context, at string) (Path, error) {
	if err := m.errs[at]; err != nil {
		return Path{}, err
	}
	p, ok := m.paths[at]
	if !ok {
		<-ctx.Done()
		return Path{}, context.Cause(ctx)
	}
	return p, nil
}

// A daemon is one that a test makes up.
type daemon struct {
	version  string
	err      error
	noNBD    bool
	sessions []control.Session
}

func (d *daemon) Version(context.Context) (*control.VersionInfo, error) {
	return &control.VersionInfo{Version: d.version, PID: 7}, d.err
}

func (d *daemon) Initiator(context.Context) (*control.Initiator, error) {
	return &control.Initiator{NBD: !d.noNBD}, d.err
}

func (d *daemon) Sessions(context.Context, control.SessionQuery) ([]control.Session, error) {
	return d.sessions, d.err
}

// A case is a machine in good health that a test spoils.
type ward struct {
	t *testing.T
	o Options
	m *machine
	d *daemon
}

func newWard(t *testing.T) *ward {
	t.Helper()
	dir := t.TempDir()
	w := &ward{
		t: t,
		m: &machine{
			root: dir, available: true, synced: true, now: time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC),
			files: fstest.MapFS{
				"sys/module/nbd/parameters/nbds_max": {Data: []byte("16\n")},
				"sys/module/nbd/parameters/max_part": {Data: []byte("16\n")},
				"run/udev/control":                   {},
				"usr/lib/udev/rules.d/" + ruleFile:   {},
			},
			paths: map[string]Path{
				"10.0.0.1:3260": {Connect: time.Millisecond, Iface: "eth0", IfaceMTU: 9000, PathMTU: 9000, MSS: 8948, Local: netip.MustParseAddr("10.0.0.9")},
			},
		},
		d: &daemon{version: "1"},
	}
	w.o = Options{
		Paths: paths.Paths{
			Config: filepath.Join(dir, "iscsid.conf"), InitiatorName: filepath.Join(dir, "initiatorname.iscsi"),
			DB: filepath.Join(dir, "nodes.db"), Sys: "/sys",
		},
		System: w.m, Daemon: w.d, Version: "1", Timeout: 10 * time.Millisecond,
	}
	w.write(w.o.Paths.InitiatorName, "InitiatorName=iqn.2026-11.com.example:me\n")
	w.record("10.0.0.1")
	return w
}

func (w *ward) write(path, text string) {
	w.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// record stores a node record; kvs are fields of it.
func (w *ward) record(address string, kvs ...string) {
	w.t.Helper()
	err := nodedb.New(w.o.Paths.DB, nodedb.Options{}).Update(w.t.Context(), func(tx *nodedb.Tx) error {
		n, err := nodedb.NewNode(nil, nodedb.NodeKey{Target: "iqn.x", Address: address, Port: 3260, Iface: "default"}, 1)
		if err != nil {
			return err
		}
		for i := 0; i < len(kvs); i += 2 {
			if err := n.Set("node."+kvs[i], kvs[i+1]); err != nil {
				return err
			}
		}
		return tx.PutNode(n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *ward) examine() Findings {
	w.t.Helper()
	f, err := Examine(w.t.Context(), w.o)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func TestHealthyMachine(t *testing.T) {
	f := newWard(t).examine()
	for _, f := range f {
		if f.Status != OK {
			t.Errorf("%+v", f)
		}
	}
	for _, want := range []string{"kernel nbd", "other initiator", "udev", "initiator name", "clock", "iscsid.conf", "node database", "iscsid", "sessions", "CHAP", "portal"} {
		found := false
		for i := range f {
			found = found || f[i].Check == want
		}
		if !found {
			t.Errorf("nothing was said of %s", want)
		}
	}
}

func TestFindings(t *testing.T) {
	const auth = "session.auth."
	for _, tt := range []struct {
		name   string
		spoil  func(w *ward)
		check  string
		status Status
		text   string
	}{
		{"no driver", func(w *ward) {
			delete(w.m.files, "sys/module/nbd/parameters/nbds_max")
			delete(w.m.files, "sys/module/nbd/parameters/max_part")
			w.m.available = false
		}, "kernel nbd", Warning, "served on unix sockets"},
		{"no driver where it is asked for", func(w *ward) {
			w.m.files, w.m.available = fstest.MapFS{}, false
			w.write(w.o.Paths.Config, "node.session.attach = nbd\n")
		}, "kernel nbd", Problem, "logins to disks fail"},
		{"no driver where it is not", func(w *ward) {
			w.m.files, w.m.available = fstest.MapFS{}, false
			w.write(w.o.Paths.Config, "node.session.attach = socket\n")
		}, "kernel nbd", Note, "does not ask"},
		{"driver not loaded", func(w *ward) { w.m.files = fstest.MapFS{} }, "kernel nbd", Note, "not loaded"},
		{"old driver", func(w *ward) { w.m.family = errors.New("there is no netlink family nbd") }, "kernel nbd", Problem, "netlink"},
		{"no partitions", func(w *ward) { w.m.files["sys/module/nbd/parameters/max_part"].Data = []byte("0\n") }, "nbd partitions", Warning, "max_part"},
		{"open-iscsi", func(w *ward) { w.m.files["sys/class/iscsi_session/session1/x"] = &fstest.MapFile{} }, "other initiator", Warning, "1 session"},
		{"no udev", func(w *ward) { delete(w.m.files, "run/udev/control") }, "udev", Note, "does not run"},
		{"no rule", func(w *ward) { delete(w.m.files, "usr/lib/udev/rules.d/"+ruleFile) }, "udev", Warning, "by-id"},
		{"no name", func(w *ward) { os.Remove(w.o.Paths.InitiatorName) }, "initiator name", Problem, "missing"},
		{"bad name", func(w *ward) { w.write(w.o.Paths.InitiatorName, "InitiatorName=me\n") }, "initiator name", Warning, "no iSCSI name"},
		{"clock at its beginning", func(w *ward) { w.m.now = time.Unix(0, 0) }, "clock", Problem, "19"},
		{"free clock", func(w *ward) { w.m.synced = false }, "clock", Warning, "nothing keeps it right"},
		{"wrong line", func(w *ward) { w.write(w.o.Paths.Config, "node.startup\n") }, "iscsid.conf", Warning, "line 1"},
		{"password for all", func(w *ward) {
			w.write(w.o.Paths.Config, "node.session.auth.password = secretsecret\n")
			os.Chmod(w.o.Paths.Config, 0o644)
		}, "iscsid.conf", Warning, "0644"},
		{"no database", func(w *ward) { os.Remove(w.o.Paths.DB) }, "node database", Note, "no records"},
		{"database for all", func(w *ward) { os.Chmod(w.o.Paths.DB, 0o644) }, "node database", Warning, "0644"},
		{"damaged database", func(w *ward) { w.write(w.o.Paths.DB, strings.Repeat("no database\n", 1000)) }, "node database", Problem, ""},
		{"no daemon", func(w *ward) { w.d.err = &manager.ConnError{Code: errcode.ISCSIDNotConn} }, "iscsid", Note, "does not run"},
		{"no daemon for automatic records", func(w *ward) {
			w.d.err = &manager.ConnError{Code: errcode.ISCSIDNotConn}
			w.record("10.0.0.1", "startup", "automatic")
		}, "iscsid", Problem, "1 record should"},
		{"stopped daemon", func(w *ward) { w.d.err = &manager.ConnError{Code: errcode.ReqTimedOut, Err: errors.New("no answer")} }, "iscsid", Problem, "no answer"},
		{"another release", func(w *ward) { w.d.version = "0" }, "iscsid", Warning, "release 0"},
		{"daemon without nbd", func(w *ward) { w.d.noNBD = true }, "iscsid", Warning, "block devices"},
		{"lost session", func(w *ward) {
			w.d.sessions = []control.Session{{SID: 3, Target: "iqn.x", SessionState: "FAILED", ConnState: "TRANSPORT WAIT", LastError: "timed out"}}
		}, "sessions", Problem, "session 3 to iqn.x is TRANSPORT WAIT: timed out"},
		{"unit without device", func(w *ward) {
			w.d.sessions = []control.Session{{SID: 3, SessionState: control.SessionLoggedIn, Devices: []control.Device{{LUN: 2, Error: "open: denied"}}}}
		}, "sessions", Problem, "logical unit 2"},
		{"recovered session", func(w *ward) {
			w.d.sessions = []control.Session{{SID: 3, SessionState: control.SessionLoggedIn, Recoveries: 2}}
		}, "sessions", Note, "2 times"},
		{"CHAP without password", func(w *ward) { w.record("10.0.0.1", auth+"authmethod", "CHAP") }, "CHAP", Problem, "no password"},
		{"mutual alone", func(w *ward) { w.record("10.0.0.1", auth+"password_in", "secretsecret") }, "CHAP", Problem, "none of our own"},
		{"no user", func(w *ward) { w.record("10.0.0.1", auth+"authmethod", "CHAP", auth+"password", "secretsecret") }, "CHAP", Problem, "without a user name"},
		{"short password", func(w *ward) {
			w.record("10.0.0.1", auth+"authmethod", "CHAP", auth+"username", "u", auth+"password", "short")
		}, "CHAP", Warning, "5 bytes"},
		{"long password", func(w *ward) {
			w.record("10.0.0.1", auth+"authmethod", "CHAP", auth+"username", "u", auth+"password", "seventeen letters")
		}, "CHAP", Note, "17 bytes"},
		{"same passwords", func(w *ward) {
			w.record("10.0.0.1", auth+"authmethod", "CHAP", auth+"username", "u", auth+"password", "secretsecret", auth+"username_in", "t", auth+"password_in", "secretsecret")
		}, "CHAP", Problem, "both directions"},
		{"password for None", func(w *ward) { w.record("10.0.0.1", auth+"username", "u", auth+"password", "secretsecret") }, "CHAP", Note, "authmethod is None"},
		{"portal that is silent", func(w *ward) { w.record("10.0.0.2") }, "portal", Problem, "10.0.0.2:3260 does not answer within 10ms"},
		{"portal that refuses", func(w *ward) { w.m.errs = map[string]error{"10.0.0.1:3260": errors.New("connection refused")} }, "portal", Problem, "10.0.0.1:3260: connection refused"},
		{"far portal", func(w *ward) { w.m.paths["10.0.0.1:3260"] = Path{Connect: 50 * time.Millisecond} }, "latency", Warning, "50ms"},
		{"small packets on the way", func(w *ward) {
			w.m.paths["10.0.0.1:3260"] = Path{IfaceMTU: 9000, PathMTU: 1500, MSS: 1448, Local: netip.MustParseAddr("10.0.0.9")}
		}, "MTU", Warning, "1500"},
		{"small packets at the other end", func(w *ward) {
			w.m.paths["10.0.0.1:3260"] = Path{IfaceMTU: 9000, PathMTU: 9000, MSS: 1448, Local: netip.MustParseAddr("10.0.0.9")}
		}, "MTU", Warning, "1448"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWard(t)
			tt.spoil(w)
			all := w.examine()
			for _, f := range all {
				if f.Check == tt.check && f.Status == tt.status && strings.Contains(f.Text, tt.text) {
					if (f.Status == Problem || f.Status == Warning) && f.Advice == "" {
						t.Errorf("no advice with %+v", f)
					}
					return
				}
			}
			t.Errorf("no %s of %s with %q in %+v", tt.status, tt.check, tt.text, all)
		})
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	w := newWard(t)
	w.record("10.0.0.1", "session.auth.password", "hush", "session.auth.password_in", "hush")
	for _, f := range w.examine() {
		if strings.Contains(f.Text+f.Advice, "hush") {
			t.Errorf("%+v", f)
		}
	}
}

func TestExaminationEndsWithItsContext(t *testing.T) {
	w := newWard(t)
	w.record("10.0.0.2")
	w.o.Timeout = time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(enough) })
	if _, err := Examine(ctx, w.o); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

// TestThisMachine: the real one can be looked at by anybody.
func TestThisMachine(t *testing.T) {
	w := newWard(t)
	w.o.System = Machine{}
	w.o.Paths.Sys = "/sys"
	if len(w.examine()) < 8 {
		t.Error("few findings")
	}
}
