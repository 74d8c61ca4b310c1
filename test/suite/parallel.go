package main

import "sync"

// forEach runs f on every item, atOnce of them at a time, and returns when all
// have ended.
func forEach[T any](items []T, atOnce int, f func(T) outcome) outcome {
	var (
		mu    sync.Mutex // guards total
		total outcome
		wg    sync.WaitGroup
		queue = make(chan T)
	)
	for range atOnce {
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
