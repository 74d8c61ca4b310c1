package iscsitest

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Discard punches a hole into the file.
func (s *FileStore) Discard(off, n int64) error {
	return s.allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// WriteZeroes has the file system write zeroes, or writes them itself.
func (s *FileStore) WriteZeroes(off, n int64) error {
	return s.allocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// allocate falls back to writing where the file system cannot: the contents
// have to read as zeroes afterwards.
func (s *FileStore) allocate(mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(int(s.f.Fd()), mode, off, n)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			return fill(s, nullView[:], off, n)
		}
		return err
	}
}
