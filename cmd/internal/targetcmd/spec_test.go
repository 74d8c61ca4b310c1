package targetcmd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
)

func noEnv(string) string { return "" }

func TestFlagsBeforeTheFirstTargetApplyToAll(t *testing.T) {
	var s specs
	s.current().controller = true
	s.current().unit.blockSize = 4096
	s.current().addUnit("mem", "1M")
	for _, name := range []string{"a", "b"} {
		if err := s.begin(name); err != nil {
			t.Fatal(err)
		}
	}
	s.current().unit.readOnly = true
	s.current().addUnit("null", "1G")
	targets, files, err := s.build(noEnv)
	if err != nil || len(files) != 0 || len(targets) != 2 {
		t.Fatalf("%d targets, %d files, %v", len(targets), len(files), err)
	}
	a, b := targets[0], targets[1]
	if !a.Controller || !b.Controller || len(a.LUNs) != 1 || len(b.LUNs) != 2 {
		t.Errorf("targets %+v and %+v", a, b)
	}
	if a.LUNs[1] != b.LUNs[1] {
		t.Error("the unit of all targets is not one unit")
	}
	if l := b.LUNs[1]; l.BlockSize != 4096 || l.ReadOnly || l.Store.Size() != 1<<20 {
		t.Errorf("lun 1: %+v", l)
	}
	if l := b.LUNs[2]; l.BlockSize != 4096 || !l.ReadOnly || l.Store != iscsitest.Store(iscsitest.NullStore(1<<30)) {
		t.Errorf("lun 2: %+v", l)
	}
}

func TestSecretsComeFromFileOrEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("from the file\r\nnot this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(name string) string {
		return map[string]string{envPassword: "from the environment", envMutualPassword: "mutual"}[name]
	}
	spec := targetSpec{user: "u", mutualUser: "m"}
	c, err := spec.chap(env)
	if want := (iscsitest.CHAP{Username: "u", Password: "from the environment", MutualUsername: "m", MutualPassword: "mutual"}); err != nil ||
		c.Username != want.Username || c.Password != want.Password || c.MutualUsername != want.MutualUsername || c.MutualPassword != want.MutualPassword {
		t.Errorf("%+v, %v", c, err)
	}
	spec.passwordFile = file
	if c, err := spec.chap(env); err != nil || c.Password != "from the file" {
		t.Errorf("%+v, %v", c, err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := spec.chap(noEnv); err == nil {
		t.Error("an empty secret was taken")
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "512": 512, "4K": 4096, "4k": 4096, "64M": 64 << 20, "1G": 1 << 30, "8T": 8 << 40} {
		if got, err := parseSize(s); got != want || err != nil {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "K", "0", "-1", "1.5G", "1KB", "9999999T", "0x10"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}
