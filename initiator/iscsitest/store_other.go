//go:build !linux

package iscsitest

// Discard writes zeroes: this system has no portable way to punch holes.
func (s *FileStore) Discard(off, n int64) error { return fill(s, nullView[:], off, n) }

// WriteZeroes writes zeroes.
func (s *FileStore) WriteZeroes(off, n int64) error { return fill(s, nullView[:], off, n) }
