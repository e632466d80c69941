package tlsc

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

func TestCertificates(t *testing.T) {
	t.Parallel()
	one, two := newCA("one"), newCA("two")
	both := func(p *tlstest.Party) string { return string(slices.Concat(p.PEM(), p.KeyPEM())) }
	folder := t.TempDir()
	path := filepath.Join(folder, "client.pem")
	now := time.Unix(1_700_000_000, 0)
	c := NewCertificates(func() time.Time { return now })
	var before *Certificate
	for _, step := range []struct {
		name  string
		later time.Duration
		file  string // what it holds from now on; empty: as before
		same  bool   // as before
		fails bool
	}{
		{"the first", 0, both(one), false, false},
		{"known", time.Second / 2, "", true, false},
		{"looked at again", time.Second, "", true, false},
		{"written again", time.Second, both(one), true, false},
		{"changed, within the second", time.Second / 2, both(two), true, false},
		{"changed, after the second", time.Second / 2, "", false, false},
		{"no certificate", time.Second, "text", false, true},
		{"still none", 0, "", false, true},
		{"as before", 0, both(two), true, false},
		{"the clock is set back", -time.Hour, both(one), false, false},
	} {
		now = now.Add(step.later)
		if step.file != "" {
			must.Write(t, path, step.file)
		}
		got, err := c.Load(path, path)
		if fault := new(Error); (err != nil) != step.fails || err != nil && !(errors.As(err, &fault) && fault.Kind == KindSettings) {
			t.Errorf("%s: error %v", step.name, err)
		}
		if err != nil {
			continue
		}
		if same := got == before; same != step.same {
			t.Errorf("%s: the same %v", step.name, same)
		}
		before = got
	}
	must.OK(t, os.Link(path, path+".link"))
	if got := must.Get(c.Load(path+".link", path))(t); got != before {
		t.Error("another path of the same content gives another certificate")
	}
	if got := must.Get((*Certificates)(nil).Load(path, path))(t); got == before {
		t.Error("nil remembers")
	}
}

func TestCertificates_bounds(t *testing.T) {
	t.Parallel()
	key := must.Get(rsa.GenerateKey(rand.Reader, 2048))(t)
	p := newCA("root").Issue(key)
	path := tlstest.File(t, "client.pem", slices.Concat(p.PEM(), p.KeyPEM()))
	now := time.Unix(1_700_000_000, 0)
	c := NewCertificates(func() time.Time { return now })
	for i := range maxCertificates + 10 {
		now = now.Add(time.Second)
		link := fmt.Sprintf("%s.%d", path, i)
		must.OK(t, os.Link(path, link))
		must.Get(c.Load(link, path))(t)
	}
	if len(c.pairs) != maxCertificates {
		t.Errorf("%d are held", len(c.pairs))
	}
	if _, ok := c.pairs[[2]string{path + ".9", path}]; ok {
		t.Error("the oldest was not dropped")
	}
}

func TestCertificates_together(t *testing.T) {
	t.Parallel()
	p := newCA("root")
	path := tlstest.File(t, "client.pem", slices.Concat(p.PEM(), p.KeyPEM()))
	c := NewCertificates(time.Now)
	first := must.Get(c.Load(path, path))(t)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got, err := c.Load(path, path); got != first || err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
