package integration

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/remote/dane"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// TLSA records by name servers that others wrote, of zones that somebody else's tools signed,
// and what Postfix finds of them.
//
//	remote/route, remote/dane ──┐
//	                            ├──► unbound (validates) ──► nsd (the zones)
//	posttls-finger ─────────────┘
//	     └──► an SMTP server of the lab, 127.0.0.2
//
// dane.test is signed, and nsec3.dane.test by another key; u.dane.test is delegated without
// one. Each exchanger is in a domain of its own, which has the name of the case.
const daneZone = `$ORIGIN dane.test.
$TTL 60
@                    SOA   ns hostmaster 1 3600 600 86400 60
@                    NS    ns
ns                   A     127.0.0.1
u                    NS    ns
nsec3                NS    ns

good                 MX    10 mx.good
mx.good              A     127.0.0.2
_25._tcp.mx.good     TLSA  3 1 1 $DIGEST

none                 MX    10 mx.none
mx.none              A     127.0.0.2
nodata               MX    10 mx.nodata
mx.nodata            A     127.0.0.2
_25._tcp.mx.nodata   TXT   "no TLSA"
unusable             MX    10 mx.unusable
mx.unusable          A     127.0.0.2
_25._tcp.mx.unusable TLSA  0 1 1 $DIGEST
_25._tcp.mx.unusable TLSA  3 1 1 ab12
bogus                MX    10 mx.bogus
mx.bogus             A     127.0.0.2
_25._tcp.mx.bogus    TLSA  3 1 1 $DIGEST
self                 A     127.0.0.2
_25._tcp.self        TLSA  3 1 1 $DIGEST
large                MX    10 mx.large
mx.large             A     127.0.0.2
_25._tcp.mx.large    TLSA  3 1 1 $DIGEST

tosecure             MX    10 mx.tosecure
mx.tosecure          CNAME mx.good
_25._tcp.mx.tosecure TLSA  3 1 1 $OTHER
toown                MX    10 mx.toown
mx.toown             CNAME mx.none
_25._tcp.mx.toown    TLSA  3 1 1 $DIGEST
toinsecure           MX    10 mx.toinsecure
mx.toinsecure        CNAME mx.u
_25._tcp.mx.toinsecure TLSA 3 1 1 $DIGEST
tou                  MX    10 mx.u
bare                 MX    10 mx.bare
mx.bare              CNAME mx.u
tobogus              MX    10 mx.tobogus
mx.tobogus           CNAME mx.bogus
_25._tcp.mx.tobogus  TLSA  3 1 1 $DIGEST
records              MX    10 mx.records
mx.records           A     127.0.0.2
_25._tcp.mx.records  CNAME _25._tcp.mx.good
recordsout           MX    10 mx.recordsout
mx.recordsout        A     127.0.0.2
_25._tcp.mx.recordsout CNAME _25._tcp.mx.u

_25._tcp.mx.ta       TLSA  2 0 1 $AUTHORITY
mx.ta                A     127.0.0.2
ta                   MX    10 mx.ta
othername.ta         A     127.0.0.3
_25._tcp.othername.ta TLSA 2 0 1 $AUTHORITY
host                 MX    10 mx.host
mx.host              A     127.0.0.4
_25._tcp.mx.host     TLSA  2 0 1 $AUTHORITY
end                  MX    10 mx.end
mx.end               CNAME end.end
end.end              A     127.0.0.5
_25._tcp.end.end     TLSA  2 0 1 $AUTHORITY
itself               CNAME end.itself
end.itself           A     127.0.0.6
_25._tcp.end.itself  TLSA  2 0 1 $AUTHORITY
itsend               CNAME end.itsend
end.itsend           A     127.0.0.7
_25._tcp.end.itsend  TLSA  2 0 1 $AUTHORITY
aliased              CNAME end.aliased
end.aliased          MX    10 mx.aliased
mx.aliased           A     127.0.0.8
_25._tcp.mx.aliased  TLSA  2 0 1 $AUTHORITY
aliasedown           CNAME end.aliasedown
end.aliasedown       MX    10 mx.aliasedown
mx.aliasedown        A     127.0.0.9
_25._tcp.mx.aliasedown TLSA 2 0 1 $AUTHORITY
mx.hostu             A     127.0.0.10
_25._tcp.mx.hostu    TLSA  2 0 1 $AUTHORITY

*.wild               MX    10 mx.a.wild
mx.a.wild            A     127.0.0.2
*._tcp.mx.a.wild     TLSA  3 1 1 $DIGEST
wilder               MX    10 mx.a.wilder
*.wilder             A     127.0.0.2
`

