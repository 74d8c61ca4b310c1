//go:build linux

package nbdtest

import (
	"sync"
	"syscall"

	"github.com/goiscsi/goiscsi/nbd"
)

// A Memory is a backend that keeps its disk in memory and completes requests
// within Submit. It is safe for concurrent use, and may serve several
// connections.
type Memory struct {
	mu   sync.RWMutex // protects what follows
	data []byte
	hook func(*nbd.Request) syscall.Errno
	seen map[seenKey]int
}

// seenKey tells the requests apart that Seen counts.
type seenKey struct {
	cmd   nbd.Command
	flags nbd.CommandFlags
}

var _ nbd.Backend = (*Memory)(nil)

// NewMemory returns a disk of size bytes, all zero.
func NewMemory(size int) *Memory {
	return &Memory{data: make([]byte, size), seen: make(map[seenKey]int)}
}

// Export returns an export of the disk with all that a backend can offer.
func (m *Memory) Export(name string) *nbd.Export {
	return &nbd.Export{
		Name: name, Size: uint64(m.Size()), BlockSize: 512,
		Flush: true, FUA: true, Trim: true, WriteZeroes: true, MultiConn: true,
	}
}

// Size returns the disk's size in bytes.
func (m *Memory) Size() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.data)
}

// Resize changes the disk's size; what is added is zero.
func (m *Memory) Resize(size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data := make([]byte, size)
	copy(data, m.data)
	m.data = data
}

// Bytes returns a copy of n bytes at offset off.
func (m *Memory) Bytes(off, n int) []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return append([]byte(nil), m.data[off:off+n]...)
}

// Hook has fn see every request before it is done; an errno other than 0
// completes it with that. fn is called with no lock held and may block, which
// holds up the connection. nil removes it.
func (m *Memory) Hook(fn func(*nbd.Request) syscall.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = fn
}

// Seen returns how many requests came with exactly this command and these flags.
func (m *Memory) Seen(cmd nbd.Command, flags nbd.CommandFlags) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.seen[seenKey{cmd, flags}]
}

// Submit implements nbd.Backend.
func (m *Memory) Submit(r *nbd.Request) {
	m.mu.Lock()
	m.seen[seenKey{r.Cmd, r.Flags}]++
	hook := m.hook
	m.mu.Unlock()
	if hook != nil {
		if errno := hook(r); errno != 0 {
			r.Complete(errno)
			return
		}
	}
	r.Complete(m.do(r))
}

// do does a request.
func (m *Memory) do(r *nbd.Request) syscall.Errno {
	if r.Cmd == nbd.CmdRead {
		m.mu.RLock()
		defer m.mu.RUnlock()
	} else {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	end := r.Offset + uint64(r.Length)
	if end > uint64(len(m.data)) {
		return syscall.EIO
	}
	part := m.data[r.Offset:end]
	switch r.Cmd {
	case nbd.CmdRead:
		copy(r.Buffer(), part)
	case nbd.CmdWrite:
		copy(part, r.Data)
	case nbd.CmdTrim, nbd.CmdWriteZeroes:
		clear(part)
	}
	return 0
}

// Kick implements nbd.Backend.
func (m *Memory) Kick() {}
