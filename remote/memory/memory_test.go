package memory

import (
	"strconv"
	"testing"
	"time"
)

var start = time.Unix(1_700_000_000, 0)

func TestMap_end(t *testing.T) {
	for _, c := range []struct {
		lasts, later time.Duration
		there        bool
	}{
		{time.Second, 0, true},
		{time.Second, time.Second - 1, true},
		{time.Second, time.Second, false},
		{time.Hour, -1, false}, // the clock was set back
		{0, 0, false},
		{-time.Second, 0, false},
	} {
		m := Map[string, int]{Values: 10}
		m.Put("a", 1, start, c.lasts, 0)
		if v, ok := m.Get("a", start.Add(c.later)); ok != c.there || ok && v != 1 {
			t.Errorf("%v after it was put for %v: %d, %v", c.later, c.lasts, v, ok)
		}
		if !c.there && m.Len() != 0 {
			t.Errorf("%v after it was put for %v it is still held", c.later, c.lasts)
		}
	}
}

func TestMap_room(t *testing.T) {
	for _, c := range []struct {
		values int
		bytes  int64
		each   int64
		most   int
	}{
		{100, 0, 1000, 100},
		{100, 500, 10, 50},
		{100, 500, 501, 0},
		{0, 0, 1, 0},
		{1, 0, 1, 1},
	} {
		m := Map[int, int]{Values: c.values, Bytes: c.bytes}
		for i := range 1000 {
			m.Put(i, i, start, time.Hour, c.each)
			if _, ok := m.Get(i, start); ok != (c.most > 0) {
				t.Fatalf("%+v: the value that was put last is there: %v", c, ok)
			}
		}
		if m.Len() != c.most || m.bytes != int64(c.most)*c.each {
			t.Errorf("%+v: %d values, %d bytes", c, m.Len(), m.bytes)
		}
	}
}

// What has ended goes before what has not, and what ends soon before what ends late.
func TestMap_whatGoes(t *testing.T) {
	m := Map[string, int]{Values: 1000}
	for i := range 500 {
		m.Put("late"+strconv.Itoa(i), i, start, time.Hour, 1)
		m.Put("soon"+strconv.Itoa(i), i, start, time.Minute, 1)
	}
	for i := range 300 {
		m.Put("new"+strconv.Itoa(i), i, start, time.Hour, 1)
	}
	late := 0
	for i := range 500 {
		if _, ok := m.Get("late"+strconv.Itoa(i), start); ok {
			late++
		}
	}
	if late < 430 { // without the draw 350 would be left
		t.Errorf("%d of 500 that end late are left", late)
	}
}

func TestMap_tidy(t *testing.T) {
	m := Map[int, int]{Values: 10_000}
	for i := range 1000 {
		m.Put(i, i, start, time.Second, 1)
	}
	for i := range 2000 {
		m.Put(-1-i%10, i, start.Add(time.Minute), time.Hour, 1)
	}
	if m.Len() > 20 || m.bytes != int64(m.Len()) {
		t.Errorf("%d values with %d bytes are left of 1,000 that have ended", m.Len(), m.bytes)
	}
}

func TestMap_replace(t *testing.T) {
	m := Map[string, int]{Values: 2, Bytes: 10}
	m.Put("a", 1, start, time.Hour, 6)
	m.Put("a", 2, start, time.Hour, 8)
	if v, ok := m.Get("a", start); v != 2 || !ok || m.bytes != 8 {
		t.Errorf("%d, %v, %d bytes", v, ok, m.bytes)
	}
	m.Put("a", 3, start, time.Hour, 11)
	if v, ok := m.Get("a", start); ok || m.bytes != 0 {
		t.Errorf("%d is kept, %d bytes", v, m.bytes)
	}
	m.Put("b", 1, start, time.Hour, 1)
	m.Clear()
	if _, ok := m.Get("b", start); ok || m.Len() != 0 {
		t.Error("a value is left after Clear")
	}
}