const insecureZone = `$ORIGIN u.dane.test.
$TTL 60
@                    SOA   ns hostmaster 1 3600 600 86400 60
@                    NS    ns.dane.test.
@                    MX    10 mx
mx                   A     127.0.0.2
_25._tcp.mx          TLSA  3 1 1 $DIGEST
half                 MX    10 mx.good.dane.test.
alias                MX    10 mx.alias
mx.alias             CNAME mx.good.dane.test.
_25._tcp.mx.alias    TLSA  3 1 1 $DIGEST
ta                   MX    10 mx.ta.dane.test.
hostu                MX    10 mx.hostu.dane.test.
`

const nsec3Zone = `$ORIGIN nsec3.dane.test.
$TTL 60
@                    SOA   ns hostmaster 1 3600 600 86400 60
@                    NS    ns.dane.test.
@                    MX    10 mx
mx                   A     127.0.0.2
good                 MX    10 mx.good
mx.good              A     127.0.0.2
_25._tcp.mx.good     TLSA  3 1 1 $DIGEST
wild                 MX    10 mx.a.wild
*.wild               A     127.0.0.2
`

// daneNames has servers whose certificates an authority has issued that the TLSA records of
// their exchangers name: the name in the certificate decides, by the path to the exchanger.
var daneNames = []struct {
	domain, addr string
	certificate  string // the name in it
	good         bool   // we take it
	postfix      bool   // posttls-finger does
}{
	{"ta.dane.test", "127.0.0.2", "mx.ta.dane.test", true, true}, // the base
	{"ta.u.dane.test", "127.0.0.2", "mx.ta.dane.test", true, true},
	{"othername.ta.dane.test", "127.0.0.3", "mx.ta.dane.test", false, false}, // somebody else's
	{"host.dane.test", "127.0.0.4", "host.dane.test", true, true},
	{"end.dane.test", "127.0.0.5", "end.end.dane.test", true, true},
	{"itsend.dane.test", "127.0.0.7", "end.itsend.dane.test", true, true},
	{"aliased.dane.test", "127.0.0.8", "end.aliased.dane.test", true, true},
	{"aliasedown.dane.test", "127.0.0.9", "aliasedown.dane.test", true, true},
	// Of a domain that is an alias and its own exchanger RFC 7672 section 3.2.2 has both names.
	{"itself.dane.test", "127.0.0.6", "itself.dane.test", true, false},
	// An insecure answer names the exchanger. Postfix only logs what it comes to then.
	{"hostu.u.dane.test", "127.0.0.10", "hostu.u.dane.test", false, true},
}

