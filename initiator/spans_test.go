package initiator

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The set agrees with a plain array of bytes.
func TestSpanSet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var set spanSet
		var seen [64]bool
		for range 40 {
			from := r.IntN(64)
			to := from + r.IntN(min(8, 65-from))
			fresh := !slices.Contains(seen[from:to], true)
			if got := set.add(from, to); got != fresh {
				t.Fatalf("add(%d, %d) is %v, want %v: %v", from, to, got, fresh, set)
			}
			if fresh {
				for i := from; i < to; i++ {
					seen[i] = true
				}
			}
			for i, sp := range set {
				if sp.from >= sp.to || i > 0 && set[i-1].to >= sp.from {
					t.Fatalf("not a set of spans: %v", set)
				}
				if slices.Contains(seen[sp.from:sp.to], false) {
					t.Fatalf("%v has bytes that were not added", set)
				}
			}
			n := 0
			for _, sp := range set {
				n += sp.to - sp.from
			}
			for _, b := range seen {
				if b {
					n--
				}
			}
			if n != 0 {
				t.Fatalf("%v lacks bytes that were added", set)
			}
		}
	}
}

func TestSpanSetIsBounded(t *testing.T) {
	var set spanSet
	for i := range maxSpans {
		if !set.add(2*i, 2*i+1) {
			t.Fatalf("span %d is refused", i)
		}
	}
	if set.add(2*maxSpans, 2*maxSpans+1) {
		t.Error("one too many is taken")
	}
	if !set.add(1, 2) || len(set) != maxSpans-1 {
		t.Errorf("a hole is not filled, %d spans", len(set))
	}
}
