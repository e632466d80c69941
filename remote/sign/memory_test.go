package sign

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/integration/must"
)

// stamps returns different stamps of a file.
func stamps(t testing.TB, n int) []stamp.Stamp {
	t.Helper()
	path := filepath.Join(t.TempDir(), "message")
	all := make([]stamp.Stamp, n)
	for i := range all {
		must.Write(t, path, "")
		at := time.Unix(1_700_000_000, int64(i))
		must.OK(t, os.Chtimes(path, at, at))
		all[i] = stamp.OfRegular(must.Get(os.Stat(path))(t))
	}
	return all
}

// counting returns key, and how often it has signed.
func counting(key *PrivateKey) (*PrivateKey, *atomic.Int32) {
	var n atomic.Int32
	counted, sign := *key, key.sign
	counted.sign = func(hash []byte) ([]byte, error) {
		n.Add(1)
		return sign(hash)
	}
	return &counted, &n
}

func TestMemory_sign(t *testing.T) {
	t.Parallel()
	file := stamps(t, 2)
	key, signed := counting(edKey(t))
	other, _ := counting(edKey(t))
	const message = from + "Subject: one\n\nbody\n"
	var at time.Time
	m := NewMemory(func() time.Time { return at })
	for _, step := range []struct {
		name    string
		later   time.Duration
		file    stamp.Stamp
		message string
		keys    []Key
		made    bool // anew
	}{
		{"the first", 0, file[0], message, []Key{keyOf(key)}, true},
		{"known", time.Minute, file[0], message, []Key{keyOf(key)}, false},
		{"another version", 0, file[1], message, []Key{keyOf(key)}, true},
		{"another header", 0, file[0], "Received: 1\n" + message, []Key{keyOf(key)}, true},
		{"another selector", 0, file[0], message, []Key{{"shop.example", "s2", key}}, true},
		{"another domain", 0, file[0], message, []Key{{"example", "s1", key}}, true},
		{"two lines", 0, file[0], message, []Key{keyOf(other), keyOf(key)}, true},
		{"the other way round", 0, file[0], message, []Key{keyOf(key), keyOf(other)}, true},
		{"still known", 4*time.Minute - 1, file[0], message, []Key{keyOf(key)}, false},
		{"too old", 1, file[0], message, []Key{keyOf(key)}, true},
		{"no file", 0, stamp.Stamp{}, message, []Key{keyOf(key)}, true},
		{"no file again", 0, stamp.Stamp{}, message, []Key{keyOf(key)}, true},
		{"five lines", 0, file[0], message, []Key{keyOf(other), keyOf(other), keyOf(other), keyOf(other), keyOf(key)}, true},
		{"five lines again", 0, file[0], message, []Key{keyOf(other), keyOf(other), keyOf(other), keyOf(other), keyOf(key)}, true},
	} {
		at = at.Add(step.later)
		before := signed.Load()
		h := must.Get(Read(strings.NewReader(step.message)))(t)
		fields := must.Get(m.Sign(t.Context(), step.file, h, step.keys, now.Add(at.Sub(time.Time{}))))(t)
		if made := signed.Load() > before; made != step.made {
			t.Errorf("%s: made anew %v", step.name, made)
		}
		must.Check(t, verify(received(string(fields)+step.message), step.keys[0].Private))
	}
}

func TestMemory_nil(t *testing.T) {
	var m *Memory
	h := must.Get(Read(strings.NewReader(from + "\nbody")))(t)
	must.Get(m.Sign(t.Context(), stamps(t, 1)[0], h, []Key{keyOf(edKey(t))}, now))(t)
	if _, err := m.ParseKey(nil); err == nil {
		t.Error("no error")
	}
	m.Forget()
}

// Many who want one signature at a time cost one, and none of those who ask later is given
// that of a failure.
func TestMemory_together(t *testing.T) {
	t.Parallel()
	const message = from + "\nbody\n"
	for _, c := range []struct {
		name  string
		fails int32 // this many times
		panic bool
		want  int32 // computations
	}{{"it is made", 0, false, 1}, {"it fails", 2, false, 3}, {"it panics", 2, true, 3}} {
		synctest.Test(t, func(t *testing.T) {
			file := stamps(t, 1)[0]
			var computed atomic.Int32
			key, sign := edKey(t), edKey(t).sign
			key.sign = func(hash []byte) ([]byte, error) {
				time.Sleep(time.Second)
				if n := computed.Add(1); n <= c.fails {
					if c.panic {
						panic("boo")
					}
					return nil, errors.New("no")
				}
				return sign(hash)
			}
			m := NewMemory(time.Now)
			var failed atomic.Int32
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					defer func() {
						if recover() != nil {
							failed.Add(1)
						}
					}()
					h := must.Get(Read(strings.NewReader(message)))(t)
					if _, err := m.Sign(t.Context(), file, h, []Key{keyOf(key)}, now); err != nil {
						failed.Add(1)
					}
				})
			}
			all.Wait()
			if computed.Load() != c.want || failed.Load() != c.fails || len(m.making) != 0 {
				t.Errorf("%s: computed %d times, %d failures, %d under way", c.name, computed.Load(), failed.Load(), len(m.making))
			}
		})
	}
}