// daneWant is what is found for each domain.
var daneWant = []struct {
	domain  string
	finding string // of an error, its end
	secure  bool   // the path to the exchanger
}{
	{"good.dane.test", "usable TLSA records of mx.good.dane.test: 1 of 1", true},
	{"large.dane.test", "usable TLSA records of mx.large.dane.test: 41 of 41", true},
	{"self.dane.test", "usable TLSA records of self.dane.test: 1 of 1", true},
	{"good.nsec3.dane.test", "usable TLSA records of mx.good.nsec3.dane.test: 1 of 1", true},
	{"half.u.dane.test", "usable TLSA records of mx.good.dane.test: 1 of 1", false},
	{"unusable.dane.test", "no usable TLSA records of mx.unusable.dane.test: 0 of 2", true},
	// Denials.
	{"none.dane.test", "no secure TLSA records of mx.none.dane.test", true},
	{"nodata.dane.test", "no secure TLSA records of mx.nodata.dane.test", true},
	{"nsec3.dane.test", "no secure TLSA records of mx.nsec3.dane.test", true},
	// What is wrong, and what nobody has signed.
	{"bogus.dane.test", "of mx.bogus.dane.test: server failure", true},
	{"u.dane.test", "nothing is secure", false},
	{"tou.dane.test", "nothing is secure", true},
	// Aliases of the exchanger.
	{"tosecure.dane.test", "usable TLSA records of mx.good.dane.test: 1 of 1", true},
	{"toown.dane.test", "usable TLSA records of mx.toown.dane.test: 1 of 1", true},
	{"toinsecure.dane.test", "usable TLSA records of mx.toinsecure.dane.test: 1 of 1", true},
	{"bare.dane.test", "no secure TLSA records of mx.bare.dane.test", true},
	{"tobogus.dane.test", "of mx.bogus.dane.test: server failure", true},
	{"alias.u.dane.test", "nothing is secure", false},
	// Aliases of the records.
	{"records.dane.test", "usable TLSA records of mx.records.dane.test: 1 of 1", true},
	{"recordsout.dane.test", "no secure TLSA records of mx.recordsout.dane.test", true},
	// Wildcards.
	{"b.wild.dane.test", "usable TLSA records of mx.a.wild.dane.test: 1 of 1", true},
	{"wilder.dane.test", "no secure TLSA records of mx.a.wilder.dane.test", true},
	{"wild.nsec3.dane.test", "no secure TLSA records of mx.a.wild.nsec3.dane.test", true},
}

// daneWorld starts the name servers. They are asked at the address that it returns, and at more.
func daneWorld(t *testing.T, authority, leaf *tlstest.Party, more ...string) netip.AddrPort {
	t.Helper()
	other := strings.Repeat("ab", sha256.Size)
	fill := strings.NewReplacer("$OTHER", other,
		"$DIGEST", fmt.Sprintf("%x", sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo)),
		"$AUTHORITY", fmt.Sprintf("%x", sha256.Sum256(authority.Cert.Raw))).Replace
	zone := daneZone
	for i := range 40 { // more than 1,232 bytes: they come by TCP
		zone += fmt.Sprintf("_25._tcp.mx.large TLSA 3 1 1 %02x%s\n", i, other[2:])
	}
	nsec3, ds := peers.Sign(t, "nsec3.dane.test", fill(nsec3Zone), "-n")
	signed, anchor := peers.Sign(t, "dane.test", fill(zone)+ds+"\n")
	signed = peers.Spoil(t, signed, "_25._tcp.mx.bogus.dane.test", "TLSA")
	nsd := peers.NSDOf(t, map[string]string{"dane.test": signed, "u.dane.test": fill(insecureZone), "nsec3.dane.test": nsec3})
	unbound := peers.Validator(t, anchor, []string{"dane.test", "u.dane.test", "nsec3.dane.test"}, nsd, more...)
	return netip.MustParseAddrPort(unbound.Addr)
}

// daneFinding is what we find for a domain with one exchanger, and what we ask to find it.
func daneFinding(t *testing.T, server netip.AddrPort, domain string) (f dane.Finding, asked []string) {
	t.Helper()
	settings := must.Get(control.Read(must.Home(t, map[string]string{"me": "me.test\n", "protocols": "smtp:25:0:N:Y:mxf-remote-smtpc\n"})))(t)
	resolver := dns.NewClient(dns.Config{Servers: []netip.AddrPort{server}})
	finder := route.Finder{Protocols: settings.Protocols, Resolver: resolver, Secure: true}
	found := must.Get(finder.Find(t.Context(), route.Request{Host: domain}))(t)
	if len(found.Candidates) != 1 {
		t.Fatalf("%d candidates", len(found.Candidates))
	}
	c := &found.Candidates[0]
	result := dane.Find(t.Context(), resolver, dane.Request{Host: found.Host.String(), Ways: []dane.Way{
		{Exchanger: c.Host, Port: c.Port, Relay: c.Relay != "", NamedBy: c.NamedBy, Resolved: c.Resolved},
	}})
	for _, a := range slices.Concat(found.Answers, result.Answers) {
		t.Log(a)
	}
	for _, a := range result.Answers {
		asked = append(asked, a.Question.Name+" ("+a.Question.Type.String()+")")
	}
	return result.Findings[0], asked
}

