package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

// A stub answers as it is told.
type stub struct {
	asked  atomic.Int32
	answer func(ctx context.Context, q Question) *Answer
}

func (s *stub) Lookup(ctx context.Context, q Question) *Answer {
	s.asked.Add(1)
	return s.answer(ctx, q)
}

func newCache(under Resolver) *Cache { return NewCache(under, time.Now, new(Counts)) }

var question = Question{Name: "a.test", Type: TypeA}

// records is an answer with an address.
func records(ttl time.Duration) *Answer {
	return &Answer{Question: question, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, TTL: ttl,
		Took: 3 * time.Millisecond, Notes: []string{"192.0.2.53:53: no answer in 1s"}}
}

func TestCache_howLong(t *testing.T) {
	t.Parallel()
	failure := errors.New("server failure")
	for _, c := range []struct {
		name   string
		answer *Answer
		want   time.Duration
	}{
		{"records", records(time.Minute), time.Minute},
		{"records, TTL 0", records(0), 0},
		{"records, a long TTL", records(24 * time.Hour), time.Hour},
		{"no data", &Answer{TTL: time.Minute}, time.Minute},
		{"no data, without SOA", &Answer{}, 0},
		{"no data, a long TTL", &Answer{TTL: time.Hour}, 5 * time.Minute},
		{"no such name", &Answer{Err: ErrNoName, TTL: time.Minute}, time.Minute},
		{"no such name, without SOA", &Answer{Err: ErrNoName}, 0},
		{"no such name, a long TTL", &Answer{Err: ErrNoName, TTL: time.Hour}, 5 * time.Minute},
		{"failure", &Answer{Err: failure}, 10 * time.Second},
		{"time-out of its own", &Answer{Err: &cutShort{failure, context.DeadlineExceeded}}, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				under := &stub{answer: func(context.Context, Question) *Answer { return c.answer }}
				cache := newCache(under)
				first := cache.Lookup(t.Context(), question)
				if first != c.answer {
					t.Errorf("the first answer is %v", first)
				}
				if c.want > 0 {
					time.Sleep(c.want - 1)
					known := cache.Lookup(t.Context(), question)
					want := *c.answer
					want.Took, want.Notes = 0, nil
					if !reflect.DeepEqual(*known, want) || under.asked.Load() != 1 {
						t.Errorf("before its end: %v, asked %d times", known, under.asked.Load())
					}
					time.Sleep(time.Nanosecond)
				}
				cache.Lookup(t.Context(), question)
				if under.asked.Load() != 2 {
					t.Errorf("after its end it was asked %d times, want 2", under.asked.Load())
				}
			})
		})
	}
}

// Questions that differ in one field are different questions.
func TestCache_keys(t *testing.T) {
	t.Parallel()
	under := &stub{answer: func(_ context.Context, q Question) *Answer {
		return &Answer{Question: q, Secure: q.Secure, TTL: time.Minute, Addrs: []netip.Addr{netip.IPv6Loopback()}}
	}}
	cache := newCache(under)
	questions := []Question{{"a.test", TypeA, false}, {"a.test", TypeA, true}, {"a.test", TypeAAAA, false}, {"b.test", TypeA, false}}
	for range 2 {
		for _, q := range questions {
			if a := cache.Lookup(t.Context(), q); a.Question != q || a.Secure != q.Secure {
				t.Errorf("%v: %v", q, a)
			}
		}
	}
	if asked, known := cache.counts.Asked.Load(), cache.counts.Known.Load(); asked != 4 || known != 4 || under.asked.Load() != 4 {
		t.Errorf("asked %d, known %d", asked, known)
	}
}

// slow is a stub whose lookup takes a time, or until its context ends.
func slow(takes time.Duration, a *Answer) *stub {
	return &stub{answer: func(ctx context.Context, q Question) *Answer {
		select {
		case <-time.After(takes):
			return a
		case <-ctx.Done():
			return &Answer{Question: q, Err: &cutShort{errors.New("cut"), context.Cause(ctx)}}
		}
	}}
}

// Each of those who wait for one lookup gets its answer, or leaves when its own time is over.
func TestCache_together(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		under := slow(10*time.Second, records(0))
		cache := newCache(under)
		waits := []time.Duration{5 * time.Second, time.Minute, 9 * time.Second, 11 * time.Second}
		var all sync.WaitGroup
		for i, wait := range waits {
			time.Sleep(time.Millisecond)
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()
				began := time.Now()
				a := cache.Lookup(ctx, question)
				switch took := time.Since(began); {
				case wait < 10*time.Second && (!errors.Is(a.Err, context.DeadlineExceeded) || took != wait || a.Took != wait):
					t.Errorf("asker %d: %v after %v", i, a, took)
				case wait > 10*time.Second && (a.Failed() || took > 10*time.Second):
					t.Errorf("asker %d: %v after %v", i, a, took)
				}
			})
		}
		all.Wait()
		if under.asked.Load() != 1 {
			t.Errorf("it was asked %d times", under.asked.Load())
		}
		if a := cache.Lookup(t.Context(), question); a.Failed() || under.asked.Load() != 2 {
			t.Errorf("an answer that may not be kept was kept: %v", a)
		}
	})
}

