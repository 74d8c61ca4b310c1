package daemon

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// keeper returns a keeper that has begun with one processor, and what it set.
func keeper(most int) (*processorKeeper, *[]int) {
	var sets []int
	return &processorKeeper{least: 1, most: most, now: 1, set: func(n int) { sets = append(sets, n) }}, &sets
}

func TestProcessorsFollowTheLoad(t *testing.T) {
	times := func(n int, load float64) []float64 { return slices.Repeat([]float64{load}, n) }
	for _, tc := range []struct {
		name  string
		most  int
		loads []float64
		want  []int // what is set
	}{
		{"nothing to do", 8, times(50, 0), nil},
		{"work for less than one", 8, times(50, 0.7), nil},
		{"one is full", 8, []float64{0.9}, []int{2}},
		{"work for many", 6, []float64{1, 2, 4, 6, 6}, []int{2, 4, 6}},
		{"as many as there are", 2, times(50, 2), []int{2}},
		{"what fills one does not go to and fro", 8, append([]float64{0.81}, times(50, 0.81)...), []int{2}},
		{"a short calm", 8, slices.Concat([]float64{0.9}, times(calmLooks-1, 0.1), []float64{0.9}, times(calmLooks-1, 0.1)), []int{2}},
		{"a long calm", 8, append([]float64{1, 2}, times(2*calmLooks, 0.1)...), []int{2, 4, 2, 1}},
		{"an odd number", 3, slices.Concat([]float64{1, 2}, times(calmLooks, 0.1), []float64{1}), []int{2, 3, 1, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, sets := keeper(tc.most)
			for _, load := range tc.loads {
				k.look(load)
			}
			if !slices.Equal(*sets, tc.want) {
				t.Errorf("set %v, want %v", *sets, tc.want)
			}
		})
	}
}

func TestSpareProcessor(t *testing.T) {
	k, sets := keeper(8)
	k.spare()
	k.spare()
	for range calmLooks - 1 {
		k.look(0)
	}
	k.spare() // begins anew
	for range calmLooks - 1 {
		k.look(0)
	}
	if want := []int{2}; !slices.Equal(*sets, want) || k.single() {
		t.Fatalf("set %v, want %v; one: %v", *sets, want, k.single())
	}
	k.look(0)
	if want := []int{2, 1}; !slices.Equal(*sets, want) || !k.single() {
		t.Errorf("set %v, want %v; one: %v", *sets, want, k.single())
	}
}

// The load is processor time over the time that has passed, and is looked at less
// often when there is none.
func TestProcessorsAreLookedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var looks atomic.Int64
		k, sets := keeper(8)
		set := func() []int {
			k.mu.Lock()
			defer k.mu.Unlock()
			return slices.Clone(*sets)
		}
		k.used = func() time.Duration {
			looks.Add(1)
			// From 10 s on two are busy, without a break.
			return 2 * max(time.Since(start)-10*time.Second, 0)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			k.run(ctx)
			close(done)
		}()
		time.Sleep(9 * time.Second)
		if n := looks.Load(); n > 12 || len(set()) > 0 {
			t.Errorf("idle: %d looks, set %v", n, set())
		}
		time.Sleep(4 * time.Second)
		if want := []int{2, 4}; !slices.Equal(set(), want) {
			t.Errorf("busy: set %v, want %v", set(), want)
		}
		cancel()
		<-done
	})
}

func TestProcessorsOfTheEnvironment(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Setenv("GOMAXPROCS", "3")
	k := newProcessorKeeper()
	k.spare()
	for range 2 * calmLooks {
		k.look(0)
	}
	k.look(100)
	k.run(t.Context()) // has nothing to do
	if n := runtime.GOMAXPROCS(0); n != before || k.single() != (n == 1) {
		t.Errorf("%d processors, %d before; one: %v", n, before, k.single())
	}
}

func TestNoProcessorKeeper(t *testing.T) {
	var k *processorKeeper
	k.spare()
	k.run(t.Context())
	if k.single() {
		t.Error("who keeps nothing knows that there is one")
	}
}

func TestProcessorTime(t *testing.T) {
	before := processorTime()
	if before <= 0 {
		t.Fatal("none")
	}
	for processorTime() == before { // work
	}
}
