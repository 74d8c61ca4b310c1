package main

import (
	"runtime"
	"sync"
)

// forEach runs f on every item, as many at a time as there are processors, and
// returns when all have ended.
func forEach[T any](items []T, f func(T) outcome) outcome {
	var (
		mu    sync.Mutex // guards total
		total outcome
		wg    sync.WaitGroup
		queue = make(chan T)
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { // ends when the queue is closed
			for item := range queue {
				got := f(item)
				mu.Lock()
				total.add(got)
				mu.Unlock()
			}
		})
	}
	for _, item := range items {
		queue <- item
	}
	close(queue)
	wg.Wait()
	return total
}
