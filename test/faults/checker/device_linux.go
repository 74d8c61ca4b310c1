package checker

import (
	"io"
	"os"
	"syscall"
)

// A Device is a block device or file, past the page cache.
type Device struct {
	*os.File
	size int64
}

// OpenDevice opens a block device, or a file, for direct I/O.
func OpenDevice(path string) (*Device, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Device{f, size}, nil
}

// Flush has the device write its cache out.
func (d *Device) Flush() error { return d.Sync() }

// Size is the size in bytes when it was opened.
func (d *Device) Size() int64 { return d.size }
