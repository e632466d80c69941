package tlsc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// A movingClock is testNow and what was added to it.
type movingClock struct{ added atomic.Int64 }

func (m *movingClock) now() time.Time          { return testNow.Add(time.Duration(m.added.Load())) }
func (m *movingClock) advance(d time.Duration) { m.added.Add(int64(d)) }

// replace renames a new file over path.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	next := path + ".next"
	writeOver(t, next, data)
	must.OK(t, os.Rename(next, path))
}

// A client trusts what the files say, a second late, and what they said last when they
// say nothing.
func TestAnchorsChange(t *testing.T) {
	a, b := newCA("a"), newCA("b")
	for _, folder := range []bool{false, true} {
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprintf("folder %v, once %v", folder, once), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "anchors")
				path := filepath.Join(dir, "a file")
				clock := new(movingClock)
				client := &Client{Anchors: Anchors{File: path}, Now: clock.now, ReadOnce: once}
				if folder {
					client.Anchors = Anchors{Dir: dir}
				}
				var kept int
				trace := func(format string, args ...any) {
					if strings.HasPrefix(fmt.Sprintf(format, args...), "tls trust anchors stay as they were: cannot read trust anchors: ") {
						kept++
					}
				}
				want := func(when string, trusted ...*tlstest.Party) {
					t.Helper()
					x, err := client.trustAnchors(t.Context(), trace)
					if len(trusted) == 0 {
						if err == nil {
							t.Fatalf("%s: no error", when)
						}
						return
					}
					if err != nil {
						t.Fatalf("%s: %v", when, err)
					}
					for _, p := range []*tlstest.Party{a, b} {
						if is := x.has(p.Cert); is != (p == trusted[0] || p == trusted[len(trusted)-1]) {
							t.Errorf("%s: %s is trusted: %v", when, p.Cert.Subject, is)
						}
					}
				}
				later := func(when string, trusted ...*tlstest.Party) {
					t.Helper()
					clock.advance(lookInterval)
					if once {
						trusted = []*tlstest.Party{a}
					}
					want(when, trusted...)
				}
				mkdir := func() {
					t.Helper()
					must.OK(t, os.Mkdir(dir, 0o700))
				}

				want("no folder")
				mkdir()
				replace(t, path, a.PEM())
				want("within a second")
				clock.advance(lookInterval)
				want("there", a)
				replace(t, path, b.PEM())
				clock.advance(lookInterval - 1)
				want("replaced within a second", a)
				clock.advance(1)
				if once {
					want("replaced", a)
				} else {
					want("replaced", b)
				}
				writeOver(t, path, append(a.PEM(), b.PEM()...))
				later("rewritten", a, b)
				replace(t, path, a.PEM())
				later("replaced again", a)
				later("unchanged", a)
				if folder {
					added := filepath.Join(dir, "added")
					writeOver(t, added, b.PEM())
					later("added", a, b)
					must.OK(t, os.Remove(added))
					later("removed", a)
				}
				if kept > 0 {
					t.Error("anchors were kept that could be read")
				}
				writeOver(t, path, []byte("nothing"))
				later("spoilt", a)
				later("still spoilt", a)
				must.OK(t, os.RemoveAll(dir))
				later("gone", a)
				if !once && kept != 3 || once && kept != 0 {
					t.Errorf("anchors were kept %d times", kept)
				}
				mkdir()
				replace(t, path, b.PEM())
				later("back", b)
				clock.advance(-time.Hour)
				replace(t, path, a.PEM())
				later("the clock goes back", a)
			})
		}
	}
}

