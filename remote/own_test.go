package remote

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
)

func TestOwnAddresses(t *testing.T) {
	t.Parallel()
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")
	prefixOf := func(addr netip.Addr) net.Addr {
		return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, addr.BitLen())}
	}
	now := time.Unix(1_700_000_000, 0)
	var has []net.Addr
	var fails error
	own := &OwnAddresses{Now: func() time.Time { return now }, List: func() ([]net.Addr, error) { return has, fails }}
	r := &Router{Config: Config{Settings: &control.Settings{IPMeDefault: true}, Own: own}}
	for _, step := range []struct {
		name  string
		later time.Duration
		has   netip.Addr
		fails error
		ours  netip.Addr // the zero Addr: it is an error
	}{
		{"the first", 0, one, nil, one},
		{"another one, within the second", time.Second / 2, two, nil, one},
		{"another one, after the second", time.Second / 2, two, nil, two},
		{"an error that nobody sees", time.Second / 2, two, errors.New("no"), two},
		{"an error", time.Second, two, errors.New("no"), netip.Addr{}},
		{"an error is not remembered", 0, one, nil, one},
		{"the clock is set back", -time.Hour, two, nil, two},
	} {
		now = now.Add(step.later)
		has, fails = []net.Addr{prefixOf(step.has)}, step.fails
		ours, err := r.ours()
		if malformed := new(control.Error); step.ours == (netip.Addr{}) && !errors.As(err, &malformed) {
			t.Errorf("%s: error %v", step.name, err)
		}
		if step.ours == (netip.Addr{}) {
			continue
		}
		other := one
		if step.ours == one {
			other = two
		}
		if err != nil || !ours(step.ours) || ours(other) || !ours(netip.IPv6Loopback()) {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}

// BenchmarkOurs is what a delivery needs to know its own addresses.
func BenchmarkOurs(b *testing.B) {
	for name, own := range map[string]*OwnAddresses{"listed": nil, "known": {Now: time.Now}} {
		b.Run(name, func(b *testing.B) {
			r := &Router{Config: Config{Settings: &control.Settings{IPMeDefault: true}, Own: own}}
			for b.Loop() {
				if _, err := r.ours(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
