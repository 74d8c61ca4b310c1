package iscsiadm

import (
	"io"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
)

func TestNoProgressWithoutATerminal(t *testing.T) {
	c := &command{Env: Env{Terminal: func(io.Writer) int { return 0 }}}
	if p := c.newProgress("Logging in", 5); p != nil {
		t.Error("there is one")
	}
	var none *progress
	none.step()
	none.close()
	ch := make(chan int, 1)
	ch <- 7
	if v := await(none, ch); v != 7 {
		t.Errorf("got %d", v)
	}
}

func TestProgressDetail(t *testing.T) {
	got := detail([]control.Session{
		{Scan: &control.Scan{Done: 3, Total: 10}},
		{LastError: "an old one"},
		{Pending: true, LastError: "connection refused"},
		{Pending: true, Scan: &control.Scan{Done: 1, Total: 2}},
	})
	if want := "; 4 of 12 logical units; trying again: connection refused"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := detail(nil); got != "" {
		t.Errorf("%q of nothing", got)
	}
}
