package rspawn

import (
	"time"

	"nightmare.mail/mxf/control/stamp"
)

const (
	// suspectFor is how long a message that was in a worker when it ended is kept from the
	// next one.
	suspectFor = 24 * time.Hour
	// maxSuspects bounds the memory of them. The oldest is forgotten.
	maxSuspects = 1000
)

// A messageKey tells a message from another one that gets the same ID later.
type messageKey struct {
	id   string
	file stamp.Stamp
}

// suspects are the messages that may have ended a worker. The zero value has none.
type suspects struct {
	until map[messageKey]time.Time
	order []messageKey // the oldest first
}

// add remembers k from now on, or anew.
func (s *suspects) add(k messageKey, now time.Time) {
	if s.until == nil {
		s.until = make(map[messageKey]time.Time)
	}
	if _, known := s.until[k]; !known {
		if len(s.order) >= maxSuspects {
			delete(s.until, s.order[0])
			s.order = s.order[1:]
		}
		s.order = append(s.order, k)
	}
	s.until[k] = now.Add(suspectFor)
}

// has reports whether k is remembered.
func (s *suspects) has(k messageKey, now time.Time) bool { return now.Before(s.until[k]) }
