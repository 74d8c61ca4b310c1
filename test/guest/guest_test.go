package guest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTail(t *testing.T) {
	const text = "one\ntwo\nthree\n"
	for _, tc := range []struct {
		n    int
		want string
	}{{1, "three"}, {2, "two\nthree"}, {3, "one\ntwo\nthree"}, {9, "one\ntwo\nthree"}} {
		if got := string(Tail([]byte(text), tc.n)); got != tc.want {
			t.Errorf("last %d lines: got %q, want %q", tc.n, got, tc.want)
		}
	}
	if got := Tail(nil, 3); len(got) != 0 {
		t.Errorf("last lines of nothing: %q", got)
	}
}

func TestFill(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "sub", "program"), []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	job := Job{Script: "run\n", Env: []string{"WORDS=it's two"}, Files: map[string]string{"tools": src}}
	if err := fill(dir, job); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(dir, ".job"))
	if want := "export WORDS='it'\\''s two'\nrun\n"; err != nil || string(script) != want {
		t.Errorf("script is %q (%v), want %q", script, err, want)
	}
	st, err := os.Stat(filepath.Join(dir, "tools", "sub", "program"))
	if err != nil || st.Mode().Perm()&0o100 == 0 {
		t.Errorf("program was not copied as such: %v, %v", st, err)
	}
	job.Files = map[string]string{"../outside": src}
	if err := fill(dir, job); err == nil {
		t.Error("a file outside of the exchange directory was accepted")
	}
}