func TestDANE_unbound(t *testing.T) {
	t.Parallel()
	authority := tlstest.NewAuthority("dane authority")
	server := daneWorld(t, authority, authority.Leaf(nil))
	for _, c := range daneWant {
		t.Run(c.domain, func(t *testing.T) {
			f, _ := daneFinding(t, server, c.domain)
			if got := f.String(); got != c.finding && (f.Err == nil || !strings.HasSuffix(strings.Replace(got, server.String()+": ", "", 1), c.finding)) || f.Secure != c.secure {
				t.Errorf("%s, path secure %v; want %s, %v", got, f.Secure, c.finding, c.secure)
			}
		})
	}
}

// postfixSays is what posttls-finger says at the level dane, of each of our findings.
func postfixSays(f dane.Finding) string {
	switch {
	case f.State == dane.Failed:
		return ": TLSA lookup error for "
	case f.State == dane.NoneUsable:
		return "all TLSA records unusable, "
	case f.State != dane.Usable:
		return "no TLSA records found, "
	case !f.Secure:
		return "MX RRset insecure: "
	}
	return ": Verified TLS connection established to "
}

// TestDANE_posttlsFinger: Postfix comes to the same as we, and asks the same questions.
func TestDANE_posttlsFinger(t *testing.T) {
	if !apart(t, nil) {
		return
	}
	authority := tlstest.NewAuthority("dane authority")
	leaf := authority.Leaf(nil, "mx.ta.dane.test")
	server := daneWorld(t, authority, leaf, "127.0.0.1@53")
	listening := make(map[string]bool)
	for _, c := range daneNames {
		if listening[c.addr] {
			continue
		}
		listening[c.addr] = true
		party := leaf
		if c.certificate != "mx.ta.dane.test" {
			party = authority.Leaf(nil, c.certificate)
		}
		pair := party.Pair(authority)
		smtp := lab.StartSMTP(must.Get(net.Listen("tcp", c.addr+":25"))(t), lab.SMTP{
			Name: "mx.test", TLS: lab.TLS{Certificate: &pair},
			Faults: lab.Faults{lab.QUIT: {Drop: true}}, // Postfix waits for the end of the connection
		}, new(lab.Inbox))
		t.Cleanup(func() { smtp.Close() })
	}
	router := newDANERouter(t, server, 25)
	for _, c := range daneWant {
		t.Run(c.domain, func(t *testing.T) {
			f, asked := daneFinding(t, server, c.domain)
			said := peers.PosttlsFinger(t, "dane", c.domain)
			for _, program := range danePrograms {
				router.delivers(t, program, c.domain, "b@"+c.domain, daneReport(f))
			}
			if want := postfixSays(f); !strings.Contains(said, want) {
				t.Errorf("%v; Postfix does not say %q:\n%s", f, want, said)
			}
			var theirs []string
			for _, m := range postfixQuestion.FindAllStringSubmatch(said, -1) {
				if !slices.Contains(theirs, m[1]) { // it asks again after a failure
					theirs = append(theirs, m[1])
				}
			}
			if !slices.Equal(asked, theirs) {
				t.Errorf("we ask %q, Postfix %q", asked, theirs)
			}
		})
	}
	t.Run("names", func(t *testing.T) { checkNames(t, server, router) })
}

// daneReport is what a delivery reports, of each of our findings.
func daneReport(f dane.Finding) string {
	const accepted = `^K127\.0\.0\.\d+ accepted message\.\nRemote host said: 250 .*\nTLS: TLSv1\.3 \S+ `
	base := regexp.QuoteMeta(f.Base)
	switch {
	case f.State == dane.Failed:
		return `^ZSorry, I couldn't look up the TLSA records of \S+ port 25: .*server failure\. \(#4\.7\.5\)\nNo address was tried\.$`
	case f.State == dane.NoneUsable:
		return accepted + `unverified \S+ dane-unusable$`
	case f.State != dane.Usable:
		return accepted + `unverified \S+$`
	case !f.Secure:
		return accepted + "verified " + base + " half-dane$"
	}
	return accepted + "verified " + base + " dane$"
}

