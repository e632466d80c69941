package dial

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dial/dialtest"
)

// foreign4 and foreign6 are for documentation (RFC 5737, RFC 3849): no host has them.
var foreign4, foreign6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")

// listen6 listens on ::1, or skips the test.
func listen6(t *testing.T) (net.Listener, netip.AddrPort) {
	t.Helper()
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here")
	} else {
		l.Close()
	}
	return dialtest.Listen(t, "[::1]:0")
}

func TestRace_fromSource(t *testing.T) {
	l4, to4 := dialtest.Listen(t, "127.0.0.1:0")
	l6, to6 := listen6(t)
	for _, c := range []struct {
		from Sources
		l    net.Listener
		to   netip.AddrPort
		want string // any: the system's choice
	}{
		{Sources{}, l4, to4, "127.0.0.1"},
		{Sources{Four: netip.MustParseAddr("127.0.0.2"), Six: foreign6}, l4, to4, "127.0.0.2"},
		{Sources{Four: netip.MustParseAddr("127.0.0.1")}, l4, to4, "127.0.0.1"},
		{Sources{Four: foreign4, Six: netip.MustParseAddr("::1")}, l6, to6, "::1"},
		{Sources{Four: foreign4}, l6, to6, "::1"},
	} {
		d, _ := newDialer(t)
		d.From = c.from
		conn, failures := d.Race(t.Context(), []netip.AddrPort{c.to}, plenty, false)
		if conn == nil {
			t.Errorf("%v: %v", c.from, failures)
			continue
		}
		seen := must.Get(c.l.Accept())(t)
		if got := unmapped(seen.RemoteAddr()); got.Addr().String() != c.want || got != LocalAddr(conn) {
			t.Errorf("%v: the server sees %v, we %v", c.from, got, LocalAddr(conn))
		}
		conn.Close()
		seen.Close()
	}
}

// An address that cannot be bound is never replaced by another one, and says nothing about
// the other end.
func TestRace_sourceFails(t *testing.T) {
	l4, to4 := dialtest.Listen(t, "127.0.0.1:0")
	_, to6 := listen6(t)
	for _, c := range []struct {
		source  string
		to      netip.AddrPort
		notOurs bool
	}{
		{"192.0.2.1", to4, true},
		{"0.0.0.0", to4, true},
		{"127.255.255.255", to4, true},
		{"255.255.255.255", to4, true},
		{"224.0.0.1", to4, true},
		{"2001:db8::1", to6, true},
		{"::", to6, true},
		{"ff02::1", to6, false},
		{"fe80::1", to6, false}, // it would need a zone
		{"192.0.2.1", dialtest.Refused(t), true},
		{"192.0.2.1", dialtest.Silent(t), true},
	} {
		source := netip.MustParseAddr(c.source)
		d, clock := newDialer(t)
		d.From = Sources{source, source}
		clock.kill(t, d.Dead, c.to.Addr())
		conn, failures := d.Race(t.Context(), []netip.AddrPort{c.to}, plenty, false)
		if conn != nil || len(failures) != 1 || failures[0].Addr != c.to || failures[0].Late {
			t.Errorf("%s: %v, %+v", c.source, conn, failures)
			continue
		}
		var got *SourceError
		if !errors.As(failures[0].Err, &got) || got.Addr != source || got.NotOurs != c.notOurs || got.Err == nil {
			t.Errorf("%s: %#v", c.source, failures[0].Err)
		}
		if errors.Is(got, syscall.EADDRNOTAVAIL) != c.notOurs || !strings.HasPrefix(got.Error(), "unable to bind to "+c.source+": ") {
			t.Errorf("%s: %v", c.source, got)
		}
		if !d.Dead.skips(t, c.to.Addr()) {
			t.Errorf("%s: the dead host is forgotten", c.source)
		}
	}
	// Those that the kernel binds and then replaces are given up before anything is said.
	l4.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second))
	for {
		conn, err := l4.Accept()
		if err != nil {
			break
		}
		conn.SetReadDeadline(time.Now().Add(must.Patience))
		if n, _ := conn.Read(make([]byte, 1)); n > 0 {
			t.Error("something was said from another address")
		}
		conn.Close()
	}
}

