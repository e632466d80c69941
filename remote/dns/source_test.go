package dns

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

func TestSource(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	now := time.Unix(1_700_000_000, 0)
	s := &Source{ResolvConf: path, Now: func() time.Time { return now }, Counts: new(Counts)}
	trusted := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}
	var before *Cache
	for _, step := range []struct {
		name    string
		later   time.Duration
		conf    string // empty: stays
		trusted []netip.AddrPort
		another bool // Cache than that of the step before
		source  string
	}{
		{"no file", 0, "", nil, true, path},
		{"still none", time.Second, "", nil, false, path},
		{"a file", time.Second, "nameserver 192.0.2.1\n", nil, true, path},
		{"the same servers", time.Second, "# a word\nnameserver 192.0.2.1\n", nil, false, path},
		{"another one", time.Second, "nameserver 192.0.2.2\n", nil, true, path},
		{"by TCP", time.Second, "nameserver 192.0.2.2\noptions use-vc\n", nil, true, path},
		{"trusted ones", 0, "", trusted, true, "control/trustresolvers"},
		{"a file that does not matter", time.Second, "nameserver 192.0.2.3\n", trusted, false, "control/trustresolvers"},
		{"not trusted any more", 0, "", nil, true, path},
		{"the clock is set back, and the file changed", -time.Hour, "nameserver 192.0.2.4\n", nil, true, path},
	} {
		now = now.Add(step.later)
		if step.conf != "" {
			must.OK(t, os.WriteFile(path, []byte(step.conf), 0o644))
		}
		cache := must.Get(s.Resolver(step.trusted))(t)
		if (cache != before) != step.another || s.config.Source != step.source {
			t.Errorf("%s: another %v, %+v", step.name, cache != before, s.config)
		}
		before = cache
	}
}

// A file that cannot be read is an error, until it can be; the answers are still there then.
func TestSource_unreadable(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "resolv.conf")
	now := time.Unix(1_700_000_000, 0)
	s := &Source{ResolvConf: path, Now: func() time.Time { return now }, Counts: new(Counts)}
	must.OK(t, os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o644))
	cache := must.Get(s.Resolver(nil))(t)
	must.OK(t, os.Rename(path, path+".old"), os.Mkdir(path, 0o755))
	now = now.Add(time.Second)
	for range 2 {
		if _, err := s.Resolver(nil); !errors.As(err, new(*ConfigError)) {
			t.Errorf("error %v", err)
		}
	}
	must.OK(t, os.Remove(path), os.Rename(path+".old", path))
	if again := must.Get(s.Resolver(nil))(t); again != cache {
		t.Error("the answers are forgotten")
	}
	s.Forget()
	(&Source{}).Forget()
}