// checkNames compares the names that may stand in certificates.
func checkNames(t *testing.T, server netip.AddrPort, router *daneRouter) {
	for _, c := range daneNames {
		f, _ := daneFinding(t, server, c.domain)
		if f.State != dane.Usable {
			t.Errorf("%s: %v", c.domain, f)
		}
		good := slices.Contains(append(strings.Fields(f.Names), f.Base), c.certificate)
		said := peers.PosttlsFinger(t, "dane", c.domain)
		word := map[bool]string{true: "Verified", false: "Trusted"}[f.Secure]
		postfix := strings.Contains(said, ": "+word+" TLS connection established to ")
		want := daneReport(f)
		if !good {
			want = `^ZConnected to \S+ but TLS could not be had: .* \(#4\.7\.5\)`
		}
		for _, program := range danePrograms {
			router.delivers(t, program, c.domain, "b@"+c.domain, want)
		}
		if good != c.good || postfix != c.postfix {
			t.Errorf("%s, certificate of %s: base %s, names %q: good %v, Postfix %v:\n%s", c.domain, c.certificate, f.Base, f.Names, good, postfix, said)
		}
	}
}

// postfixQuestion finds a question about TLSA records in what posttls-finger says.
var postfixQuestion = regexp.MustCompile(`dns_query: (\S+ \((?:TLSA|CNAME)\)): `)

// A daneRouter is a home with a name server that is trusted and no trust anchors.
type daneRouter struct {
	*lab.Home
	message string
}

func newDANERouter(t *testing.T, server netip.AddrPort, port int) *daneRouter {
	t.Helper()
	dir := t.TempDir()
	r := &daneRouter{must.Get(lab.NewHome(filepath.Join(dir, "home")))(t), filepath.Join(dir, "message")}
	must.OK(t, r.Set("trustresolvers", server.String()), r.Set("protocols", fmt.Sprintf("smtp:%d:0:N:Y:mxf-remote-smtpc", port)))
	put(t, r.message, []byte("Subject: hello\n\nHello.\n"))
	return r
}

// danePrograms are the TLS clients of a delivery: the router itself, and one that it starts.
var danePrograms = []string{"", "mxf-ucspitlsc"}

// delivers delivers a message to a host by a TLS client, and wants a report.
func (r *daneRouter) delivers(t *testing.T, program, host, recipient, want string) {
	t.Helper()
	if program == "" {
		must.OK(t, r.Remove("ucspitlsclient"))
	} else {
		must.OK(t, r.Set("ucspitlsclient", filepath.Join(programs(t), program)))
	}
	o := must.Get(lab.Rspawn(t.Context(), lab.Delivery{
		Program: filepath.Join(programs(t), "mxf-remote"), Environ: []string{"PATH=" + os.Getenv("PATH"), "MXF_HOME=" + r.Dir, "GOCOVERDIR=" + coverageIfAny(t)},
		Dir: filepath.Dir(r.message), Message: must.Open(t, r.message), Host: host, Sender: "a@client.example", Recipients: []string{recipient},
	}))(t)
	if got := string(o.Letter) + strings.TrimSuffix(o.Text, "\n"); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("%s by %q: %q, want %s", host, program, got, want)
	}
}

