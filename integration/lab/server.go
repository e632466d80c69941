package lab

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A server accepts connections until it is closed, which ends them all.
type server struct {
	listener net.Listener
	running  sync.WaitGroup
	gone     chan struct{} // closed when the server is

	mu    sync.Mutex
	open  map[net.Conn]bool // nil: closed
	count int64             // of connections
}

// newServer makes a server of a listener, which it then owns.
func newServer(listener net.Listener) *server {
	return &server{listener: listener, gone: make(chan struct{}), open: make(map[net.Conn]bool)}
}

// run has serve called for each connection, in a goroutine of its own. Connections are
// numbered from 1.
func (s *server) run(serve func(conn net.Conn, number int64)) {
	s.running.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			number := s.track(conn)
			if number == 0 {
				conn.Close()
				return
			}
			s.running.Go(func() {
				defer s.untrack(conn)
				serve(conn, number)
			})
		}
	})
}

// AddrPort returns where the server listens.
func (s *server) AddrPort() netip.AddrPort { return addrPort(s.listener.Addr()) }

// Close stops the server, hangs up all its connections and waits for their ends. It
// may be called again.
func (s *server) Close() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	s.mu.Lock()
	if s.open != nil {
		close(s.gone)
	}
	for conn := range s.open {
		conn.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.running.Wait()
	return err
}

// track returns the number of a connection, or 0 when the server is closed.
func (s *server) track(conn net.Conn) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return 0
	}
	s.open[conn] = true
	s.count++
	return s.count
}

func (s *server) untrack(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.Close()
	delete(s.open, conn)
}

// wait reports whether the server is still there after a delay.
func (s *server) wait(delay time.Duration) bool {
	if delay == 0 {
		return true
	}
	select {
	case <-time.After(delay):
		return true
	case <-s.gone:
		return false
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
