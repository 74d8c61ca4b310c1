package daemon

import (
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
)

func TestGathering(t *testing.T) {
	k, _ := keeper(2)
	k.one.Store(true)
	yields := 0
	g := newGatherer(k)
	g.yield = func() { yields++ }
	a, b := new(initiator.Volume), new(initiator.Volume)
	kicks := func(want int, what string) {
		t.Helper()
		yields = 0
		for range 10 {
			g.gather()
		}
		if yields != want {
			t.Errorf("%s: %d of 10 times others went first, want %d", what, yields, want)
		}
	}
	submit := func(n int, v *initiator.Volume) {
		for range n {
			g.submitted(v)
		}
	}

	kicks(0, "nothing submitted")
	submit(gatherFor+1, a)
	kicks(0, "one disk")
	submit(1, b)
	kicks(10, "two disks")
	submit(gatherFor-1, b)
	kicks(10, "the other one a moment ago")
	submit(1, b)
	kicks(0, "the other one long ago")
	submit(1, a)
	k.spare()
	kicks(0, "two processors")
}
