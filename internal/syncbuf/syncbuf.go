// Package syncbuf has a buffer that is filled by one goroutine while others
// look at what it holds so far: the output of a process, or a log.
package syncbuf

import (
	"bytes"
	"sync"
)

// A Buffer collects what is written to it. The zero value is empty and ready.
// Its methods may be called from several goroutines at the same time.
type Buffer struct {
	mu sync.Mutex // protects b
	b  bytes.Buffer
}

// Write implements io.Writer; it does not fail.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what has been written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
