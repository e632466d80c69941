package tlsc

import (
	"container/list"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

const (
	// sessionsKept is how many sessions are kept: the exchangers of a busy hour.
	sessionsKept = 1000
	// sessionAge bounds how long a session is used, counted from its full handshake: so
	// long may a server's new certificate, or its new OCSP response, stay unseen. Tickets
	// that come with a resumption do not extend it (RFC 8446 section 4.6.1 wants a limit).
	sessionAge = time.Hour
	// sessionSize bounds what one session takes of what the server chooses, in bytes:
	// ticket, certificates and OCSP response. They have 5 kB together, chains of RSA 8 kB.
	sessionSize = 32 << 10
)

// Sessions are TLS sessions that servers are ready to resume: 1,000 at most, those that
// were used last, each for the lifetime that its server says and an hour at most. Any
// number of goroutines may use them, and so may any number of Clients.
//
// There is one ticket for each session, the last that came, and connections that are made
// at one time use the same. RFC 8446 section C.4 wants a ticket used once, so that nobody
// on the way can tell that two connections have one client. Those of a mail server come
// from one address anyway. A server that takes a ticket only once makes a full handshake.
//
// A session whose resumption has failed is given up, and no other is kept in its place
// for an hour: its server would make each connection fail once.
type Sessions struct {
	now    func() time.Time
	mu     sync.Mutex
	places map[sessionKey]*list.Element
	recent *list.List // of *place, the one that was used last in front
}

// A place is where a session is kept.
type place struct {
	key    sessionKey
	kept   *session  // nil: none
	barred time.Time // none is kept before
}

// A sessionKey is what connections have in common that may resume one session. That the
// judge and all that it is asked are in the key keeps a session that nobody has verified,
// or that was verified otherwise, from a connection that demands more, whatever a caller
// does. Judges can be compared.
type sessionKey struct {
	caller       string // Demand.Session
	judge        Judge
	anchors      Anchors
	server, sent string // the name to find in the certificate, and the name that is sent
	others       string
	own          [sha256.Size]byte // of the client's certificate; zero: none
}

// A session can be resumed. It does not change.
type session struct {
	ticket  *tls.ClientSessionState
	chain   []*x509.Certificate // what the server sent in the full handshake
	staple  []byte
	verdict Verdict             // that was reached on them
	scheme  tls.SignatureScheme // how the server signed the full handshake
	born    time.Time           // when that was
	until   time.Time           // not to be used from then on
}

// NewSessions returns Sessions without one. now is the clock of their age; nil: time.Now.
func NewSessions(now func() time.Time) *Sessions {
	s := &Sessions{now: now}
	if now == nil {
		s.now = time.Now
	}
	s.Forget()
	return s
}

// Forget gives up all sessions.
func (s *Sessions) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places, s.recent = make(map[sessionKey]*list.Element), list.New()
}

// Len is the number of sessions that are kept, those included whose time is over.
func (s *Sessions) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, element := range s.places {
		if element.Value.(*place).kept != nil {
			n++
		}
	}
	return n
}

// take returns the session to offer, nil if there is none. It stays.
func (s *Sessions) take(key sessionKey) *session {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	element, known := s.places[key]
	if !known {
		return nil
	}
	p := element.Value.(*place)
	if p.kept != nil && (now.Before(p.kept.born) || !now.Before(p.kept.until)) {
		p.kept = nil
	}
	s.recent.MoveToFront(element)
	return p.kept
}

// put keeps a session in place of another.
func (s *Sessions) put(key sessionKey, kept *session) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.at(key); !now.Before(p.barred) {
		p.kept = kept
	}
}

// at returns the place of a key, in front of all others. It makes room for a new one.
func (s *Sessions) at(key sessionKey) *place {
	if element, known := s.places[key]; known {
		s.recent.MoveToFront(element)
		return element.Value.(*place)
	}
	if last := s.recent.Back(); s.recent.Len() >= sessionsKept {
		s.recent.Remove(last)
		delete(s.places, last.Value.(*place).key)
	}
	p := &place{key: key}
	s.places[key] = s.recent.PushFront(p)
	return p
}

// drop gives up a session, unless another has taken its place.
func (s *Sessions) drop(key sessionKey, old *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if element, known := s.places[key]; known && element.Value.(*place).kept == old {
		s.recent.Remove(element)
		delete(s.places, key)
	}
}

// bar gives up whatever session there is, and keeps none for a while.
func (s *Sessions) bar(key sessionKey) {
	until := s.now().Add(sessionAge)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at(key)
	p.kept, p.barred = nil, until
}

// sessionKey is under what a session of this demand is kept.
func (d *Demand) sessionKey(c *Client) sessionKey {
	key := sessionKey{caller: d.Session, judge: d.judge(), anchors: c.Anchors, server: d.name(), sent: d.sni(), others: fmt.Sprintf("%q", d.Names)}
	if own := d.certificate(c); own != nil {
		key.own = own.digest()
	}
	return key
}

// digest is the SHA-256 of what the server is shown.
func (c *Certificate) digest() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, der := range c.pair.Certificate {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(der))))
		h.Write(der)
	}
	h.Sum(sum[:0])
	return sum
}
