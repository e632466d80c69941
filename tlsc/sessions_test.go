package tlsc

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"
)

// A handClock is a clock that a test puts forward.
type handClock struct{ now time.Time }

func (c *handClock) Now() time.Time { return c.now }

func (c *handClock) forward(d time.Duration) { c.now = c.now.Add(d) }

// keyed is the key of a caller.
func keyed(caller string) sessionKey { return sessionKey{caller: caller, judge: Nobody{}} }

func TestSessions(t *testing.T) {
	clock := &handClock{testNow}
	s := NewSessions(clock.Now)
	kept := func() *session { return &session{born: clock.now, until: clock.now.Add(time.Minute)} }
	a, b, c := keyed("a"), keyed("b"), keyed("c")
	first, second, third := kept(), kept(), kept()
	s.put(a, first)
	s.put(b, second)
	s.put(a, third)
	if s.take(a) != third || s.take(b) != second || s.take(c) != nil || s.Len() != 2 {
		t.Errorf("the last ticket is not the one that is offered: %d", s.Len())
	}
	s.drop(a, first) // has been replaced
	if s.take(a) != third {
		t.Error("another session was given up")
	}
	s.drop(a, third)
	s.drop(c, third)
	if s.take(a) != nil || s.Len() != 1 {
		t.Error("a session was not given up")
	}
	s.put(c, kept())
	clock.forward(time.Minute - time.Nanosecond)
	if s.take(b) != second {
		t.Error("a session was given up early")
	}
	clock.forward(time.Nanosecond)
	if s.take(b) != nil {
		t.Error("a session was offered late")
	}
	s.put(b, &session{born: clock.now, until: clock.now.Add(time.Hour)})
	clock.forward(-time.Second)
	if s.take(b) != nil {
		t.Error("a session was offered before it was made")
	}
	s.put(a, kept())
	s.Forget()
	if s.take(a) != nil || s.take(c) != nil || s.Len() != 0 {
		t.Error("a session was not forgotten")
	}
}

func TestSessions_barred(t *testing.T) {
	clock := &handClock{testNow}
	s := NewSessions(clock.Now)
	a, b := keyed("a"), keyed("b")
	offer := func(key sessionKey) bool {
		s.put(key, &session{born: clock.now, until: clock.now.Add(time.Hour)})
		return s.take(key) != nil
	}
	if !offer(a) {
		t.Error("not kept")
	}
	s.bar(a)
	if s.take(a) != nil || offer(a) || !offer(b) {
		t.Error("kept where sessions fail, or not where they do not")
	}
	clock.forward(sessionAge - time.Second)
	if offer(a) {
		t.Error("kept within the hour")
	}
	clock.forward(time.Second)
	if !offer(a) {
		t.Error("not kept after the hour")
	}
	s.bar(a)
	s.Forget()
	if !offer(a) {
		t.Error("not forgotten that sessions fail")
	}
}

// The session that was used last stays longest.
func TestSessions_bounded(t *testing.T) {
	s := NewSessions(nil)
	key := func(i int) sessionKey { return keyed(fmt.Sprint(i)) }
	for i := range 2 * sessionsKept {
		s.put(key(i), &session{born: time.Now(), until: time.Now().Add(time.Hour)})
		if s.take(key(0)) == nil {
			t.Fatalf("given up at %d, although it was used", i)
		}
		if i%2 == 1 {
			s.bar(keyed(fmt.Sprint("barred ", i)))
		}
	}
	if n := len(s.places); n != sessionsKept || s.recent.Len() != n || s.Len() >= n {
		t.Errorf("%d places, %d in the list, %d sessions", n, s.recent.Len(), s.Len())
	}
	if s.take(key(1)) != nil || s.take(key(2*sessionsKept-1)) == nil {
		t.Error("the wrong ones were given up")
	}
}

// Whatever the caller says, what a session must not be used for is in its key.
func TestSessionKey(t *testing.T) {
	root := newCA("root")
	own := func() *Certificate { return &Certificate{root.Leaf(nil, "client").Pair()} }
	one := own()
	same := &Certificate{one.pair}
	client := trusting("/a")
	certified := trusting("/a")
	certified.Certificate = one
	leaf := root.Leaf(nil, host)
	dane := func(pins string, anchors bool, kinds ...string) DANE {
		var list []TLSA
		for _, kind := range kinds {
			list = append(list, record(t, kind, leaf.Cert))
		}
		records, err := NewRecords(list)
		if err != nil {
			t.Fatal(err)
		}
		return DANE{Records: records, Pins: pins, Anchors: anchors}
	}
	seen := make(map[sessionKey]string)
	for _, tt := range []struct {
		name   string
		client *Client
		demand Demand
	}{
		{"nobody", client, Demand{}},
		{"caller", client, Demand{Session: "other"}},
		{"anchors", client, Demand{Judge: TrustAnchors{}}},
		{"other anchors", trusting("/b"), Demand{Judge: TrustAnchors{}}},
		{"folder of anchors", &Client{Anchors: Anchors{Dir: "/a"}}, Demand{Judge: TrustAnchors{}}},
		{"name", client, Demand{ServerName: host}},
		{"name, not sent", client, Demand{ServerName: host, NoSNI: true}},
		{"name and anchors", client, Demand{ServerName: host, Judge: TrustAnchors{}}},
		{"names", client, Demand{ServerName: host, Names: []string{"a", "b"}}},
		{"another list of names", client, Demand{ServerName: host, Names: []string{"a b"}}},
		{"certificate", client, Demand{Certificate: one}},
		{"another certificate", client, Demand{Certificate: own()}},
		{"records", client, Demand{Judge: dane("", false, "3 1 1")}},
		{"other records", client, Demand{Judge: dane("", false, "3 1 1", "3 1 2")}},
		{"another usage", client, Demand{Judge: dane("", false, "2 1 1")}},
		{"records and anchors", client, Demand{Judge: dane("", true, "3 1 1")}},
		{"pins", client, Demand{Judge: dane("control/tlspolicy:3", false, "3 1 1")}},
	} {
		key := tt.demand.sessionKey(tt.client)
		if other, known := seen[key]; known {
			t.Errorf("%q has the key of %q", tt.name, other)
		}
		seen[key] = tt.name
	}
	for _, tt := range []struct {
		name   string
		client *Client
		demand Demand
	}{
		{"nobody", client, Demand{Judge: Nobody{}, TimeLimit: time.Second, Full: true}},
		{"nobody", client, Demand{Certificate: NoCertificate}},
		{"nobody", certified, Demand{Certificate: NoCertificate}},
		{"name", client, Demand{ServerName: host + "."}},
		{"certificate", client, Demand{Certificate: same}},
		{"certificate", certified, Demand{}},
		{"records", client, Demand{Judge: dane("", false, "3 1 1")}},
	} {
		if got := seen[tt.demand.sessionKey(tt.client)]; got != tt.name {
			t.Errorf("%+v has the key of %q, want that of %q", tt.demand, got, tt.name)
		}
	}
}

// A large session is not kept.
func TestSessionSize(t *testing.T) {
	for size, want := range map[int]int{100: 1, sessionSize: 1, sessionSize + 1: 0} {
		s := NewSessions(nil)
		state := tls.ConnectionState{Version: tls.VersionTLS13, OCSPResponse: make([]byte, size)}
		r := &resumption{sessions: s, key: keyed(""), wire: new(wire), staged: new(tls.ClientSessionState)}
		r.settle(state, Verdict{}, 0)
		if s.Len() != want {
			t.Errorf("%d bytes: %d sessions, want %d", size, s.Len(), want)
		}
	}
}
