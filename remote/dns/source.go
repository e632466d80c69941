package dns

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// lookInterval is how long resolv.conf is not looked at again: a change is in force within a
// second.
const lookInterval = 500 * time.Millisecond

// A Source has one Cache for all deliveries of a process, and a new one when the name servers
// change: what others have said is forgotten then. It may be used by several goroutines at a
// time.
type Source struct {
	DNSCacheIP string           // the value of $DNSCACHEIP
	ResolvConf string           // the path of resolv.conf, which is read again when it may have changed
	Sockets    int              // as in Config
	Now        func() time.Time // the clock
	Counts     *Counts          // what all its Caches add to

	mu      sync.Mutex
	trusted []netip.AddrPort // those of config
	looked  time.Time        // when config was read; zero: never
	config  Config
	cache   *Cache
}

// Resolver returns the Cache for the name servers of now, see [ReadConfig]: that of the call
// before, where they are the same. The error is a *ConfigError; the Cache is there again as
// soon as there is none.
func (s *Source) Resolver(trusted []netip.AddrPort) (*Cache, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	if age := now.Sub(s.looked); s.cache != nil && age >= 0 && age < lookInterval && slices.Equal(trusted, s.trusted) {
		return s.cache, nil
	}
	config, err := ReadConfig(trusted, s.DNSCacheIP, s.ResolvConf)
	if err != nil {
		s.looked = time.Time{}
		return nil, err
	}
	s.looked, s.trusted = now, slices.Clone(trusted)
	if s.cache != nil && config.same(&s.config) {
		return s.cache, nil
	}
	s.config = config
	config.Sockets, config.Now = s.Sockets, s.Now
	s.cache = NewCache(NewClient(config), s.Now, s.Counts)
	return s.cache, nil
}

// same reports whether c and d name the same servers, for the same reason.
func (c *Config) same(d *Config) bool {
	return slices.Equal(c.Servers, d.Servers) && c.TCP == d.TCP && c.Source == d.Source && c.Guess == d.Guess
}

// Forget drops all answers.
func (s *Source) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cache != nil {
		s.cache.Forget()
	}
}
