package remote

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dial"
)

// ownKept is how long the addresses of this host are not listed again: as long as a change of
// control/ipme may take to be in force.
const ownKept = time.Second

// OwnAddresses are those of this host's interfaces, listed at most once a second for all
// deliveries. A nil *OwnAddresses lists them each time.
type OwnAddresses struct {
	Now  func() time.Time           // the clock
	List func() ([]net.Addr, error) // nil: net.InterfaceAddrs

	mu     sync.Mutex
	listed time.Time
	set    map[netip.Addr]bool // never changed; nil: there was no list
}

// get returns the addresses, which nobody may change.
func (o *OwnAddresses) get() (map[netip.Addr]bool, error) {
	if o == nil {
		return listOwn(net.InterfaceAddrs)
	}
	list := o.List
	if list == nil {
		list = net.InterfaceAddrs
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.Now()
	if age := now.Sub(o.listed); o.set != nil && age >= 0 && age < ownKept {
		return o.set, nil
	}
	set, err := listOwn(list)
	o.listed, o.set = now, set
	return set, err
}

func listOwn(list func() ([]net.Addr, error)) (map[netip.Addr]bool, error) {
	interfaces, err := list()
	if err != nil {
		return nil, err
	}
	own := make(map[netip.Addr]bool, len(interfaces))
	for _, i := range interfaces {
		if prefix, err := netip.ParsePrefix(i.String()); err == nil {
			own[prefix.Addr().Unmap().WithZone("")] = true
		}
	}
	return own, nil
}

// ours returns what reports whether an address is ours: those of ipme, or of the
// interfaces and all of loopback.
func (r *Router) ours() (func(netip.Addr) bool, error) {
	named := make(map[netip.Addr]bool)
	for _, addr := range r.Settings.IPMe {
		named[addr] = true
	}
	if !r.Settings.IPMeDefault {
		return func(addr netip.Addr) bool { return named[addr] }, nil
	}
	own, err := r.Own.get()
	if err != nil {
		// A sandbox may refuse it (RestrictAddressFamilies without AF_NETLINK).
		return nil, &control.Error{File: "control/ipme",
			What: fmt.Sprintf("expected this file, with the addresses of this machine, one a line, since they cannot be listed: %v", dial.Reason(err))}
	}
	return func(addr netip.Addr) bool { return addr.IsLoopback() || named[addr] || own[addr] }, nil
}