// Who waits while another goroutine reads the anchors for the first time waits no longer than
// he wants to.
func TestAnchorsAreSlow(t *testing.T) {
	root := newCA("root")
	client := trusting(tlstest.Bundle(t, root))
	if err := client.looking.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		limit time.Duration
		cause error
	}{
		{"cancelled", over, 0, context.Canceled},
		{"time limit", t.Context(), 20 * time.Millisecond, context.DeadlineExceeded},
	} {
		demand := enforced(host)
		demand.TimeLimit = tt.limit
		_, err := client.Handshake(tt.ctx, tlstest.Serve(t, tlstest.Answer("")), demand)
		wantError(t, err, KindSettings, "cannot read trust anchors: "+client.Anchors.File+" is not read in time: "+tt.cause.Error())
		if !errors.Is(err, tt.cause) || !errors.As(err, new(*AnchorsError)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	reach, err := Nobody{}.convene(over, client, func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	if v := reach(evidence{}); v.Fault != FaultOurs || !errors.Is(v.Cause, context.Canceled) {
		t.Errorf("verified %q", v)
	}
	client.looking.leave()
	if _, err := handshakeWith(t, root.Leaf(nil, host).Config(), client, enforced(host)); err != nil {
		t.Error(err)
	}
}

// Files that have not changed are not read again, and nothing is read for a verdict that
// does not need it.
func TestAnchorsAreReadOnce(t *testing.T) {
	root := newCA("root")
	clock := new(movingClock)
	client := &Client{Anchors: Anchors{File: tlstest.Bundle(t, root)}, Now: clock.now}
	conn := tlstest.Serve(t, tlstest.Answer(""))
	if _, err := shake(t, conn, client, told(host)); err == nil || client.trusted.Load() != nil {
		t.Errorf("before a verdict: %v, and %v was read", err, client.trusted.Load())
	}
	var first sync.WaitGroup
	read := make(chan *index, 50)
	for range cap(read) {
		first.Go(func() {
			x, _ := client.trustAnchors(t.Context(), func(string, ...any) {})
			read <- x
		})
	}
	first.Wait()
	x := <-read
	for range cap(read) - 1 {
		if <-read != x {
			t.Fatal("first uses at a time read the file more than once")
		}
	}
	// The first look reads once more; see look.
	for look := range 10 {
		clock.advance(lookInterval)
		now, err := client.trustAnchors(t.Context(), func(string, ...any) {})
		if err != nil || look > 0 && now != x {
			t.Errorf("look %d reads the file again, %v", look, err)
		}
		x = now
	}
}

// Three hundred handshakes at a time share a client while its anchors are replaced. The
// authority of the good servers is always among them, that of the bad ones never.
func TestManyAtATime(t *testing.T) {
	good, bad := newCA("good"), newCA("bad")
	path := tlstest.Bundle(t, good)
	clock := new(movingClock)
	client := &Client{Anchors: Anchors{File: path}, Now: clock.now}
	const many = 300
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range many {
		authority, demand := good, told(host)
		if i%3 == 0 {
			authority = bad
		}
		if i%2 == 0 {
			demand = enforced(host)
		}
		config := authority.Leaf(nil, host).Config()
		config.Time = testClock
		conn := tlstest.Serve(t, func(conn *net.TCPConn) {
			server := tls.Server(conn, config)
			io.Copy(server, io.LimitReader(server, 5))
			server.Close()
			io.Copy(io.Discard, conn)
		})
		all.Go(func() {
			<-start
			clock.advance(lookInterval / 4)
			c, err := client.Handshake(t.Context(), conn, demand)
			if demand.Judge != nil && authority == bad {
				if err == nil || !strings.Contains(err.Error(), "is signed by an authority that is not in "+path) {
					t.Errorf("%d: %v", i, err)
				}
				return
			}
			if err != nil {
				t.Errorf("%d: %v", i, err)
				return
			}
			defer c.Close()
			if v := c.Facts().Verdict; v.Good() != (authority == good) {
				t.Errorf("%d: verified %q", i, v)
			}
			io.WriteString(c, "12345")
			if echo, err := io.ReadAll(c); string(echo) != "12345" || err != nil {
				t.Errorf("%d: echo is %q, %v", i, echo, err)
			}
		})
	}
	close(start)
	done := make(chan struct{})
	go func() { defer close(done); all.Wait() }()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
			replace(t, path, append(newCA(fmt.Sprint("other ", i)).PEM(), good.PEM()...))
		}
	}
}
