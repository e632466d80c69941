package line

import (
	"cmp"
	"net/netip"
	"slices"
)

// busiest is how many addresses Stats has: the page's number, and a status file that stays small.
const busiest = 100

// Stats says what a line has to do.
type Stats struct {
	Busy      int       // connections being made, in use, and ending
	Idle      int       // kept
	Waiting   int       // callers in line
	Addresses []Address // the 100 busiest, the busiest first
}

// An Address is an address and port of an exchanger.
type Address struct {
	Name        string // of the exchanger, as it was wanted last; "": its address
	Addr        netip.AddrPort
	Connections int // being made, in use, and kept
	Window      int // what it may have at a time
	Waiting     int // callers in line to whom it would do
	Messages    int // accepted since it was remembered
}

// Stats returns what the line has to do now.
func (l *Line) Stats() Stats {
	l.mu.Lock()
	defer l.unlock()
	s := Stats{Busy: l.busy, Idle: l.idle.Len(), Waiting: l.waiting}
	for n, a := range l.accounts {
		if n.entry != "" || a.connections+a.waiters.Len()+a.messages == 0 {
			continue
		}
		s.Addresses = append(s.Addresses, Address{
			Name: a.exchanger, Addr: n.addr, Connections: a.connections,
			Window: a.allowed(), Waiting: a.waiters.Len(), Messages: a.messages,
		})
	}
	slices.SortFunc(s.Addresses, func(a, b Address) int {
		return cmp.Or(
			cmp.Compare(b.Connections, a.Connections), cmp.Compare(b.Waiting, a.Waiting),
			cmp.Compare(b.Messages, a.Messages), a.Addr.Compare(b.Addr))
	})
	s.Addresses = s.Addresses[:min(busiest, len(s.Addresses))]
	return s
}
