package lab

import (
	"testing"
	"time"
)

// patience is how long a test waits for what others bring about by themselves.
const patience = 30 * time.Second

// Eventually asks until cond holds; the test ends when it has waited for too
// long.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.After(patience); !cond(); {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patience)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