// A Postfix whose TLSA records a validating Unbound finds, by deliveries alone. Each host is an
// exchanger of it.
const postfixZone = `$ORIGIN dane.test.
$TTL 60
@                        SOA   ns hostmaster 1 3600 600 86400 60
@                        NS    ns
ns                       A     127.0.0.1
u                        NS    ns
leaf                     MX    10 mx.leaf
mx.leaf                  A     127.0.0.1
_$PORT._tcp.mx.leaf      TLSA  3 1 1 $DIGEST
issuer                   MX    10 peer.example.dane.test.
peer.example             A     127.0.0.1
_$PORT._tcp.peer.example TLSA  2 0 1 $AUTHORITY
rollover                 MX    10 mx.rollover
mx.rollover              A     127.0.0.1
_$PORT._tcp.mx.rollover  TLSA  3 1 1 $OTHER
_$PORT._tcp.mx.rollover  TLSA  3 1 1 $DIGEST
other                    MX    10 mx.other
mx.other                 A     127.0.0.1
_$PORT._tcp.mx.other     TLSA  3 1 1 $OTHER
bogus                    MX    10 mx.bogus
mx.bogus                 A     127.0.0.1
_$PORT._tcp.mx.bogus     TLSA  3 1 1 $DIGEST
tou                      MX    10 mx.u
`

const postfixInsecureZone = `$ORIGIN u.dane.test.
$TTL 60
@                        SOA   ns hostmaster 1 3600 600 86400 60
@                        NS    ns.dane.test.
@                        MX    10 mx
mx                       A     127.0.0.1
_$PORT._tcp.mx           TLSA  3 1 1 $OTHER
half                     MX    10 mx.leaf.dane.test.
`

func TestDANE_postfix(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority := newIssuer(t, dir, "dane")
	leaf := authority.Leaf(nil, "peer.example.dane.test")
	certificate, key := authority.keep(t, "leaf", leaf)
	postfix := peers.Postfix(t, peers.Options{Certificate: certificate, Key: key})
	port := int(netip.MustParseAddrPort(postfix.Addr).Port())
	fill := strings.NewReplacer("$PORT", strconv.Itoa(port), "$OTHER", strings.Repeat("ab", sha256.Size),
		"$DIGEST", fmt.Sprintf("%x", sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo)), "$AUTHORITY", fmt.Sprintf("%x", sha256.Sum256(authority.Cert.Raw))).Replace
	signed, anchor := peers.Sign(t, "dane.test", fill(postfixZone))
	signed = peers.Spoil(t, signed, fmt.Sprintf("_%d._tcp.mx.bogus.dane.test", port), "TLSA")
	nsd := peers.NSDOf(t, map[string]string{"dane.test": signed, "u.dane.test": fill(postfixInsecureZone)})
	unbound := peers.Validator(t, anchor, []string{"dane.test", "u.dane.test"}, nsd)
	router := newDANERouter(t, netip.MustParseAddrPort(unbound.Addr), port)
	const accepted = `^K127\.0\.0\.1 accepted message\.\nRemote host said: 250 .*\nTLS: TLSv1\.3 \S+ `
	stored := 0
	for _, program := range danePrograms {
		for _, c := range []struct{ host, want string }{
			{"leaf.dane.test", accepted + `verified mx\.leaf\.dane\.test dane$`},
			{"issuer.dane.test", accepted + `verified peer\.example\.dane\.test dane$`},
			{"rollover.dane.test", accepted + `verified mx\.rollover\.dane\.test dane$`},
			{"other.dane.test", `^ZConnected to 127\.0\.0\.1 but TLS could not be had: certificate matches none of the usable TLSA records of mx\.other\.dane\.test \(1\)\. \(#4\.7\.5\)\n1 address was tried\.$`},
			{"bogus.dane.test", `^ZSorry, I couldn't look up the TLSA records of mx\.bogus\.dane\.test port ` + strconv.Itoa(port) + `: .*server failure\. \(#4\.7\.5\)\nNo address was tried\.$`},
			{"u.dane.test", accepted + `unverified mx\.u\.dane\.test$`},
			{"tou.dane.test", accepted + `unverified mx\.u\.dane\.test$`},
			{"half.u.dane.test", accepted + `verified mx\.leaf\.dane\.test half-dane$`},
		} {
			router.delivers(t, program, c.host, "b@"+peers.Domain, c.want)
			if strings.HasPrefix(c.want, "^K") {
				stored++
			}
		}
	}
	if n := len(postfix.Stored(t, stored)); n != stored {
		t.Errorf("Postfix has stored %d messages, want %d", n, stored)
	}
}
