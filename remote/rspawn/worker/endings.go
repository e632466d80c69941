package worker

import "sync"

// Endings are what is to be done when the worker ends before its deliveries do: the programs that they
// run must not outlive it, because nobody would hear of what they deliver.
type Endings struct {
	mu    sync.Mutex
	next  int
	clean map[int]func()
	over  bool
}

// OnEnd has clean called by End if that comes before stop is called; it is that of remote.Config.
func (e *Endings) OnEnd(clean func()) (stop func()) {
	e.mu.Lock()
	if e.over {
		e.mu.Unlock()
		go survive(clean) // the caller may hold what clean waits for
		return func() {}
	}
	defer e.mu.Unlock()
	if e.clean == nil {
		e.clean = make(map[int]func())
	}
	e.next++
	id := e.next
	e.clean[id] = clean
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.clean, id)
	}
}

// End calls all of them.
func (e *Endings) End() {
	e.mu.Lock()
	e.over = true
	all := e.clean
	e.clean = nil
	e.mu.Unlock()
	for _, clean := range all {
		survive(clean)
	}
}

// survive calls f. A panic in it ends nothing else.
func survive(f func()) {
	defer func() { _ = recover() }()
	f()
}
