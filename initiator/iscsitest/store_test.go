package iscsitest_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// TestStoresAgreeWithMemory does the same random things to a store and to a
// plain slice.
func TestStoresAgreeWithMemory(t *testing.T) {
	const size = 300 << 10
	file, err := iscsitest.OpenFileStore(filepath.Join(t.TempDir(), "disk"), size, false)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, s := range map[string]iscsitest.Store{"memory": iscsitest.NewMemStore(size), "file": file} {
		t.Run(name, func(t *testing.T) {
			if s.Size() != size {
				t.Fatalf("size %d", s.Size())
			}
			r := rand.New(rand.NewPCG(1, 2))
			model := make([]byte, size)
			for range 300 {
				off := r.IntN(size)
				n := r.IntN(min(size-off, 100<<10) + 1)
				switch r.IntN(4) {
				case 0:
					b := pattern(n, byte(r.Uint32()))
					copy(model[off:], b)
					if _, err := s.WriteAt(b, int64(off)); err != nil {
						t.Fatal(err)
					}
				case 1:
					clear(model[off : off+n])
					if err := s.(iscsitest.Discarder).Discard(int64(off), int64(n)); err != nil {
						t.Fatal(err)
					}
				case 2:
					clear(model[off : off+n])
					if err := s.(iscsitest.ZeroWriter).WriteZeroes(int64(off), int64(n)); err != nil {
						t.Fatal(err)
					}
				}
				got := make([]byte, n)
				if _, err := s.ReadAt(got, int64(off)); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, model[off:off+n]) {
					t.Fatalf("contents of [%d,%d) differ", off, off+n)
				}
			}
			if err := s.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMemStoreBounds(t *testing.T) {
	m := iscsitest.NewMemStore(100)
	for _, off := range []int64{-1, 91, 1 << 62} {
		if _, err := m.ReadAt(make([]byte, 10), off); err == nil {
			t.Errorf("read at %d", off)
		}
		if _, err := m.WriteAt(make([]byte, 10), off); err == nil {
			t.Errorf("write at %d", off)
		}
	}
	if m.Discard(50, 51) == nil {
		t.Error("discard beyond the end")
	}
}

func TestNullStore(t *testing.T) {
	s := iscsitest.NullStore(1 << 40)
	b := []byte{1, 2, 3}
	if _, err := s.WriteAt(b, 5); err != nil {
		t.Error(err)
	}
	if _, err := s.ReadAt(b, 5); err != nil || !bytes.Equal(b, make([]byte, 3)) {
		t.Errorf("read %v, %v", b, err)
	}
	if v := s.View(0, 4096); len(v) != 4096 {
		t.Errorf("view of %d bytes", len(v))
	}
	if s.View(0, 2<<20) != nil {
		t.Error("view of 2 MiB")
	}
}

func TestOpenFileStore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	if _, err := iscsitest.OpenFileStore(path, 0, false); !os.IsNotExist(err) {
		t.Errorf("no file and no size: %v", err)
	}
	s, err := iscsitest.OpenFileStore(path, 4096, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteAt([]byte("x"), 4095); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ro, err := iscsitest.OpenFileStore(path, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	if ro.Size() != 4096 {
		t.Errorf("size %d", ro.Size())
	}
	if _, err := ro.WriteAt([]byte("y"), 0); err == nil {
		t.Error("wrote to a file opened for reading")
	}
}

func TestNewRefusesBadConfigs(t *testing.T) {
	lun := func(l *iscsitest.LUN) iscsitest.Config {
		return iscsitest.Config{Targets: []iscsitest.Target{{Name: target, LUNs: map[uint64]*iscsitest.LUN{1: l}}}}
	}
	mem := iscsitest.NewMemStore(1 << 20)
	tests := map[string]struct {
		cfg  iscsitest.Config
		want string
	}{
		"name":        {iscsitest.Config{Targets: []iscsitest.Target{{Name: "a b"}}}, "a b"},
		"twice":       {iscsitest.Config{Targets: []iscsitest.Target{{Name: "a"}, {Name: "a"}}}, "twice"},
		"nil":         {lun(nil), "nil"},
		"no store":    {lun(&iscsitest.LUN{}), "store"},
		"block size":  {lun(&iscsitest.LUN{Store: mem, BlockSize: 1000}), "block size"},
		"tiny store":  {lun(&iscsitest.LUN{Store: iscsitest.NewMemStore(511)}), "smaller"},
		"naa":         {lun(&iscsitest.LUN{Store: mem, NAA: []byte{1}}), "naa"},
		"vendor":      {lun(&iscsitest.LUN{Store: mem, Vendor: "much too long"}), "too long"},
		"thin":        {lun(&iscsitest.LUN{Store: plainStore{mem}, Thin: true}), "Discarder"},
		"algorithm":   {iscsitest.Config{DiscoveryCHAP: iscsitest.CHAP{Algorithms: []uint8{9}}}, "algorithm 9"},
		"max burst":   {iscsitest.Config{Params: iscsitest.Params{MaxBurstLength: 511}}, "MaxBurstLength"},
		"outstanding": {iscsitest.Config{Params: iscsitest.Params{MaxOutstandingR2T: 65536}}, "MaxOutstandingR2T"},
	}
	for name, tt := range tests {
		if _, err := iscsitest.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// plainStore hides the optional methods of a store.
type plainStore struct{ iscsitest.Store }

func TestStartReportsBadAddress(t *testing.T) {
	srv := iscsitest.NewUnstartedServer(iscsitest.Config{Addrs: []string{"127.0.0.1:0", "192.0.2.1:1"}})
	if err := srv.Start(); err == nil {
		t.Error("listens on an address of another machine")
		srv.Close()
	}
}

func TestIdentityIsStable(t *testing.T) {
	serve := func() *iscsitest.LUN {
		_, lun := newServer(t, nil)
		return lun
	}
	a, b := serve(), serve()
	if a.Serial != b.Serial || !bytes.Equal(a.NAA, b.NAA) || len(a.NAA) != 16 || a.NAA[0]>>4 != 6 {
		t.Errorf("identities %s %x and %s %x", a.Serial, a.NAA, b.Serial, b.NAA)
	}
}

func TestUnitWithOtherBlockSize(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) {
		c.Targets[0].LUNs[2] = &iscsitest.LUN{Store: iscsitest.NewMemStore(1 << 20), BlockSize: 4096, MaxTransfer: 4}
	})
	c := login(t, srv)
	data := pattern(8192, 7)
	c.out(2, writeCDB(3, 2), data).good(t)
	if o := c.in(2, readCDB(3, 2), 8192).good(t); !bytes.Equal(o.data, data) {
		t.Error("read back differs")
	}
	c.in(2, readCDB(0, 5), 5*4096).fails(t, scsi.KeyIllegalRequest, 0x24, 0)
}

func TestMemStoreForgetsWhatIsCutOff(t *testing.T) {
	s := iscsitest.NewMemStore(200 << 10)
	if _, err := s.WriteAt(bytes.Repeat([]byte{1}, 200<<10), 0); err != nil {
		t.Fatal(err)
	}
	s.Resize(100 << 10)
	if _, err := s.ReadAt(make([]byte, 1), 100<<10); err == nil {
		t.Error("reads beyond the end")
	}
	s.Resize(200 << 10)
	got := make([]byte, 200<<10)
	if _, err := s.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Repeat([]byte{1}, 100<<10), make([]byte, 100<<10)...)
	if !bytes.Equal(got, want) {
		t.Error("what was cut off came back")
	}
}
