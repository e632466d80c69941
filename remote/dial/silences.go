package dial

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/remote/memory"
)

const (
	// silentFor is how long an address that timed out is not tried: as long as the table does
	// not count a second time-out, so that each try of a dead host may count.
	silentFor = deadDebounce * time.Second
	// silenceKept is how long an address that nobody tries again is remembered: about the
	// longest time for which the table has one skipped (95 × 64 s), many times over.
	silenceKept = 24 * time.Hour
	// maxSilent bounds the addresses that are remembered, and maxSilentPorts their ports: those
	// of services and relays that control files name.
	maxSilent      = 10_000
	maxSilentPorts = 16
	// untilTried stands for the time that another delivery's try takes, which nobody knows.
	untilTried = time.Second
)

// ErrSilent is the error of an address that was not tried, because it timed out a moment ago,
// or because it timed out before and another delivery is trying it.
var ErrSilent = errors.New("it did not answer lately and was not tried")

// Silences are the addresses that timed out for the deliveries of one process. None of these
// tries such an address again for 120 s, and after that one at a time does, until it answers.
// What the table of dead hosts says holds besides. What does not count there does not count
// here: a time-out at a port that a stranger named.
//
// Each port of an address is remembered for itself: a firewall may swallow one of them, and
// the other is the way for the mail. It may be used by several goroutines at a time. A nil
// *Silences remembers nothing.
type Silences struct {
	now    func() time.Time
	tables stamp.Memory[*deadTable] // by path; nobody changes them

	mu    sync.Mutex
	hosts memory.Map[netip.Addr, *silentHost]
}

// A silentHost is an address, with its ports that timed out.
type silentHost struct {
	recorded bool // the table of dead hosts has, or had, a record of the last time-out
	ports    map[uint16]*silence
}

// A silence is that of one port.
type silence struct {
	since  time.Time
	trying bool // a delivery is
}

// NewSilences returns a memory with a clock.
func NewSilences(now func() time.Time) *Silences {
	return &Silences{now: now, hosts: memory.Map[netip.Addr, *silentHost]{Values: maxSilent}}
}

// silences is the memory of d, which may be nil.
func (d *DeadHosts) silences() *Silences {
	if d == nil {
		return nil
	}
	return d.Memory
}

// Silent returns for how much longer the memory has addr passed over; 0: it may be tried.
func (d *DeadHosts) Silent(addr netip.AddrPort) time.Duration { return d.silences().left(addr) }

func (s *Silences) left(addr netip.AddrPort) time.Duration {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of(addr).left(s.now())
}

// of returns the silence of addr, or nil.
func (s *Silences) of(addr netip.AddrPort) *silence {
	if host, ok := s.hosts.Get(addr.Addr(), s.now()); ok {
		return host.ports[addr.Port()]
	}
	return nil
}

func (s *silence) left(now time.Time) time.Duration {
	if s == nil {
		return 0
	}
	if age := now.Sub(s.since); age >= 0 && age < silentFor {
		return silentFor - age
	}
	if s.trying {
		return untilTried
	}
	return 0
}

// claim asks whether addr may be connected to now. Where it may, release is to be called when
// the attempt is over, however it ends.
func (s *Silences) claim(addr netip.AddrPort) (release func(), may bool) {
	if s == nil {
		return func() {}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.of(addr)
	if found == nil {
		return func() {}, true
	}
	if found.left(s.now()) > 0 {
		return nil, false
	}
	found.trying = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		found.trying = false
	}, true
}

// timedOut notes that addr did not answer in time. recorded is whether the table of dead hosts
// has it.
func (s *Silences) timedOut(addr netip.AddrPort, recorded bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	host, ok := s.hosts.Get(addr.Addr(), now)
	if !ok {
		host = &silentHost{ports: make(map[uint16]*silence)}
	}
	host.recorded = recorded
	if port := host.ports[addr.Port()]; port != nil {
		port.since = now
	} else if len(host.ports) < maxSilentPorts {
		host.ports[addr.Port()] = &silence{since: now}
	}
	s.hosts.Put(addr.Addr(), host, now, silenceKept, 0)
}

// answered forgets addr.
func (s *Silences) answered(addr netip.AddrPort) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	host, ok := s.hosts.Get(addr.Addr(), s.now())
	if !ok {
		return
	}
	if delete(host.ports, addr.Port()); len(host.ports) == 0 {
		s.hosts.Delete(addr.Addr())
	}
}

// unrecorded notes that we ourselves take the record of addr out of the table.
func (s *Silences) unrecorded(addr netip.Addr) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if host, ok := s.hosts.Get(addr, s.now()); ok {
		host.recorded = false
	}
}

// clock returns the time; without a memory nobody needs it.
func (s *Silences) clock() time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.now()
}

// cleared forgets addr if its record was in the table: somebody else has taken it out. looked is a time
// before the table was looked at: what timed out since then may have a record in it by now.
func (s *Silences) cleared(addr netip.Addr, looked time.Time) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if host, ok := s.hosts.Get(addr, s.now()); ok && host.recorded && !host.since(looked) {
		s.hosts.Delete(addr)
	}
}

// since reports whether a port has timed out after a time.
func (h *silentHost) since(at time.Time) bool {
	for _, port := range h.ports {
		if port.since.After(at) {
			return true
		}
	}
	return false
}

// Forget forgets all addresses.
func (s *Silences) Forget() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts.Clear()
}
