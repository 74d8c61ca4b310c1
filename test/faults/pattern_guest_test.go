//go:build guest

package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// A patternStore is a disk of any size that takes next to no memory: each
// block of it is all one byte pattern, that of its number.
type patternStore struct {
	size  int64
	mu    sync.Mutex
	have  []bool // blocks that were written
	count int
	bad   error
}

func newPatternStore(size int64) *patternStore {
	return &patternStore{size: size, have: make([]bool, size/chunk)}
}

// pattern is what block n of a patternStore holds once it was written. It is
// made on the stack: nothing here shall ask for memory.
func pattern(n int64) (b [chunk]byte) {
	for i := 0; i < chunk; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(n+1)*0x9e3779b97f4a7c15+uint64(i))
	}
	return b
}

func (s *patternStore) Size() int64 { return s.size }
func (s *patternStore) Sync() error { return nil }

func (s *patternStore) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < len(p); {
		n, at := (off+int64(i))/chunk, int((off+int64(i))%chunk)
		step := min(chunk-at, len(p)-i)
		if s.have[n] {
			b := pattern(n)
			copy(p[i:i+step], b[at:])
		} else {
			clear(p[i : i+step])
		}
		i += step
	}
	return len(p), nil
}

func (s *patternStore) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off%chunk != 0 || len(p)%chunk != 0 {
		return 0, errors.New("not whole blocks")
	}
	for i := 0; i < len(p); i += chunk {
		n := (off + int64(i)) / chunk
		if [chunk]byte(p[i:i+chunk]) != pattern(n) && s.bad == nil {
			s.bad = fmt.Errorf("block %d is written with % x…", n, p[i:i+16])
		}
		if !s.have[n] {
			s.have[n] = true
			s.count++
		}
	}
	return len(p), nil
}

// written wants that every block was written, with what belongs there.
func (s *patternStore) written(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad != nil || int64(s.count) != s.size/chunk {
		t.Errorf("%d of %d blocks arrived: %v", s.count, s.size/chunk, s.bad)
	}
}

// patternWriter, in the environment, makes the test's binary a process that fills
// the disks that its arguments name, through the page cache, or reads them.
const patternWriter = "FAULTS_PATTERN"

func TestMain(m *testing.M) {
	var work func(disks []*os.File, size int64) error
	switch os.Getenv(patternWriter) {
	case "write":
		work = writePattern
	case "read":
		work = readPattern
	default:
		os.Exit(m.Run())
	}
	if err := onDisks(os.Args[2:], os.Args[1], work); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func onDisks(names []string, size string, work func([]*os.File, int64) error) error {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	var disks []*os.File
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		disks = append(disks, f)
	}
	return work(disks, n)
}

// writePattern fills the disks side by side, so that all have dirty pages.
func writePattern(disks []*os.File, size int64) error {
	buf := make([]byte, 0, 1<<20)
	for n := int64(0); n < size/chunk; {
		for buf = buf[:0]; len(buf) < cap(buf); n++ {
			b := pattern(n)
			buf = append(buf, b[:]...)
		}
		for _, f := range disks {
			if _, err := f.Write(buf); err != nil {
				return err
			}
		}
	}
	for _, f := range disks {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// readPattern reads some of all blocks, from the disks and not from the cache.
func readPattern(disks []*os.File, size int64) error {
	const fadvDontNeed = 4
	for _, f := range disks {
		if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, fadvDontNeed, 0, 0); errno != 0 {
			return errno
		}
	}
	var b [chunk]byte
	for n := int64(0); n < size/chunk; n += 97 {
		for _, f := range disks {
			if _, err := f.ReadAt(b[:], n*chunk); err != nil {
				return err
			}
			if b != pattern(n) {
				return fmt.Errorf("%s: block %d reads % x…", f.Name(), n, b[:16])
			}
		}
	}
	return nil
}
