package stamp

import (
	"sync"
	"time"
)

// maxRemembered bounds the files that a Memory knows something of: those that are looked at for each
// delivery are a handful.
const maxRemembered = 64

// A Memory is what was found out about files that have not changed since. The zero Memory is empty, and a
// nil one remembers nothing. It may be used by several goroutines at a time.
type Memory[T any] struct {
	mu    sync.Mutex
	known map[string]finding[T]
}

type finding[T any] struct {
	stamp Stamp
	value T
}

// Of returns what find returns for the file at path, or what it returned when the file had the stamp that it
// has now. now is the clock by which the system stamps files. What find returns with false is not
// remembered.
func (m *Memory[T]) Of(path string, now func() time.Time, find func() (value T, lasts bool)) T {
	if m == nil {
		value, _ := find()
		return value
	}
	looked := now()
	stamp, err := Of(path)
	if err == nil {
		m.mu.Lock()
		f, ok := m.known[path]
		m.mu.Unlock()
		if ok && f.stamp == stamp {
			return f.value
		}
	}
	value, lasts := find()
	if err == nil && lasts && stamp.Settled(looked) {
		m.keep(path, finding[T]{stamp, value})
	}
	return value
}

func (m *Memory[T]) keep(path string, f finding[T]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxRemembered {
		m.known = make(map[string]finding[T])
	}
	m.known[path] = f
}