// A lookup that nobody waits for any more ends, and says nothing to others.
func TestCache_givenUp(t *testing.T) {
	t.Parallel()
	deadline := func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, time.Second)
	}
	share := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(time.Second, func() { cancel(context.DeadlineExceeded) })
		return ctx, func() { cancel(nil) }
	}
	cancelled := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		return ctx, cancel
	}
	for _, c := range []struct {
		name  string
		end   func(context.Context) (context.Context, context.CancelFunc)
		cause error
	}{
		{"deadline", deadline, context.DeadlineExceeded},
		{"a part of the time is over", share, context.DeadlineExceeded},
		{"cancelled", cancelled, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				causes := make(chan error, 9)
				under := &stub{answer: func(ctx context.Context, q Question) *Answer {
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return &Answer{Question: q, Err: ctx.Err()}
				}}
				cache := newCache(under)
				for n := range int32(2) {
					ctx, cancel := c.end(t.Context())
					a := cache.Lookup(ctx, question)
					cancel()
					if !errors.Is(a.Err, c.cause) || under.asked.Load() != n+1 {
						t.Errorf("%v, asked %d times", a, under.asked.Load())
					}
					if cause := <-causes; cause != c.cause {
						t.Errorf("the lookup ended by %v", cause)
					}
				}
			})
		})
	}
}

// One who gives a shared lookup up gets the answer that a lookup of its own would have had.
func TestCache_asIfAlone(t *testing.T) {
	t.Parallel()
	silent := dnstest.Silent(t)
	closed := dnstest.Closed(t)
	for _, servers := range [][]netip.AddrPort{{silent}, {closed, silent}, {silent, closed}} {
		for _, cause := range []error{context.DeadlineExceeded, context.Canceled} {
			t.Run(fmt.Sprintf("%v %v", servers, cause), func(t *testing.T) {
				t.Parallel()
				lookup := func(r Resolver) *Answer {
					ctx, cancel := context.WithCancelCause(t.Context())
					time.AfterFunc(1500*time.Millisecond, func() { cancel(cause) })
					return r.Lookup(ctx, question)
				}
				alone := lookup(newClient(servers...))
				cache := newCache(newClient(servers...))
				go cache.Lookup(t.Context(), question) // one more who waits
				a := lookup(cache)
				if a.Err.Error() != alone.Err.Error() || errors.Is(a.Err, cause) != errors.Is(alone.Err, cause) || !errors.Is(a.Err, cause) ||
					len(a.Notes) != len(alone.Notes) {
					t.Errorf("%v %q, alone %v %q", a, a.Notes, alone, alone.Notes)
				}
			})
		}
	}
}

func TestCache_panic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(&stub{answer: func(context.Context, Question) *Answer {
			time.Sleep(time.Second)
			panic("boo")
		}})
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if a := cache.Lookup(t.Context(), question); !a.Failed() || !strings.Contains(a.Err.Error(), "boo") {
					t.Errorf("%v", a)
				}
			})
		}
		all.Wait()
	})
}

func TestCache_forget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		under := slow(time.Second, records(time.Hour))
		cache := newCache(under)
		done := make(chan *Answer)
		go func() { done <- cache.Lookup(t.Context(), question) }()
		time.Sleep(time.Millisecond)
		cache.Forget()
		go func() { done <- cache.Lookup(t.Context(), question) }() // does not join what began before
		for range 2 {
			if a := <-done; a.Failed() {
				t.Error(a)
			}
		}
		if cache.Lookup(t.Context(), question); under.asked.Load() != 2 {
			t.Errorf("asked %d times, want 2", under.asked.Load())
		}
		cache.Forget()
		if cache.Lookup(t.Context(), question); under.asked.Load() != 3 {
			t.Errorf("asked %d times, want 3", under.asked.Load())
		}
	})
}

// The time that a shared lookup waits for its socket is nobody's share.
func TestCache_shares(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(&stub{answer: func(ctx context.Context, q Question) *Answer {
			leave := queue(ctx)
			time.Sleep(20 * time.Second)
			leave()
			time.Sleep(3 * time.Second)
			return records(0)
		}})
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 6 * time.Second) // 0 s to 18 s: all come while it waits
				ctx, share := WithShare(t.Context(), 5*time.Second)
				defer share.Stop()
				cache.Lookup(ctx, question)
				select {
				case <-share.C:
					t.Errorf("the share of asker %d is over", i)
				default:
				}
				time.Sleep(5*time.Second + 1)
				select {
				case <-share.C:
				default:
					t.Errorf("the share of asker %d does not end", i)
				}
			})
		}
		all.Wait()
	})
}

