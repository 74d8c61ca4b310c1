package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func testStore(t *testing.T, dir, boot string) *store {
	t.Helper()
	s, err := openStore(dir, boot, "inst", 4, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNumbersAreNeverUsedTwiceInABoot(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir, "boot1")
	for want := 1; want <= 3; want++ {
		if want == 3 { // the daemon was started again
			s = testStore(t, dir, "boot1")
		}
		sid, host, err := s.next()
		if err != nil || sid != want || host != want+3 {
			t.Fatalf("next() = %d, %d, %v, want %d, %d", sid, host, err, want, want+3)
		}
	}
	if sid, host, _ := testStore(t, dir, "boot2").next(); sid != 1 || host != 4 {
		t.Errorf("after a boot: sid %d, host %d", sid, host)
	}
}

func TestInstanceOutlivesTheDaemon(t *testing.T) {
	dir := t.TempDir()
	testStore(t, dir, "boot1")
	s, err := openStore(dir, "boot1", "another", 0, slog.New(slog.DiscardHandler))
	if err != nil || s.instance != "inst" {
		t.Errorf("instance %q, %v", s.instance, err)
	}
}

func TestDamagedCountersDoNotMakeSidsRepeat(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir, "boot1")
	if err := s.put(&sessionState{SID: 17, Host: 20}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, countersFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if sid, host, err := testStore(t, dir, "boot1").next(); sid != 18 || host != 21 || err != nil {
		t.Errorf("next() = %d, %d, %v", sid, host, err)
	}
}

func TestLoadPassesOverWhatIsNoState(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir, "boot1")
	for _, sid := range []int{10, 2} {
		if err := s.put(&sessionState{SID: sid, Record: map[string]string{"node.name": "x"}}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"session-3.json": `{"version":1,"boot":"boot1","sid":4}`, // another's name
		"session-5.json": "", "session-x.json": "{}", "other": "x",
		"session-6.json":       `{"version":99,"boot":"boot1","sid":6}`,
		"session-7.json":       `{"version":1,"boot":"boot0","sid":7}`,
		".new-session-8.json":  `{"ver`,
		"session-0.json":       `{"version":1,"boot":"boot1","sid":0}`,
		"session-10.json.bad1": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.load()
	if err != nil || len(got) != 2 || got[0].SID != 2 || got[1].SID != 10 {
		t.Fatalf("load() = %v, %v", got, err)
	}
	for name, want := range map[string]bool{
		"session-3.json.bad": true, "session-5.json.bad": true, "session-6.json": true, "session-7.json": false, ".new-session-8.json": false,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
}

func FuzzReadState(f *testing.F) {
	f.Add([]byte(`{"version":1,"boot":"b","sid":1,"units":[{"lun":281474976710656,"index":-1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, sessionFile(1)), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := testStore(t, dir, "b").load(); err != nil {
			t.Fatal(err)
		}
	})
}