// Nobody waits for somebody else's signature longer than it may.
func TestMemory_waits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file := stamps(t, 1)[0]
		key := edKey(t)
		sign := key.sign
		key.sign = func(hash []byte) ([]byte, error) {
			time.Sleep(time.Minute)
			return sign(hash)
		}
		m := NewMemory(time.Now)
		h := must.Get(Read(strings.NewReader(from + "\nbody")))(t)
		go func() { _, _ = m.Sign(t.Context(), file, h, []Key{keyOf(key)}, now) }()
		time.Sleep(time.Second)
		why := errors.New("it did not end in time")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		if _, err := m.Sign(ctx, file, h, []Key{keyOf(key)}, now); err != why {
			t.Errorf("error %v", err)
		}
		time.Sleep(time.Minute)
	})
}

// A header that cannot be read again is an error of reading, and keeps nobody else waiting.
func TestMemory_unreadable(t *testing.T) {
	t.Parallel()
	const message = from + "\nbody\n"
	h := must.Get(Read(strings.NewReader(message)))(t)
	h.text = failingAt{}
	m := NewMemory(time.Now)
	if _, err := m.Sign(t.Context(), stamps(t, 1)[0], h, []Key{keyOf(edKey(t))}, now); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
	if len(m.making) != 0 {
		t.Error("it is still under way")
	}
}

func TestMemory_keys(t *testing.T) {
	t.Parallel()
	text := func(bits int) []byte {
		der := x509.MarshalPKCS1PrivateKey(must.Get(rsa.GenerateKey(nil, bits))(t))
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der})
	}
	one, two := text(1024), text(1024)
	at := time.Unix(1_700_000_000, 0)
	m := NewMemory(func() time.Time { return at })
	first := must.Get(m.ParseKey(one))(t)
	if again := must.Get(m.ParseKey(bytes.Clone(one)))(t); again != first {
		t.Error("the same text is parsed again")
	}
	if other := must.Get(m.ParseKey(two))(t); other == first {
		t.Error("another text gives the same key")
	}
	for range 2 {
		if _, err := m.ParseKey([]byte("no key")); err == nil {
			t.Error("no error")
		}
	}
	m.Forget()
	if again := must.Get(m.ParseKey(one))(t); again == first {
		t.Error("it is not forgotten")
	}
}

func TestMemory_bounds(t *testing.T) {
	t.Parallel()
	m := NewMemory(time.Now)
	files := stamps(t, maxSignatures+100)
	key := edKey(t)
	h := must.Get(Read(strings.NewReader(from + "\nbody")))(t)
	for _, file := range files {
		must.Get(m.Sign(t.Context(), file, h, []Key{keyOf(key)}, now))(t)
	}
	if n := m.made.Len(); n != maxSignatures {
		t.Errorf("%d signatures", n)
	}
}

// Nothing that prints a Memory prints a key.
func TestMemory_print(t *testing.T) {
	t.Parallel()
	m := NewMemory(time.Now)
	text := []byte(pemOf("PRIVATE KEY", must.Get(x509.MarshalPKCS8PrivateKey(must.Get(rsa.GenerateKey(nil, 1024))(t)))(t)))
	must.Get(m.ParseKey(text))(t)
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		if printed := fmt.Sprintf(verb, m); strings.Contains(printed, "PRIVATE") {
			t.Errorf("%s prints %s", verb, printed)
		}
	}
}

// BenchmarkMemory is the signature of a further recipient: the header is read, the key's text
// is known, and so is the signature.
func BenchmarkMemory(b *testing.B) {
	message := from + everyField() + "\n" + strings.Repeat("A line of the usual length, as people write them.\n", 50)
	text := []byte(pemOf("PRIVATE KEY", must.Get(x509.MarshalPKCS8PrivateKey(must.Get(rsa.GenerateKey(nil, 2048))(b)))(b)))
	file := stamps(b, 1)[0]
	m := NewMemory(time.Now)
	b.ReportAllocs()
	for b.Loop() {
		h := must.Get(Read(strings.NewReader(message)))(b)
		key := must.Get(m.ParseKey(text))(b)
		must.Get(m.Sign(b.Context(), file, h, []Key{keyOf(key)}, now))(b)
	}
}