// A source that fails is not counted as a time-out either.
func TestRace_sourceNotCounted(t *testing.T) {
	d, clock := newDialer(t)
	d.From.Four = foreign4
	to := dialtest.Refused(t)
	for range 3 {
		d.Race(t.Context(), []netip.AddrPort{to}, plenty, false)
		clock.seconds += deadDebounce
	}
	d.Dead.with(t.Context(), to.Addr(), false, func(table *deadTable) {
		if table.find(to.Addr()) >= 0 {
			t.Error("the table of dead hosts has heard of it")
		}
	})
}

// What the other end says from a source that is ours is heard as ever.
func TestRace_sourceHolds(t *testing.T) {
	d, clock := newDialer(t)
	d.From.Four, d.Timeout = netip.MustParseAddr("127.0.0.2"), 300*time.Millisecond
	silent, refused := dialtest.Silent(t), dialtest.Refused(t)
	clock.kill(t, d.Dead, refused.Addr())
	_, failures := d.Race(t.Context(), []netip.AddrPort{refused}, plenty, false)
	if len(failures) != 1 || failures[0].Err != syscall.ECONNREFUSED || d.Dead.skips(t, refused.Addr()) {
		t.Errorf("refused: %+v", failures)
	}
	_, failures = d.Race(t.Context(), []netip.AddrPort{silent}, plenty, false)
	if len(failures) != 1 || !failures[0].Late {
		t.Errorf("silent: %+v", failures)
	}
}

// Each family comes from its own source; one that fails leaves the other.
func TestRace_otherFamily(t *testing.T) {
	_, to4 := dialtest.Listen(t, "127.0.0.1:0")
	_, to6 := listen6(t)
	four, six := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::1")
	for _, c := range []struct {
		from  Sources
		order []netip.AddrPort
		want  netip.Addr
	}{
		{Sources{four, foreign6}, []netip.AddrPort{to6, to4}, four},
		{Sources{foreign4, six}, []netip.AddrPort{to4, to6}, six},
	} {
		d, _ := newDialer(t)
		d.From = c.from
		conn, failures := d.Race(t.Context(), c.order, plenty, false)
		var source *SourceError
		if conn == nil || len(failures) != 1 || !errors.As(failures[0].Err, &source) || failures[0].Addr != c.order[0] {
			t.Fatalf("%v: %v, %v", c.from, conn, failures)
		}
		if LocalAddr(conn).Addr() != c.want {
			t.Errorf("%v: from %v", c.from, LocalAddr(conn))
		}
		conn.Close()
	}
}

func TestOrder_source(t *testing.T) {
	listen6(t)
	four, six := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	for _, c := range []struct {
		from Sources
		want netip.Addr // comes first
	}{
		{Sources{}, four}, // ::1 is not global
		{Sources{Six: six}, six},
		{Sources{Four: foreign4, Six: six}, six},
		{Sources{Six: foreign6}, four},
	} {
		got := Order([]netip.Addr{four, six}, c.from, rand.New(rand.NewPCG(1, 2)))
		if len(got) != 2 || got[0] != c.want {
			t.Errorf("%v: %v", c.from, got)
		}
	}
}

func TestOfFamilies(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")
	for _, test := range []struct {
		four, six   bool
		addrs, want []netip.Addr
	}{
		{true, true, []netip.Addr{a, b, c}, []netip.Addr{a, b, c}},
		{true, false, []netip.Addr{a, b, c}, []netip.Addr{a, c}},
		{false, true, []netip.Addr{a, b, c}, []netip.Addr{b}},
		{false, false, []netip.Addr{a, b, c}, nil},
		{true, true, nil, nil},
		{false, true, []netip.Addr{a, c}, nil},
	} {
		given := slices.Clone(test.addrs)
		if got := OfFamilies(given, test.four, test.six); !slices.Equal(got, test.want) || !slices.Equal(given, test.addrs) {
			t.Errorf("IPv4 %v, IPv6 %v: %v of %v, left %v", test.four, test.six, got, test.addrs, given)
		}
	}
}
