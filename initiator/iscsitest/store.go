package iscsitest

import (
	"io"
	"os"
	"sync"
)

// A Store holds the blocks of a logical unit. Reads and writes lie within
// Size, which does not change unless LUN.Resized says so, and come from
// several goroutines at once. Errors become MEDIUM ERROR.
type Store interface {
	io.ReaderAt
	io.WriterAt
	// Size returns the size in bytes.
	Size() int64
	// Sync makes what was written durable.
	Sync() error
}

// A Discarder is a Store that can give up ranges, which read as zeroes from
// then on.
type Discarder interface {
	Discard(off, n int64) error
}

// A ZeroWriter is a Store that can write zeroes without being sent them.
type ZeroWriter interface {
	WriteZeroes(off, n int64) error
}

// A Viewer is a Store that can show its contents without a copy: read-only
// memory of n bytes that stays as it is. It may refuse by returning nil.
type Viewer interface {
	View(off int64, n int) []byte
}

// memChunk is the unit in which a MemStore holds memory.
const memChunk = 64 << 10

// A MemStore is a sparse Store in memory: what was never written, or was
// discarded, takes none.
type MemStore struct {
	// mu guards size, chunks and their contents: readers share it.
	mu     sync.RWMutex
	size   int64
	chunks map[int64]*[memChunk]byte
}

// NewMemStore returns an empty MemStore of size bytes.
func NewMemStore(size int64) *MemStore {
	return &MemStore{size: size, chunks: map[int64]*[memChunk]byte{}}
}

// Size returns the size in bytes.
func (m *MemStore) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size
}

// Resize changes the size. What is cut off is gone for good. Server.Resized tells
// the initiators of it.
func (m *MemStore) Resize(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.size = size
	last := size / memChunk
	for chunk, c := range m.chunks {
		switch {
		case chunk > last:
			delete(m.chunks, chunk)
		case chunk == last:
			clear(c[size%memChunk:])
		}
	}
}

// Sync does nothing.
func (m *MemStore) Sync() error { return nil }

// Allocated returns how many bytes of memory hold contents.
func (m *MemStore) Allocated() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return int64(len(m.chunks)) * memChunk
}

// pieces calls f for each part of [off, off+n) that lies in one chunk. The caller
// holds mu.
func (m *MemStore) pieces(off, n int64, f func(chunk int64, from, to int, done int64)) error {
	if off < 0 || n < 0 || off > m.size-n {
		return io.ErrUnexpectedEOF
	}
	for done := int64(0); done < n; {
		chunk, from := (off+done)/memChunk, int((off+done)%memChunk)
		to := int(min(memChunk, int64(from)+n-done))
		f(chunk, from, to, done)
		done += int64(to - from)
	}
	return nil
}

// ReadAt implements io.ReaderAt within Size.
func (m *MemStore) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	err := m.pieces(off, int64(len(p)), func(chunk int64, from, to int, done int64) {
		dst := p[done : done+int64(to-from)]
		if c := m.chunks[chunk]; c != nil {
			copy(dst, c[from:to])
		} else {
			clear(dst)
		}
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt implements io.WriterAt within Size.
func (m *MemStore) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.pieces(off, int64(len(p)), func(chunk int64, from, to int, done int64) {
		c := m.chunks[chunk]
		if c == nil {
			c = new([memChunk]byte)
			m.chunks[chunk] = c
		}
		copy(c[from:to], p[done:])
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Discard implements Discarder: whole chunks are let go of.
func (m *MemStore) Discard(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pieces(off, n, func(chunk int64, from, to int, _ int64) {
		c := m.chunks[chunk]
		switch {
		case c == nil:
		case from == 0 && to == memChunk:
			delete(m.chunks, chunk)
		default:
			clear(c[from:to])
		}
	})
}

// WriteZeroes implements ZeroWriter.
func (m *MemStore) WriteZeroes(off, n int64) error { return m.Discard(off, n) }

// A NullStore reads as zeroes and forgets what is written: the store for
// measuring everything but the store.
type NullStore int64

// nullView is what every NullStore shows, never written.
var nullView [1 << 20]byte

// Size returns the size in bytes.
func (s NullStore) Size() int64 { return int64(s) }

// Sync does nothing.
func (NullStore) Sync() error { return nil }

// ReadAt fills p with zeroes.
func (NullStore) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// WriteAt does nothing.
func (NullStore) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// Discard does nothing.
func (NullStore) Discard(int64, int64) error { return nil }

// WriteZeroes does nothing.
func (NullStore) WriteZeroes(int64, int64) error { return nil }

// View implements Viewer for up to 1 MiB.
func (NullStore) View(_ int64, n int) []byte {
	if n > len(nullView) {
		return nil
	}
	return nullView[:n:n]
}

// A FileStore is a file or block device. Discard and WriteZeroes punch holes
// where the system can.
type FileStore struct {
	f    *os.File
	size int64
}

// OpenFileStore opens a file or block device. If size is not 0 and the file
// is shorter or does not exist, it is made that long. readOnly opens it for
// reading.
func OpenFileStore(path string, size int64, readOnly bool) (*FileStore, error) {
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	} else if size > 0 {
		flag |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && size > end && !readOnly {
		end, err = size, f.Truncate(size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if size == 0 {
		size = end
	}
	return &FileStore{f: f, size: min(size, end)}, nil
}

// Size returns the size in bytes.
func (s *FileStore) Size() int64 { return s.size }

// ReadAt reads from the file.
func (s *FileStore) ReadAt(p []byte, off int64) (int, error) { return s.f.ReadAt(p, off) }

// WriteAt writes to the file.
func (s *FileStore) WriteAt(p []byte, off int64) (int, error) { return s.f.WriteAt(p, off) }

// Sync flushes the file to the disk.
func (s *FileStore) Sync() error { return s.f.Sync() }

// Close closes the file.
func (s *FileStore) Close() error { return s.f.Close() }

// writeZeroes writes zeroes to any store, with the help of its own methods if
// it has them.
func writeZeroes(s Store, off, n int64) error {
	if z, ok := s.(ZeroWriter); ok {
		return z.WriteZeroes(off, n)
	}
	return fill(s, nullView[:], off, n)
}

// fill writes n bytes at off, repeating what is in pattern, whose length
// divides n or exceeds it.
func fill(s Store, pattern []byte, off, n int64) error {
	for n > 0 {
		p := pattern[:min(n, int64(len(pattern)))]
		if _, err := s.WriteAt(p, off); err != nil {
			return err
		}
		off += int64(len(p))
		n -= int64(len(p))
	}
	return nil
}

var (
	_ Discarder  = (*MemStore)(nil)
	_ ZeroWriter = (*MemStore)(nil)
	_ Viewer     = NullStore(0)
	_ Discarder  = (*FileStore)(nil)
	_ ZeroWriter = (*FileStore)(nil)
)
