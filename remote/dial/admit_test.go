package dial

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"nightmare.mail/mxf/remote/dial/dialtest"
)

// A gate admits addresses, and notes what becomes of them.
type gate struct {
	closed []netip.AddrPort            // what it does not admit
	asked  []netip.AddrPort            // in this order
	ended  map[netip.AddrPort][]string // "kept" or "gone", for each call of done
}

func (g *gate) admit(addr netip.AddrPort) (func(*net.TCPConn), bool) {
	g.asked = append(g.asked, addr)
	if slices.Contains(g.closed, addr) {
		return nil, false
	}
	return func(conn *net.TCPConn) {
		end := "gone"
		if conn != nil {
			end = "kept"
		}
		g.ended[addr] = append(g.ended[addr], end)
	}, true
}

func TestRace_admit(t *testing.T) {
	_, first := dialtest.Listen(t, "127.0.0.1:0")
	_, second := dialtest.Listen(t, "127.0.0.1:0")
	refused, silent := dialtest.Refused(t), dialtest.Silent(t)
	for _, c := range []struct {
		name     string
		addrs    []netip.AddrPort
		closed   []netip.AddrPort
		want     netip.AddrPort // what is connected to; zero: nothing
		asked    int
		failures int
		ended    map[netip.AddrPort]string
	}{
		{"all are", []netip.AddrPort{first, second}, nil, first, 1, 0, map[netip.AddrPort]string{first: "kept"}},
		{"the first is not", []netip.AddrPort{first, second}, []netip.AddrPort{first}, second, 2, 0,
			map[netip.AddrPort]string{second: "kept"}},
		{"none is", []netip.AddrPort{first, second}, []netip.AddrPort{first, second}, netip.AddrPort{}, 2, 0, nil},
		{"one refuses", []netip.AddrPort{refused, second}, nil, second, 2, 1,
			map[netip.AddrPort]string{refused: "gone", second: "kept"}},
		{"one loses", []netip.AddrPort{silent, second}, nil, second, 2, 0,
			map[netip.AddrPort]string{silent: "gone", second: "kept"}},
		{"nothing can be", nil, nil, netip.AddrPort{}, 0, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := newDialer(t)
			g := gate{closed: c.closed, ended: make(map[netip.AddrPort][]string)}
			d.Admit = g.admit
			conn, failures := d.Race(t.Context(), c.addrs, plenty, false)
			if len(failures) != c.failures || (conn != nil) != c.want.IsValid() {
				t.Fatalf("%v, %v", conn, failures)
			}
			if conn != nil {
				defer conn.Close()
				if RemoteAddr(conn) != c.want {
					t.Errorf("connected to %s, want %s", RemoteAddr(conn), c.want)
				}
			}
			if len(g.asked) != c.asked || len(g.ended) != len(c.ended) {
				t.Errorf("asked for %v, ended %v", g.asked, g.ended)
			}
			for addr, end := range c.ended {
				if !slices.Equal(g.ended[addr], []string{end}) {
					t.Errorf("%s ended %q, want once %q", addr, g.ended[addr], end)
				}
			}
		})
	}
}

// What is passed over costs no time: the next one is not started attemptDelay later.
func TestRace_admitQuickly(t *testing.T) {
	refused := dialtest.Refused(t)
	addrs := make([]netip.AddrPort, 400)
	for i := range addrs {
		addrs[i] = refused
	}
	d, _ := newDialer(t)
	d.Admit = func(netip.AddrPort) (func(*net.TCPConn), bool) { return nil, false }
	began := time.Now()
	d.Race(t.Context(), addrs, plenty, false)
	if took := time.Since(began); took > 400*attemptDelay/4 {
		t.Errorf("400 addresses were passed over in %s", took)
	}
}

// A connection that is made when the race is lost is closed before its place is given back.
func TestRace_admitBothConnect(t *testing.T) {
	_, first := dialtest.Listen(t, "127.0.0.1:0")
	for range 50 {
		d, _ := newDialer(t)
		open, kept := 0, 0
		d.Admit = func(netip.AddrPort) (func(*net.TCPConn), bool) {
			open++
			return func(conn *net.TCPConn) {
				if conn == nil {
					open--
				} else {
					kept++
				}
			}, true
		}
		conn, _ := d.Race(t.Context(), []netip.AddrPort{dialtest.Refused(t), first, first}, plenty, false)
		if conn == nil || open != 1 || kept != 1 {
			t.Fatalf("%v, %d open, %d kept", conn, open, kept)
		}
		conn.Close()
	}
}
