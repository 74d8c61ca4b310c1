package syncbuf_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/goiscsi/goiscsi/internal/syncbuf"
)

// TestWritersAndReaders is for the race detector: nothing is lost, and a reader
// sees whole writes only.
func TestWritersAndReaders(t *testing.T) {
	var b syncbuf.Buffer
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 100 {
				if n, err := b.Write([]byte("line\n")); n != 5 || err != nil {
					t.Errorf("write: %d, %v", n, err)
				}
			}
		})
	}
	for range 100 {
		if s := b.String(); s != strings.Repeat("line\n", len(s)/5) {
			t.Fatalf("half a write: %q", s)
		}
	}
	writers.Wait()
	if n := strings.Count(b.String(), "line\n"); n != 400 {
		t.Errorf("%d lines, want 400", n)
	}
}
