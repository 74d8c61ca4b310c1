package compatsysfs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
)

// realSys makes a directory that looks like the parts of a real /sys that matter
// here: an nbd device with a partition and the links to both.
func realSys(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for p, text := range map[string]string{
		"kernel/uevent_seqnum":                       "7\n",
		"class/net/only-a-file":                      "x\n",
		"devices/virtual/block/nbd0/dev":             "43:0\n",
		"devices/virtual/block/nbd0/queue/nr":        "64\n",
		"devices/virtual/block/nbd0/nbd0p1/dev":      "43:1\n",
		"devices/virtual/block/nbd1/dev":             "43:32\n",
		"devices/virtual/bdi/43:0/read_ahead_kb":     "128\n",
		"bus/scsi/drivers_probe":                     "",
		"bus/pci/devices/only-a-file":                "x\n",
		"module/scsi_transport_iscsi/parameters/dbg": "N\n",
	} {
		file := filepath.Join(dir, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for p, to := range map[string]string{
		"block/nbd0":                           "../devices/virtual/block/nbd0",
		"block/nbd1":                           "../devices/virtual/block/nbd1",
		"class/block/nbd0":                     "../../devices/virtual/block/nbd0",
		"class/block/nbd0p1":                   "../../devices/virtual/block/nbd0/nbd0p1",
		"dev/block/43:0":                       "../../devices/virtual/block/nbd0",
		"dev/block/43:1":                       "../../devices/virtual/block/nbd0/nbd0p1",
		"devices/virtual/block/nbd0/subsystem": "../../../../class/block",
		"devices/virtual/block/nbd0/bdi":       "../../bdi/43:0",
		"devices/virtual/block/nbd0/nbd0p1/up": "../queue",
		"kernel/outside":                       "../../../../etc",
		"kernel/absolute":                      "/etc/passwd",
	} {
		file := filepath.Join(dir, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.Symlink(to, file)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newView(t *testing.T, d Daemon) *view {
	t.Helper()
	root, err := os.OpenRoot(realSys(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &view{src: newSource(d, slog.New(slog.DiscardHandler)), real: root}
}

const unit1 = "devices/platform/host7/session3/target7:0:0/7:0:0:1"

func TestViewTurnsLinksIntoGrafts(t *testing.T) {
	v := newView(t, &calls{sessions: snapshot()})
	for p, want := range map[string]string{
		"block/nbd0":                          "../" + unit1 + "/block/nbd0",
		"block/nbd1":                          "../devices/virtual/block/nbd1",
		"class/block/nbd0p1":                  "../../" + unit1 + "/block/nbd0/nbd0p1",
		"dev/block/43:0":                      "../../" + unit1 + "/block/nbd0",
		"dev/block/43:1":                      "../../" + unit1 + "/block/nbd0/nbd0p1",
		unit1 + "/block/nbd0/device":          "../../../7:0:0:1",
		unit1 + "/block/nbd0/subsystem":       "../../../../../../../../class/block",
		unit1 + "/block/nbd0/bdi":             "../../../../../../../virtual/bdi/43:0",
		unit1 + "/block/nbd0/nbd0p1/up":       "../queue",
		"devices/virtual/block/nbd0/bdi":      "../../bdi/43:0",
		"kernel/outside":                      "../../../../etc",
		"kernel/absolute":                     "/etc/passwd",
		"class/iscsi_session/session3":        "../../devices/platform/host7/session3/iscsi_session/session3",
		"devices/platform/host7/subsystem":    "../../../bus/scsi",
		unit1 + "/scsi_device/7:0:0:1/device": "../../../7:0:0:1",
	} {
		e, err := v.lookup(t.Context(), p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if got, err := v.readlink(e); got != want || err != nil {
			t.Errorf("%s -> %s, want %s (%v)", p, got, want, err)
		}
	}
}

func TestViewMergesDirectories(t *testing.T) {
	v := newView(t, &calls{sessions: snapshot()})
	for p, want := range map[string]string{
		"bus/scsi":                    "devices drivers drivers_probe",
		"block":                       "nbd0 nbd1",
		"class":                       "block iscsi_connection iscsi_host iscsi_session iscsi_transport net scsi_device scsi_disk scsi_host",
		"kernel":                      "absolute outside uevent_seqnum",
		unit1 + "/block/nbd0":         "bdi dev device nbd0p1 queue subsystem",
		"module":                      "iscsi_tcp scsi_transport_iscsi",
		"module/scsi_transport_iscsi": "parameters version",
		"class/iscsi_host":            "host7",
	} {
		e, err := v.lookup(t.Context(), p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		names, err := v.list(e)
		var got []string
		for _, n := range names {
			got = append(got, n.name)
		}
		if s := strings.Join(got, " "); s != want || err != nil {
			t.Errorf("%s has %q, want %q (%v)", p, s, want, err)
		}
	}
}

func TestViewStat(t *testing.T) {
	v := newView(t, &calls{sessions: snapshot()})
	for p, want := range map[string]uint32{
		".":                                 syscall.S_IFDIR | 0o755,
		"kernel":                            syscall.S_IFDIR | 0o755,
		"kernel/uevent_seqnum":              syscall.S_IFREG | 0o644,
		unit1 + "/delete":                   syscall.S_IFREG | 0o200,
		unit1 + "/block/nbd0/queue/nr":      syscall.S_IFREG | 0o644,
		"class/scsi_host/host7":             syscall.S_IFLNK | 0o777,
		"devices/platform/host7/session3":   syscall.S_IFDIR | 0o755,
		"devices/virtual/block/nbd0/nbd0p1": syscall.S_IFDIR | 0o755,
	} {
		e, err := v.lookup(t.Context(), p)
		var st syscall.Stat_t
		if err == nil {
			err = v.stat(e, &st)
		}
		if err != nil || st.Mode != want {
			t.Errorf("%s: mode %o, want %o (%v)", p, st.Mode, want, err)
		}
	}
	for _, p := range []string{"nothing", unit1 + "/nothing", "class/iscsi_session/session4", unit1 + "/block/nbd0/nbd0p2", "kernel/uevent_seqnum/x", "../etc"} {
		if _, err := v.lookup(t.Context(), p); err == nil {
			t.Errorf("%s is there", p)
		} else if errno := errnoOf(err); errno != syscall.ENOENT && errno != syscall.ENOTDIR && errno != syscall.EIO {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// What is not ours is there without iscsid, and not even asked about.
func TestRealFilesDoNotNeedTheDaemon(t *testing.T) {
	v := newView(t, nil) // a question would panic
	if _, err := v.lookup(t.Context(), "kernel/uevent_seqnum"); err != nil {
		t.Error(err)
	}
	if _, err := v.lookup(t.Context(), "kernel/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A clock that moves when it is told to.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestSourceKeepsAnAnswerAsLongAsItTook(t *testing.T) {
	d := &slow{calls: calls{sessions: snapshot()}, clock: &clock{time.Unix(1, 0)}, takes: 5 * time.Millisecond}
	s := newSource(d, slog.New(slog.DiscardHandler))
	s.now = d.clock.now
	first := s.current(t.Context())
	d.clock.t = d.clock.t.Add(4 * time.Millisecond)
	if s.current(t.Context()) != first || d.asked != 1 {
		t.Errorf("asked %d times within the time that an answer takes", d.asked)
	}
	d.clock.t = d.clock.t.Add(time.Millisecond)
	if s.current(t.Context()) != first || d.asked != 2 {
		t.Errorf("asked %d times, want twice; or the same answer made another tree", d.asked)
	}
	// After a write, nothing old is shown.
	if err := s.write(t.Context(), unit1+"/rescan", &node{act: action{verb: verbRescan}}, "1"); err != nil {
		t.Error(err)
	}
	d.sessions = nil
	if n, _ := s.current(t.Context()).find("class/iscsi_session/session3"); n != nil {
		t.Error("the tree from before the write is shown")
	}
}

// slow is a Daemon whose list takes a time.
type slow struct {
	calls
	clock *clock
	takes time.Duration
	asked int
}

func (d *slow) Sessions(ctx context.Context, q control.SessionQuery) ([]control.Session, error) {
	d.asked++
	d.clock.t = d.clock.t.Add(d.takes)
	return d.calls.Sessions(ctx, q)
}

func TestSourceShowsLostSessionsWhileTheDaemonIsGone(t *testing.T) {
	d := &calls{sessions: snapshot()}
	s := newSource(d, slog.New(slog.DiscardHandler))
	s.current(t.Context())
	read := func(p string) string {
		t.Helper()
		s.until = time.Time{}
		n, _ := s.current(t.Context()).find(p)
		if n == nil {
			return "gone"
		}
		return n.text
	}
	d.err = &control.ConnError{Err: syscall.ECONNREFUSED}
	if got := read(unit1 + "/state"); got != "blocked\n" {
		t.Errorf("disk is %q", got)
	}
	if got := read("devices/platform/host7/session3/iscsi_session/session3/state"); got != "FAILED\n" {
		t.Errorf("session is %q", got)
	}
	if d.sessions[0].Devices[1].State != "running" {
		t.Error("the daemon's answer was changed")
	}
	d.err = nil
	if got := read(unit1 + "/state"); got != "running\n" {
		t.Errorf("disk is %q when the daemon is back", got)
	}
}

func TestSourceKeepsWhatIsWrittenAsLongAsTheFileLives(t *testing.T) {
	d := &calls{sessions: snapshot()}
	s := newSource(d, slog.New(slog.DiscardHandler))
	const file = unit1 + "/timeout"
	text := func() string {
		t.Helper()
		s.until = time.Time{}
		n, _ := s.current(t.Context()).find(file)
		if n == nil {
			return "gone"
		}
		got, err := s.text(t.Context(), file, n)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	n, _ := s.current(t.Context()).find(file)
	if err := s.write(t.Context(), file, n, "77\n"); err != nil {
		t.Fatal(err)
	}
	if got := text(); got != "77\n" {
		t.Errorf("kept %q", got)
	}
	if err := s.write(t.Context(), file, n, "soon\n"); err == nil || text() != "77\n" {
		t.Errorf("after a refused write: %q, %v", text(), err)
	}
	d.sessions = nil
	if got := text(); got != "gone" {
		t.Errorf("after the logout: %q", got)
	}
	d.sessions = slices.Clone(snapshot())
	if got := text(); got != "30\n" {
		t.Errorf("in the next session: %q", got)
	}
}
