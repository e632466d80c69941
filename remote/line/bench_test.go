package line

import (
	"context"
	"sync"
	"testing"
	"time"
)

// A delivery on a kept session, and one that had to wait behind thousands.
func BenchmarkGet_kept(b *testing.B) {
	l := New(Config{Slots: 500, Kept: 500})
	l.must(b, never, to(1, "k")).Keep(&fake{}, keeping)
	wants := []Want{to(1, "k")}
	for b.Loop() {
		le, err := l.Get(context.Background(), never, wants)
		if err != nil {
			b.Fatal(err)
		}
		le.Sent()
		le.Accepted()
		le.Keep(le.Session(), keeping)
	}
}

func BenchmarkGet_waiting(b *testing.B) {
	const waiters = 10_000
	for b.Loop() {
		l := New(Config{Slots: 12_000, Kept: 500})
		var callers sync.WaitGroup
		for range waiters {
			callers.Go(func() {
				le, err := l.Get(context.Background(), Caller{Wait: time.Hour}, []Want{to(1, "k")})
				if err != nil {
					b.Error(err)
					return
				}
				s := le.Session()
				if s == nil {
					s = &fake{}
				}
				le.Keep(s, keeping)
			})
		}
		callers.Wait()
		l.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/waiters, "ns/waiter")
}
