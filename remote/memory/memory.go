// Package memory has a map that forgets: each value has an end, and there are never more
// values, or more bytes, than it has room for.
//
// It knows no clock and no lock. Its users have both, and say what a value weighs.
package memory

import "time"

// looks is how many values are looked at where room is made: of so many, drawn by chance,
// those that have ended go, else the one that ends first. That is as good as a list in order
// of the ends, and is none that must be kept.
const looks = 8

// A Map has values of V by keys of K. The zero Map has room for nothing.
type Map[K comparable, V any] struct {
	Values int   // room, in values
	Bytes  int64 // room, in bytes as Put is told them; 0: they are not counted

	kept  map[K]value[V]
	bytes int64
}

type value[V any] struct {
	value      V
	begun, end time.Time
	bytes      int64
}

// Get returns the value of key, and whether there is one that has not ended. A clock that was
// set back to before Put ends a value.
func (m *Map[K, V]) Get(key K, now time.Time) (V, bool) {
	v, ok := m.kept[key]
	if ok && !v.holds(now) {
		m.Delete(key)
		ok = false
	}
	if !ok {
		var none V
		return none, false
	}
	return v.value, true
}

func (v *value[V]) holds(now time.Time) bool { return now.Before(v.end) && !now.Before(v.begun) }

// Put keeps a value from now on, for a time. It makes room for it. One that has more bytes
// than there is room for is not kept, and neither is the one before it.
func (m *Map[K, V]) Put(key K, v V, now time.Time, lasts time.Duration, bytes int64) {
	m.Delete(key)
	if lasts <= 0 || m.Values < 1 || m.Bytes > 0 && bytes > m.Bytes {
		return
	}
	m.tidy(now)
	for len(m.kept) >= m.Values || m.Bytes > 0 && m.bytes+bytes > m.Bytes {
		m.makeRoom()
	}
	if m.kept == nil {
		m.kept = make(map[K]value[V])
	}
	m.kept[key] = value[V]{v, now, now.Add(lasts), bytes}
	m.bytes += bytes
}

// tidy drops what has ended of a few values, so that what nobody asks for again does not stay.
func (m *Map[K, V]) tidy(now time.Time) {
	left := looks
	for key, v := range m.kept {
		if !v.holds(now) {
			m.Delete(key)
		}
		if left--; left == 0 {
			return
		}
	}
}

// makeRoom drops the value that ends first, of a few. There must be one.
func (m *Map[K, V]) makeRoom() {
	var first K
	var end time.Time
	left := looks
	for key, v := range m.kept {
		if left == looks || v.end.Before(end) {
			first, end = key, v.end
		}
		if left--; left == 0 {
			break
		}
	}
	m.Delete(first)
}

// Delete drops the value of key, if there is one.
func (m *Map[K, V]) Delete(key K) {
	if v, ok := m.kept[key]; ok {
		m.bytes -= v.bytes
		delete(m.kept, key)
	}
}

// Clear drops all values.
func (m *Map[K, V]) Clear() { m.kept, m.bytes = nil, 0 }

// Len returns the number of values, those too that have ended and were not looked at since.
func (m *Map[K, V]) Len() int { return len(m.kept) }