// One who leaves while the lookup waits has its clock going again.
func TestCache_shareOfOneWhoLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(&stub{answer: func(ctx context.Context, q Question) *Answer {
			defer queue(ctx)()
			time.Sleep(time.Minute)
			return records(0)
		}})
		go cache.Lookup(t.Context(), question)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		ctx, share := WithShare(ctx, 5*time.Second)
		cache.Lookup(ctx, question)
		began := time.Now()
		if <-share.C; time.Since(began) != 5*time.Second {
			t.Errorf("it ended after %v", time.Since(began))
		}
		time.Sleep(time.Minute)
	})
}

func TestCache_bounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		size int // of each answer, in bytes
		most int
	}{
		{"many answers", 10, maxAnswers},
		{"large answers", 64 << 10, maxAnswerBytes / (64 << 10)},
	} {
		text := strings.Repeat("x", c.size)
		cache := newCache(&stub{answer: func(_ context.Context, q Question) *Answer {
			return &Answer{Question: q, TXT: []string{text}, TTL: time.Hour}
		}})
		for i := range maxAnswers + 2000 {
			cache.Lookup(t.Context(), Question{Name: fmt.Sprintf("n%d.test", i), Type: TypeTXT})
		}
		if n := cache.answers.Len(); n > c.most || n < c.most*9/10 {
			t.Errorf("%s: %d are kept", c.name, n)
		}
		if n := len(cache.flights); n > 0 {
			t.Errorf("%s: %d lookups are under way", c.name, n)
		}
	}
}

// Hundreds share one Cache, and their contexts end whenever they like.
func TestCache_manyTogether(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, dnstest.Many(40, "many.test. A 10.0.%d.%d")+"a.test. A 192.0.2.1\nb.test. CNAME a.test.\n", map[string]string{"c.test": "silence"})
	cache := newCache(newClient(server.Addr))
	names := []string{"many.test", "a.test", "b.test", "c.test", "nowhere.test"}
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for range 20 {
				ctx, share := WithShare(t.Context(), time.Duration(rnd.IntN(20))*time.Millisecond)
				ctx, cancel := context.WithTimeout(ctx, time.Duration(rnd.IntN(20)+1)*time.Millisecond)
				q := Question{Name: names[rnd.IntN(len(names))], Type: TypeA}
				a := cache.Lookup(ctx, q)
				if a.Question != q || a.Err != nil && a.Err != ErrNoName && !errors.Is(a.Err, context.DeadlineExceeded) {
					t.Errorf("%v: %v", q, a)
				}
				_ = a.String()
				if rnd.IntN(50) == 0 {
					cache.Forget()
				}
				cancel()
				share.Stop()
			}
		})
	}
	all.Wait()
	cache.mu.Lock()
	defer cache.mu.Unlock()
	if len(cache.flights) != 0 {
		t.Errorf("%d lookups are under way", len(cache.flights))
	}
}

// A known answer has the line of the trace that it had, but took no time.
func TestCache_trace(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, "a.test. A 192.0.2.1\n", nil)
	cache := newCache(newClient(server.Addr))
	for range 2 {
		a := must.Get(cache.Lookup(t.Context(), question), nil)(t)
		var lines []string
		a.Trace(func(line string) { lines = append(lines, line) })
		if len(lines) != 1 || !strings.HasPrefix(lines[0], "lookup A a.test: 192.0.2.1 (") {
			t.Errorf("%q", lines)
		}
	}
	if line := cache.Lookup(t.Context(), question).String(); line != "lookup A a.test: 192.0.2.1 (0 ms)" {
		t.Errorf("%q", line)
	}
}

// BenchmarkCache is one question whose answer is known.
func BenchmarkCache(b *testing.B) {
	cache := newCache(&stub{answer: func(context.Context, Question) *Answer { return records(time.Hour) }})
	b.ReportAllocs()
	for b.Loop() {
		if a := cache.Lookup(b.Context(), question); a.Err != nil {
			b.Fatal(a.Err)
		}
	}
}

// BenchmarkCacheMiss is one question that is asked, of a resolver that knows.
func BenchmarkCacheMiss(b *testing.B) {
	cache := newCache(&stub{answer: func(context.Context, Question) *Answer { return records(0) }})
	b.ReportAllocs()
	for b.Loop() {
		cache.Lookup(b.Context(), question)
	}
}
