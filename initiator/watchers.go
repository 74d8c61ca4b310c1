package initiator

import (
	"slices"
	"sync"
)

// watchers are those who want to hear of events of one kind. The zero value is
// ready for use, from any goroutine.
type watchers[E any] struct {
	mu   sync.Mutex
	list []*func(E) // replaced as a whole, so that tell needs no lock for the calls
}

// add puts f at the end of the list, nil excepted, and returns what takes it off
// again.
func (w *watchers[E]) add(f func(E)) (remove func()) {
	if f == nil {
		return func() {}
	}
	entry := &f
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(slices.Clone(w.list), entry)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.list = slices.DeleteFunc(slices.Clone(w.list), func(e *func(E)) bool { return e == entry })
	}
}

// all returns who is on the list. The caller does not change it.
func (w *watchers[E]) all() []*func(E) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list
}

// tell calls all who are on the list. The caller sees to it that it is not
// called twice at a time, and holds no lock that a watcher might want.
func (w *watchers[E]) tell(e E) {
	for _, f := range w.all() {
		(*f)(e)
	}
}

// Watch has f called for every Event of the session from now on, beside
// Config.OnEvent and under the same rules: one call at a time, from goroutines of
// the session; f must neither block nor call Close or Logout. Calling stop ends
// that, except for a call that is under way. Stop may be called more than once
// and from within f.
func (s *Session) Watch(f func(Event)) (stop func()) { return s.heard.add(f) }

// Watch has f called for every VolumeEvent from now on, beside
// VolumeOptions.OnEvent and under the same rules: one call at a time, from a
// goroutine of the volume; f may use the volume but must not close it. Calling
// stop ends that, except for a call that is under way. Stop may be called more
// than once and from within f.
func (v *Volume) Watch(f func(VolumeEvent)) (stop func()) { return v.heard.add(f) }
