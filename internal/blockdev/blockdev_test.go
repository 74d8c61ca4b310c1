//go:build linux

package blockdev

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWaitNodeWakesUpWhenTheNodeAppears(t *testing.T) {
	dir := t.TempDir()
	node := filepath.Join(dir, "nbd0")
	done := make(chan error, 1)
	go func() { done <- WaitNode(t.Context(), node) }()
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
