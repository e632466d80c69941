package worker

import (
	"sync"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/line"
	"nightmare.mail/mxf/remote/login"
	"nightmare.mail/mxf/remote/sign"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/tlsc"
)

// renewal is how long a Router is used before another takes its place: it has read what control files
// name, and a client certificate that has changed is to count within a second.
const renewal = 500 * time.Millisecond

// Routers are the Routers for the control files in force, with all that their deliveries share.
type Routers struct {
	base     remote.Config
	source   *dns.Source
	asked    *dns.Counts
	line     *line.Line
	counts   *transport.Counts
	sessions *tlsc.Sessions

	mu      sync.Mutex
	set     *control.Set // of router
	made    time.Time    // when router was
	router  *remote.Router
	resolve dns.Resolver // of router
	clients map[clientKey]*tlsc.Client
}

// A clientKey is what a TLS client is made of.
type clientKey struct {
	anchors control.Anchors
	resumes bool
}

// maxClients bounds the TLS clients that are kept: control files have one set of trust anchors at a
// time, and may go back and forth.
const maxClients = 4

// NewRouters returns Routers that are like base, which has Programs, Environ, Exits, OnEnd and Now. slots
// is how many deliveries there are at a time, kept how many sessions are kept. source looks names up.
func NewRouters(base remote.Config, slots, kept int, source *dns.Source) *Routers {
	r := &Routers{
		base: base, source: source, asked: new(dns.Counts), counts: new(transport.Counts),
		line:     line.New(line.Config{Slots: slots, Kept: kept, Now: base.Now}),
		sessions: tlsc.NewSessions(base.Now), clients: make(map[clientKey]*tlsc.Client),
	}
	source.Counts = r.asked
	r.base.Shared = &remote.Shared{Line: r.line, Counts: r.counts}
	r.base.Silences, r.base.Signatures, r.base.Certificates = dial.NewSilences(base.Now), sign.NewMemory(base.Now), tlsc.NewCertificates(base.Now)
	r.base.Own, r.base.Refusals = &remote.OwnAddresses{Now: base.Now}, login.NewRefusals(base.Now)
	return r
}

// For returns the Router for the control files in set. The errors are those of remote.New and of
// dns.ReadConfig.
func (r *Routers) For(set *control.Set) (*remote.Router, error) {
	resolver, err := r.source.Resolver(set.TrustResolvers)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.base.Now()
	if age := now.Sub(r.made); r.set == set && r.resolve == resolver && age >= 0 && age < renewal {
		return r.router, nil
	}
	c := r.base
	c.Settings, c.Sharing, c.Resolver, c.TLS = set.Settings, set.Sharing, resolver, r.client(set)
	router, err := remote.New(c)
	if err != nil {
		return nil, err
	}
	r.set, r.made, r.router, r.resolve = set, now, router, resolver
	return router, nil
}

// client returns the TLS client for set.
func (r *Routers) client(set *control.Set) *tlsc.Client {
	key := clientKey{set.TrustAnchors, set.Resumption}
	client := r.clients[key]
	if client == nil {
		if len(r.clients) >= maxClients {
			clear(r.clients)
		}
		client = transport.NewTLS(set.Settings, false, r.base.Now)
		if set.Resumption {
			client.Sessions = r.sessions
		}
		r.clients[key] = client
	}
	return client
}

// Forget forgets all that was learnt.
func (r *Routers) Forget() {
	r.source.Forget()
	r.sessions.Forget()
	r.base.Silences.Forget()
	r.base.Signatures.Forget()
	r.base.Refusals.Forget()
	r.line.Forget()
}

// Close ends what is kept, and keeps nothing any more.
func (r *Routers) Close() { r.line.Close() }
