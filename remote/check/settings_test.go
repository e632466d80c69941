package check_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/check"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
	"nightmare.mail/mxf/remote/sign"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// zone has this host, its name both ways, a relay and a name whose signature is broken.
const zone = `mx.example.org. A 192.0.2.1
mx.example.org. AAAA 2001:db8::1
1.2.0.192.in-addr.arpa. PTR mx.example.org.
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR MX.example.org.
shop.example. A 192.0.2.10
10.2.0.192.in-addr.arpa. PTR shop.example.
relay.example.net. A 192.0.2.25
smart.example.net. A 192.0.2.26
noaddress.example.net. TXT x
four.example.org. A 192.0.2.1
`

// A world is a set-up in order, which a case breaks.
type world struct {
	*testing.T
	home     string
	programs string
	proc     string
	zone     string
	trouble  map[string]string
	options  check.SettingsOptions
	ca       *tlstest.Party
	server   *dnstest.Server
}

const unlimited = `Limit                     Soft Limit           Hard Limit           Units     
Max data size             unlimited            unlimited            bytes     
Max processes             63000                63000                processes 
Max open files            1024                 4096                 files     
Max address space         unlimited            unlimited            bytes     
`

func newWorld(t *testing.T) *world {
	w := &world{T: t, home: must.Home(t, nil), programs: t.TempDir(), proc: t.TempDir(), zone: zone, trouble: map[string]string{"bogus.test": "servfail"}}
	w.ca = tlstest.NewAuthority("ISRG Root X1")
	w.control("me", "mx.example.org\n")
	w.control("trustanchors", tlstest.Bundle(t, w.ca)+"\n")
	for _, name := range []string{"mxf-remote", "mxf-remote-smtpc", "mxf-remote-qmtpc", "mxf-tlsc", "mxf-ucspitlsc", "mxf-policy", "qmail-remote-io"} {
		w.program(name)
	}
	must.Script(t, filepath.Join(w.programs, "mxf-remote-safe"), "exec mxf-remote")
	must.OK(t, os.Mkdir(filepath.Join(w.home, "bin"), 0o755), os.Link(filepath.Join(w.programs, "mxf-remote"), filepath.Join(w.home, "bin", "qmail-remote")))
	must.Write(t, filepath.Join(w.home, "queue/lock/tcpto"), strings.Repeat("\x00", 1024))
	must.Write(t, filepath.Join(w.home, "queue/lock/tcpto6"), "")
	w.process("comm", "qmail-rspawn\n")
	w.process("environ", "PATH=/bin\x00")
	w.process("limits", unlimited)
	w.options = check.SettingsOptions{
		Home: w.home, Programs: w.programs, Version: "1.0", BogusName: "bogus.test", Proc: w.proc,
		RunVersion: func(_ context.Context, path string) (string, error) {
			return filepath.Base(path) + " 1.0 go1.26\n", nil
		},
		Interfaces: func() ([]netip.Addr, error) {
			return addrs("127.0.0.1", "::1", "192.0.2.1", "192.0.2.10", "2001:db8::1"), nil
		},
		LocalAddr: func(to netip.Addr) (netip.Addr, error) {
			if to.Is4() {
				return netip.MustParseAddr("192.0.2.1"), nil
			}
			return netip.MustParseAddr("2001:db8::1"), nil
		},
	}
	return w
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// look asks for the findings.
func (w *world) look(ctx context.Context) []check.Finding {
	w.Helper()
	if w.options.Servers.Servers == nil {
		w.server = dnstest.New(w, w.zone, w.trouble)
		w.options.Servers.Servers = []netip.AddrPort{w.server.Addr}
	}
	return check.Settings(ctx, w.options)
}

func (w *world) control(name, text string) { must.Write(w, w.file(name), text) }

func (w *world) file(name string) string { return filepath.Join(w.home, "control", name) }

// secret writes a control file that others cannot read.
func (w *world) secret(name, text string) {
	w.control(name, text)
	must.OK(w, os.Chmod(w.file(name), 0o640))
}

func (w *world) process(name, text string) { must.Write(w, filepath.Join(w.proc, "42", name), text) }

// limit sets one limit of qmail-rspawn.
func (w *world) limit(name, soft string) {
	line := fmt.Sprintf("%-26s%-21s", name, soft)
	i := strings.Index(unlimited, name)
	w.process("limits", unlimited[:i]+line+unlimited[i+len(line):])
}

// spawner has mxf-rspawn in the place of qmail-rspawn, and no qmail-remote.
func (w *world) spawner() {
	w.program("mxf-rspawn")
	w.remove("bin/qmail-remote")
	must.OK(w, os.Link(filepath.Join(w.programs, "mxf-rspawn"), filepath.Join(w.home, "bin", "qmail-rspawn")))
}

// program writes what looks like one of our programs.
func (w *world) program(name string) {
	must.OK(w, os.WriteFile(filepath.Join(w.programs, name), []byte("\x7fELF\x00nightmare.mail/mxf/cmd/"+name), 0o755))
}

// trust makes these the trust anchors.
func (w *world) trust(all ...*tlstest.Party) {
	w.control("trustanchors", tlstest.Bundle(w, all...)+"\n")
}

// clientCertificate has the control files name a certificate and a key.
func (w *world) clientCertificate(cert, key *tlstest.Party) {
	w.control("clientcert", tlstest.File(w, "cert.pem", cert.PEM())+"\n")
	w.control("clientkey", tlstest.File(w, "key.pem", key.KeyPEM())+"\n")
}

// rspawn has a trusted name server.
func (w *world) dnssec() {
	w.server = dnstest.New(w, w.zone, w.trouble)
	w.options.Servers.Servers = []netip.AddrPort{w.server.Addr}
	w.control("trustresolvers", w.server.Addr.String()+"\n")
}

// key writes a DKIM key and returns the record that publishes it.
func (w *world) key(name string, key any) (txt string) {
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must.Get(x509.MarshalPKCS8PrivateKey(key))(w)})
	w.secret(name, string(text))
	return must.Get(sign.ParseKey(text))(w).Record()
}

func (w *world) rsa(name string, bits int) (txt string) {
	return w.key(name, must.Get(rsa.GenerateKey(rand.Reader, bits))(w))
}

func (w *world) ed25519(name string) (txt string) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must.OK(w, err)
	return w.key(name, key)
}

// publish adds a TXT record, in strings of 200 bytes.
func (w *world) publish(name, txt string) {
	w.zone += name + ". TXT"
	for part := range slices.Chunk([]byte(txt), 200) {
		w.zone += fmt.Sprintf(" %q", part)
	}
	w.zone += "\n"
}

// remove removes a file below home.
func (w *world) remove(name string) { must.OK(w, os.Remove(filepath.Join(w.home, name))) }

// dead has an address in the table that timed out just now.
func (w *world) dead(addr string) {
	record := make([]byte, 1024)
	copy(record, netip.MustParseAddr(addr).AsSlice())
	record[4] = 2
	binary.LittleEndian.PutUint32(record[8:], uint32(time.Now().Unix()))
	must.OK(w, os.WriteFile(filepath.Join(w.home, "queue/lock/tcpto"), record, 0o644))
}

// cache makes a folder of policies with one file.
func (w *world) cache(domain, text string) {
	folder := filepath.Join(w.home, "sts")
	must.OK(w, os.Mkdir(folder, 0o755))
	w.control("mtasts", "sts\n")
	if domain != "" {
		must.Write(w, filepath.Join(folder, domain), text)
	}
}

func (w *world) socket() string {
	path := filepath.Join(w.home, "socket")
	conn := must.Get(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}))(w)
	w.Cleanup(func() { conn.Close() })
	w.control("tlsrptsocket", "socket\n")
	return path
}

// A want is a finding that must be there: level, place, words of What and words of Do.
type want struct {
	level    check.Level
	place    string // control/file:line, without :0
	what, do string
}

const (
	warning = check.Warning
	failure = check.Error
	note    = check.Note
)

func place(f check.Finding) string {
	if f.Line > 0 {
		return fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return f.File
}

func (x want) fits(f check.Finding) bool {
	return f.Level == x.level && place(f) == x.place && strings.Contains(f.What, x.what) && strings.Contains(f.Do, x.do)
}

func shown(all []check.Finding) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "%-8s%-30s %s -- %s\n", f.Level, place(f), f.What, f.Do)
	}
	return b.String()
}

// broken has broken set-ups, and what is found there: every warning and every error, and notes
// that are asked for.
var broken = []struct {
	name  string
	spoil func(*world)
	want  []want
}{
	// Control files.
	{"malformed number", func(w *world) { w.control("timeoutdns", "soon\n") }, []want{{failure, "control/timeoutdns:1", `found "soon"`, "mxf-control(5)"}}},
	{"every line", func(w *world) { w.control("smtproutes", "a:b:c\n:relay.example.net\nx\n") }, []want{
		{failure, "control/smtproutes:1", "expected a port", "mxf-control(5)"}, {failure, "control/smtproutes:3", "domain:relay", "mxf-control(5)"}}},
	{"every file", func(w *world) {
		w.control("timeoutremote", "x\n")
		w.control("ipme", "y\n")
		w.control("tlsstrictness", "9\n")
	}, []want{
		{failure, "control/timeoutremote:1", "expected", "correct it"}, {failure, "control/ipme:1", "expected", "correct it"}, {failure, "control/tlsstrictness:1", "0, 1 or 2", "correct it"}}},
	{"no name", func(w *world) { w.control("me", "\n") }, []want{{failure, "control/helohost", "both are missing or empty", "control/me"}}},
	{"a folder in the place of a file", func(w *world) { must.OK(w, os.Mkdir(w.file("ipme"), 0o755)) }, []want{{failure, "control/ipme", "found a directory", "mxf-control(5)"}}},
	{"a pipe in the place of a file", func(w *world) { must.OK(w, syscall.Mkfifo(w.file("trace"), 0o644)) }, []want{{failure, "control/trace", "regular file", "mxf-control(5)"}}},
	{"a link to nothing", func(w *world) { must.OK(w, os.Symlink("nothing", w.file("tlspolicy"))) }, []want{{failure, "control/tlspolicy", "link to nothing", "remove the link"}}},
	{"a key without its certificate", func(w *world) { w.control("clientkey", "key\n") }, []want{{failure, "control/clientcert", "both or neither", "name what is missing"}}},
	{"no control folder", func(w *world) { w.options.Home = filepath.Join(w.home, "bin") }, []want{{failure, "control", "expected a folder", "MXF_HOME"}}},
	{"credentials that all can read", func(w *world) {
		w.control("credentials", "relay.example.net::joe:password:x\n")
		w.control("smtproutes", ":relay.example.net\n")
	}, []want{{failure, "control/credentials", "others cannot read", "chmod 640 on control/credentials"}}},
	{"a password file that all can read", func(w *world) {
		w.control("smtproutes", ":relay.example.net\n")
		w.control("joe", "x\n")
		w.secret("credentials", "relay.example.net::joe:passwordfile:control/joe\n")
	}, []want{{failure, "control/credentials:1", "others cannot read", "chmod 640 on that file"}}},
	{"a password file that is missing", func(w *world) {
		w.control("smtproutes", ":relay.example.net\n")
		w.secret("credentials", "relay.example.net::joe:passwordfile:control/joe\n")
	}, []want{{failure, "control/credentials:1", "no such file", "make that file"}}},

	// Files that nobody reads.
	{"a name one letter off", func(w *world) { w.control("tlsstrictnes", "2\n") }, []want{{warning, "control/tlsstrictnes", "meant to be control/tlsstrictness", "rename it"}}},
	{"a name with two letters exchanged", func(w *world) { w.control("trustanchosr", "x\n") }, []want{{warning, "control/trustanchosr", "meant to be control/trustanchors", "rename it"}}},
	{"a name in capitals", func(w *world) { w.control("ClientCert", "x\n") }, []want{{warning, "control/ClientCert", "meant to be control/clientcert", "rename it"}}},
	{"a table of no protocol", func(w *world) { w.control("smtpsroutes", ":relay.example.net\n") }, []want{{warning, "control/smtpsroutes", `no protocol is named "smtps", so nobody reads this table; is it meant`, "add a protocol"}}},
	{"outgoingip", func(w *world) { w.control("outgoingip", "192.0.2.1\n") }, []want{{warning, "control/outgoingip", "control/sources does the same", "control/sources"}}},
	{"other patches", func(w *world) {
		for _, name := range []string{"outgoingips", "bindroutes", "domainips", "domaincerts", "domainbindings", "tlsdestinations", "notlshosts", "authsenders", "tlsclientciphers",
			"tlsclientmethod", "servercert.pem", "helohosts", "remote_auth", "smtproutes.cdb", "mailfromip", "dkimkeys", "filterargs", "remoteauth", "remotesecrets"} {
			w.control(name, "x\n")
		}
		must.OK(w, os.Mkdir(w.file("tlshosts"), 0o755), os.Mkdir(w.file("domainkeys"), 0o755))
	}, []want{
		{warning, "control/outgoingips", "control/sources", ""}, {warning, "control/bindroutes", "control/sources", ""}, {warning, "control/domainips", "control/sources", ""},
		{warning, "control/domaincerts", "control/clientcerts", ""}, {warning, "control/domainbindings", "control/sources", ""}, {warning, "control/tlsdestinations", "control/tlspolicy", ""},
		{warning, "control/notlshosts", "control/tlspolicy", ""}, {warning, "control/authsenders", "control/senderroutes", "control/credentials"}, {warning, "control/tlsclientciphers", "no file does the same", "remove"},
		{warning, "control/tlsclientmethod", "no file does the same", "remove"}, {warning, "control/servercert.pem", "control/clientcert ", "clientkey"}, {warning, "control/helohosts", "control/sources", "third field"},
		{warning, "control/remote_auth", "control/credentials", ""}, {warning, "control/smtproutes.cdb", "control/smtproutes", ""}, {warning, "control/mailfromip", "control/sources", ""},
		{warning, "control/dkimkeys", "control/signingkeys", ""}, {warning, "control/filterargs", "control/signingkeys", ""}, {warning, "control/remoteauth", "control/credentials", ""},
		{warning, "control/remotesecrets", "control/credentials", ""}, {warning, "control/tlshosts/", "control/tlspolicy", ""}, {warning, "control/domainkeys/", "control/signingkeys", ""},
	}},

	// Routes.
	{"a domain twice", func(w *world) {
		w.control("smtproutes", "A.example:relay.example.net\nb.example:\na.example.:relay.example.net:26\n")
	},
		[]want{{warning, "control/smtproutes:1", "line 3 has the same domain", "remove one"}}},
	{"smtpavoid twice", func(w *world) { w.control("smtpavoid", "mx.example:SIZE\nMX.example:EHLO\n") }, []want{{warning, "control/smtpavoid:2", "line 1 is for the same", "remove one"}}},
	{"a relay without an address", func(w *world) { w.control("smtproutes", ":noaddress.example.net\n") }, []want{{failure, "control/smtproutes:1", "has no address", "correct the name"}}},
	{"a relay that does not exist", func(w *world) { w.control("senderroutes", "@shop.example:nowhere.example.net\n") },
		[]want{{failure, "control/senderroutes:1", `"nowhere.example.net" has no address`, "correct the name"}}},
	{"a relay that cannot be looked up", func(w *world) {
		w.control("smtproutes", ":broken.example.net\n")
		w.trouble["broken.example.net"] = "servfail"
	}, []want{{warning, "control/smtproutes:1", "cannot be looked up for now", "dig"}}},
	{"a relay that is ours", func(w *world) { w.control("smtproutes", ":mx.example.org\n") }, []want{{warning, "control/smtproutes:1", "is this host (192.0.2.1)", "another relay"}}},
	{"a relay with our address", func(w *world) { w.control("qmtproutes", "example.com:[2001:db8::1]\n") }, []want{{warning, "control/qmtproutes:1", "is this host", "another relay"}}},
	{"a semicolon", func(w *world) { w.control("smtproutes", ":relay.example.net;587\n") }, []want{{failure, "control/smtproutes:1", "and more behind it", "colons"}}},
	{"a login in a route", func(w *world) { w.control("smtproutes", ":relay.example.net:587 joe secret\n") }, []want{{failure, "control/smtproutes:1", "logins belong in", "section 10"}}},
	{"a login behind a bar", func(w *world) { w.control("senderroutes", "@a.example:relay.example.net|joe|secret\n") }, []want{{failure, "control/senderroutes:1", "logins belong in", "section 10"}}},
	{"submissions without implicit TLS", func(w *world) {
		w.control("protocols", "submissions:465:-1:N:Y:mxf-remote-smtpc\nsmtp:25:0:N:Y:mxf-remote-smtpc\n")
		w.control("smtproutes", ":relay.example.net:465\n")
	}, []want{{warning, "control/protocols:1", "port 465 is spoken without implicit TLS", "Y:N"}}},
	{"port 465 in another table", func(w *world) {
		w.control("protocols", "lan:2525:-1:N:N:mxf-remote-smtpc\nsmtp:25:0:N:Y:mxf-remote-smtpc\n")
		w.control("lanroutes", "example.com:relay.example.net:465\n")
	}, []want{{warning, "control/lanroutes:1", "port 465", "submissionsroutes"}}},
	{"implicit TLS at port 25", func(w *world) { w.control("protocols", "smtp:25:0:Y:N:mxf-remote-smtpc\n") }, []want{{warning, "control/protocols:1", "STARTTLS", "N:Y"}}},
	{"port 587 with implicit TLS", func(w *world) { w.control("submissionsroutes", ":relay.example.net:587\n") }, []want{{warning, "control/submissionsroutes:1", "STARTTLS", "smtproutes"}}},
	{"submission without TLS", func(w *world) {
		w.control("submissionsroutes", ":relay.example.net\n")
		w.remove("control/trustanchors")
	}, []want{
		{failure, "control/submissionsroutes:1", "expected TLS for the relay", "control/trustanchors"}, {warning, "control/trustanchors", "TLS is off", "bundle"}}},
	{"a domain in the place of a sender", func(w *world) { w.control("senderroutes", "shop.example:relay.example.net\n") }, []want{{warning, "control/senderroutes:1", "no @", "@domain"}}},
	{"a pattern in a sender", func(w *world) { w.control("senderroutes", "*@shop.example:relay.example.net\n") }, []want{{warning, "control/senderroutes:1", "* is a character", "@domain"}}},
	{"a quoted sender", func(w *world) { w.control("senderroutes", "\"joe\"@shop.example:relay.example.net\n") }, []want{{warning, "control/senderroutes:1", "without quotes", "without quotes"}}},
	{"a route for all behind one for all senders", func(w *world) {
		w.control("senderroutes", ":relay.example.net\n")
		w.control("smtproutes", ":smart.example.net\n")
	}, []want{{warning, "control/smtproutes:1", "control/senderroutes:1", "remove one"}}},
	{"senderroutes without smtp", func(w *world) {
		w.control("protocols", "qmtp:209:0:N:N:mxf-remote-qmtpc\n")
		w.control("senderroutes", ":relay.example.net\n")
	}, []want{{failure, "control/senderroutes:1", "there is no smtp", "mxf-control(5)"}}},

	// Logins.
	{"a login at no relay", func(w *world) {
		w.control("smtproutes", ":relay.example.net:587\n")
		w.secret("credentials", "smart.example.net::joe:password:x\n")
	}, []want{{warning, "control/credentials:1", `no route of SMTP names the relay "smart.example.net"`, "spell"}}},
	{"a login without TLS", func(w *world) {
		w.control("smtproutes", ":relay.example.net:587\n")
		w.secret("credentials", "relay.example.net::joe:password:x\n")
		w.remove("control/trustanchors")
	}, []want{{failure, "control/credentials:1", "expected TLS for this login", "clear"}, {warning, "control/trustanchors", "TLS is off", "bundle"}}},
	{"a login that tlspolicy forbids", func(w *world) {
		w.control("smtproutes", ":relay.example.net:587\n")
		w.secret("credentials", "relay.example.net::joe:password:x\n")
		w.control("tlspolicy", "@relay.example.net:none\n")
	}, []want{{failure, "control/credentials:1", "control/tlspolicy:1 forbids it", "remove none"}}},
	{"a login of a domain in the place of a sender", func(w *world) {
		w.control("smtproutes", ":relay.example.net:587\n")
		w.secret("credentials", "relay.example.net:shop.example:joe:password:x\n")
	}, []want{{warning, "control/credentials:1", "no @", "@domain"}}},

	// The name.
	{"no dot", func(w *world) { w.control("helohost", "mx\n"); w.zone += "mx. A 192.0.2.1\n" }, []want{
		{warning, "control/helohost:1", "no dot", "full name"}, {warning, "control/helohost:1", "reverse name of 192.0.2.1", "the same"}, {warning, "control/helohost:1", "reverse name of 2001:db8::1", "the same"}}},
	{"no address", func(w *world) { w.control("me", "noaddress.example.net\n") }, []want{
		{warning, "control/me:1", "has no address", "an A record with 192.0.2.1"}, {warning, "control/me:1", "reverse name of 192.0.2.1", ""},
		{warning, "control/me:1", "has no address", "an AAAA record with 2001:db8::1"}, {warning, "control/me:1", "reverse name of 2001:db8::1", ""}}},
	{"no address of one family", func(w *world) {
		w.control("me", "four.example.org\n")
		w.zone = strings.ReplaceAll(w.zone, "PTR mx.example.org", "PTR four.example.org")
		w.zone = strings.ReplaceAll(w.zone, "PTR MX.example.org", "PTR four.example.org")
	}, []want{{warning, "control/me:1", "no AAAA record", "2001:db8::1"}}},
	{"an address that we do not send from", func(w *world) { w.zone = strings.Replace(w.zone, "A 192.0.2.1\n", "A 192.0.2.7\n", 1) }, []want{{warning, "control/me:1", "none of the addresses", "A record with 192.0.2.1"}}},
	{"no reverse name", func(w *world) { w.zone = strings.Replace(w.zone, "1.2.0.192.in", "9.2.0.192.in", 1) }, []want{{warning, "control/me:1", "has no reverse name", "mx.example.org as its reverse name"}}},
	{"another reverse name", func(w *world) { w.zone = strings.Replace(w.zone, "PTR mx.example.org", "PTR pool-1.isp.example", 1) },
		[]want{{warning, "control/me:1", "is pool-1.isp.example. and not", "the same"}}},
	{"a source with another name", func(w *world) {
		w.control("sources", ":ipv4\n:[2001:db8::1]\n@shop.example:192.0.2.10:mail.shop.example\n")
	}, []want{
		{warning, "control/sources:3", "has no address", "192.0.2.10"}, {warning, "control/sources:3", "reverse name of 192.0.2.10", ""}}},
	{"behind a router", func(w *world) {
		w.control("families", ":ipv4\n")
		w.options.LocalAddr = func(netip.Addr) (netip.Addr, error) { return netip.MustParseAddr("192.168.1.2"), nil }
	}, []want{{note, "control/me:1", "others do not see", ""}}},

	// TLS.
	{"TLS off", func(w *world) { w.remove("control/trustanchors") }, []want{{warning, "control/trustanchors", "TLS is off", "bundle"}}},
	{"no trust anchors there", func(w *world) { w.control("trustanchors", "/nowhere.pem\n") }, []want{{failure, "control/trustanchors:1", "no such file", "bundle"}}},
	{"trust anchors of ours alone", func(w *world) { w.trust(tlstest.NewAuthority("ours")) }, []want{{warning, "control/trustanchors:1", "none of the trust anchors", "bundle"}}},
	{"trust anchors out of date", func(w *world) { w.trust(tlstest.NewAuthority("ISRG Root X1", tlstest.Expired)) }, []want{{failure, "control/trustanchors:1", "all of them out of date", "bundle"}}},
	{"some trust anchors out of date", func(w *world) { w.trust(w.ca, tlstest.NewAuthority("old", tlstest.Expired)) }, []want{{note, "control/trustanchors:1", "2 trust anchors, 1 of them out of date", ""}}},
	{"a key that does not fit", func(w *world) { w.clientCertificate(w.ca.Leaf(nil, "a"), w.ca.Leaf(nil, "b")) }, []want{{failure, "control/clientcert:1", "does not fit", "its key"}}},
	{"no certificate there", func(w *world) { w.control("clientcert", "a\n"); w.control("clientkey", "b\n") }, []want{{failure, "control/clientcert:1", "no such file", "its key"}}},
	{"a certificate that ends soon", func(w *world) {
		p := w.ca.Leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10*24*time.Hour + time.Hour) }, "a")
		w.clientCertificate(p, p)
	}, []want{{warning, "control/clientcert:1", "10 more days", "new certificate"}}},
	{"a certificate out of date", func(w *world) { p := w.ca.Leaf(tlstest.Expired, "a"); w.clientCertificate(p, p) }, []want{{warning, "control/clientcert:1", "out of date since", "new certificate"}}},
	{"a certificate of tomorrow", func(w *world) { p := w.ca.Leaf(tlstest.Early, "a"); w.clientCertificate(p, p) }, []want{{warning, "control/clientcert:1", "not valid before", "clock"}}},
	{"a certificate for servers", func(w *world) {
		p := w.ca.Leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "a")
		w.clientCertificate(p, p)
	}, []want{{warning, "control/clientcert:1", "not for clients", "clientAuth"}}},
	{"a client key that all can read", func(w *world) {
		p := w.ca.Leaf(nil, "a")
		w.clientCertificate(p, p)
		path := strings.TrimSpace(string(must.Get(os.ReadFile(w.file("clientkey")))(w)))
		must.OK(w, os.Chmod(path, 0o644))
	}, []want{{warning, "control/clientkey:1", "0644", "chmod 640"}}},
	{"clientcerts with a key that all can read", func(w *world) {
		p := w.ca.Leaf(nil, "a")
		w.control("pair.pem", string(p.PEM())+string(p.KeyPEM()))
		w.control("clientcerts", "relay.example.net::control/pair.pem\n")
	}, []want{{failure, "control/clientcerts:1", "others cannot read", "chmod 640"}}},
	{"clientcerts with a certificate that ends soon", func(w *world) {
		p := w.ca.Leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(25 * time.Hour) }, "a")
		w.secret("pair.pem", string(p.PEM())+string(p.KeyPEM()))
		w.control("clientcerts", "::control/pair.pem\n")
	}, []want{{warning, "control/clientcerts:1", "1 more day only", "new certificate"}}},
	{"clientcerts without a certificate", func(w *world) {
		w.secret("pair.pem", "nothing\n")
		w.control("clientcerts", "::control/pair.pem\n")
	}, []want{{failure, "control/clientcerts:1", "no certificate in", "its key"}}},
	{"strictness 2 and no TLS", func(w *world) { w.control("tlsstrictness", "2\n"); w.remove("control/trustanchors") }, []want{
		{warning, "control/trustanchors", "TLS is off", ""}, {failure, "control/tlsstrictness:1", "there is none", "trustanchors"}}},
	{"strictness 2 and a protocol without TLS", func(w *world) {
		w.control("tlsstrictness", "2\n")
		w.control("protocols", "qmtp:209:1:N:N:mxf-remote-qmtpc\nsmtp:25:0:N:Y:mxf-remote-smtpc\n")
	}, []want{{warning, "control/protocols:1", "qmtp can never be used", "remove the line"}}},
	{"implicit TLS while TLS is off", func(w *world) {
		w.remove("control/trustanchors")
		w.control("protocols", "qmtps:6209:-1:Y:N:mxf-remote-qmtpc\nsmtp:25:0:N:Y:mxf-remote-smtpc\n")
	}, []want{{warning, "control/trustanchors", "TLS is off", ""}, {warning, "control/protocols:1", "qmtps can never be used", "remove"}}},
	{"a client that is missing", func(w *world) { w.control("ucspitlsclient", "s6-ucspitlsc\n") }, []want{{failure, "control/ucspitlsclient:1", "cannot run", "program that"}}},
	{"a client with arguments", func(w *world) { w.control("tlsclient", "mxf-tlsc -k secret\n") }, []want{{failure, "control/tlsclient:1", "and more behind it", "without arguments"}}},
	{"a client that is a script without #!", func(w *world) {
		must.OK(w, os.WriteFile(filepath.Join(w.programs, "client"), []byte("exec s6-tlsc \"$@\"\n"), 0o755))
		w.control("tlsclient", "client\n")
	}, []want{{failure, "control/tlsclient:1", "text without a first line #!", "#!/bin/sh"}}},
	{"DANE with another client", func(w *world) {
		w.dnssec()
		must.Script(w, filepath.Join(w.programs, "client"), "exit 1")
		w.control("ucspitlsclient", "client\n")
	}, []want{{failure, "control/ucspitlsclient:1", "TLSA records", "mxf-control(5)"}}},

	// Programs.
	{"a program that is missing", func(w *world) { must.OK(w, os.Remove(filepath.Join(w.programs, "mxf-remote-smtpc"))) },
		[]want{{failure, "control/protocols", "the program of smtp cannot be run", "install it"}}},
	{"a program of a line that is missing", func(w *world) { w.control("protocols", "smtp:25:0:N:Y:/nowhere/smtpc\n") },
		[]want{{failure, "control/protocols:1", "the program of smtp cannot be run", "install it"}}},
	{"a program that may not be run", func(w *world) { must.OK(w, os.Chmod(filepath.Join(w.programs, "mxf-tlsc"), 0o644)) }, []want{{failure, "", "mxf-tlsc cannot be run", "chmod 755"}}},
	{"a program of another version", func(w *world) {
		run := w.options.RunVersion
		w.options.RunVersion = func(ctx context.Context, path string) (string, error) {
			if filepath.Base(path) == "mxf-ucspitlsc" {
				return "mxf-ucspitlsc 0.9 go1.25\n", nil
			}
			return run(ctx, path)
		}
	}, []want{{warning, "", `mxf-ucspitlsc has version "0.9"`, "one version together"}}},
	{"a program that crashes", func(w *world) {
		w.options.RunVersion = func(context.Context, string) (string, error) { return "", errors.New("signal: killed") }
		for _, name := range []string{"mxf-remote-smtpc", "mxf-remote-qmtpc", "mxf-tlsc", "mxf-ucspitlsc", "mxf-policy", "qmail-remote-io"} {
			must.Script(w, filepath.Join(w.programs, name), "exit 0")
		}
	}, []want{{failure, "", "mxf-remote --version does not work", "section 3"}}},
	{"no router", func(w *world) {
		must.OK(w, os.Remove(filepath.Join(w.programs, "mxf-remote")), os.Remove(filepath.Join(w.home, "bin/qmail-remote")))
		must.Script(w, filepath.Join(w.home, "bin/qmail-remote"), "exec mxf-remote")
	}, []want{{failure, "", "mxf-remote is not installed", "section 3"}}},

	// Name servers.
	{"no name server answers", func(w *world) { w.options.Servers.Servers = []netip.AddrPort{dnstest.Closed(w)} }, []want{
		{warning, "", "does not answer: connection refused", "start it"}, {failure, "", "no name server answers", "start a name server"}}},
	{"one of two does not answer", func(w *world) {
		w.options.Servers.Servers = []netip.AddrPort{dnstest.Closed(w), dnstest.New(w, w.zone, nil).Addr}
	}, []want{{warning, "", "does not answer: connection refused", "start it"}}},
	{"no TCP", func(w *world) { w.trouble["SOA "] = "notcp" }, []want{{warning, "", "does not answer by TCP", "firewall"}}},
	{"no EDNS0", func(w *world) { w.trouble["SOA "] = "formerr" }, []want{{warning, "", "does not answer with EDNS0", "firewall"}}},
	{"no UDP", func(w *world) { w.trouble["SOA "] = "noudp"; w.options.Patience = 2 * time.Second }, []want{{warning, "", "does not answer by UDP", "firewall"}}},
	{"servers not known", func(w *world) {
		w.options.Servers.Servers = []netip.AddrPort{}
		w.options.ServersErr = &dns.ConfigError{Source: "$DNSCACHEIP", What: "x is not an IP address"}
	}, []want{{failure, "", "the name servers are not known: $DNSCACHEIP", "correct it"}}},
	{"servers guessed", func(w *world) { w.options.Servers.Guess = "there is no /etc/resolv.conf" }, []want{{warning, "", "no name server is named", "/etc/resolv.conf"}}},
	{"a trusted server that does not validate", func(w *world) { w.trouble["SOA "] = "insecure"; w.dnssec() }, []want{{failure, "control/trustresolvers", "does not set AD", "section 12"}}},
	{"a trusted server that passes everything on", func(w *world) {
		delete(w.trouble, "bogus.test")
		w.zone += "bogus.test. A 192.0.2.66\n"
		w.dnssec()
	}, []want{{failure, "control/trustresolvers", "addresses of bogus.test", "section 12"}}},
	{"a trusted server of which it is not sure", func(w *world) { delete(w.trouble, "bogus.test"); w.dnssec() }, []want{{note, "control/trustresolvers", "is not sure", ""}}},

	// Addresses.
	{"ipme without an interface", func(w *world) { w.control("ipme", "192.0.2.1\n2001:db8::1\n") }, []want{{warning, "control/ipme", "192.0.2.10", "add a line"}}},
	{"ipme that is empty", func(w *world) { w.control("ipme", "") }, []want{{note, "control/ipme", "no address is ours", ""}}},
	{"a source that is not ours", func(w *world) {
		w.control("sources", "@shop.example:192.0.2.99:shop.example\n")
		w.zone += "shop.example. A 192.0.2.99\n99.2.0.192.in-addr.arpa. PTR shop.example.\n"
	}, []want{{failure, "control/sources:1", "no address of this host", "ip address"}}},
	{"IPv6 without a route", func(w *world) {
		local := w.options.LocalAddr
		w.options.LocalAddr = func(to netip.Addr) (netip.Addr, error) {
			if to.Is6() {
				return netip.Addr{}, syscall.ENETUNREACH
			}
			return local(to)
		}
	}, []want{{warning, "", "no route for IPv6", "control/families"}}},
	{"interfaces that cannot be listed", func(w *world) {
		w.options.Interfaces = func() ([]netip.Addr, error) { return nil, syscall.EACCES }
	}, []want{{failure, "control/ipme", "cannot be listed", "one a line"}}},

	// Dead hosts.
	{"no table", func(w *world) { w.remove("queue/lock/tcpto") }, []want{{warning, "queue/lock/tcpto", "no such table", "truncate -s 1024"}}},
	{"no table for IPv6", func(w *world) { w.remove("queue/lock/tcpto6") }, []want{{note, "queue/lock/tcpto6", "no such table", ""}}},
	{"a table that was cut", func(w *world) { must.OK(w, os.Truncate(filepath.Join(w.home, "queue/lock/tcpto"), 100)) }, []want{{warning, "queue/lock/tcpto", "has 100 bytes", "truncate"}}},
	{"a folder in the place of a table", func(w *world) {
		w.remove("queue/lock/tcpto6")
		must.OK(w, os.Mkdir(filepath.Join(w.home, "queue/lock/tcpto6"), 0o755))
	},
		[]want{{warning, "queue/lock/tcpto6", "cannot be read and written", "chown"}}},
	{"a host that is skipped", func(w *world) { w.dead("192.0.2.77") }, []want{{note, "queue/lock/tcpto", "192.0.2.77 is skipped", ""}}},

	// Policies.
	{"no folder of policies", func(w *world) { w.control("mtasts", "nowhere\n") }, []want{{failure, "control/mtasts:1", "no such file", "section 13"}}},
	{"a folder that all can write", func(w *world) { w.cache("", ""); must.OK(w, os.Chmod(filepath.Join(w.home, "sts"), 0o777)) }, []want{{failure, "control/mtasts:1", "0777", "section 13"}}},
	{"MTA-STS without trust anchors", func(w *world) { w.cache("", ""); w.remove("control/trustanchors") }, []want{
		{failure, "control/mtasts:1", "expected trust anchors", "name what is missing"}, {warning, "control/trustanchors", "TLS is off", ""}}},
	{"a policy that cannot be fetched", func(w *world) {
		w.cache("example.net", fmt.Sprintf("mxf-sts 1\ndomain example.net\nfailed %d sts-webpki-invalid expired\n\n", time.Now().Unix()))
	}, []want{{warning, "control/mtasts:1", "sts-webpki-invalid", "mxf-policy fetch example.net"}}},
	{"no mxf-policy", func(w *world) { w.cache("", ""); must.OK(w, os.Remove(filepath.Join(w.programs, "mxf-policy"))) }, []want{{failure, "", "mxf-policy is not installed", "section 3"}}},
	{"no socket", func(w *world) { w.control("tlsrptsocket", "nowhere\n") }, []want{{warning, "control/tlsrptsocket:1", "there is no socket", "section 14"}}},
	{"no socket but a file", func(w *world) { w.control("tlsrptsocket", "control/me\n") }, []want{{warning, "control/tlsrptsocket:1", "is no socket", "section 14"}}},
	{"nobody at the socket", func(w *world) {
		path := filepath.Join(w.home, "socket")
		fd := must.Get(syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0))(w)
		must.OK(w, syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Close(fd))
		w.control("tlsrptsocket", "socket\n")
	}, []want{{warning, "control/tlsrptsocket:1", "connection refused", "section 14"}}},
	{"a policy for a relay without its @", func(w *world) {
		w.control("smtproutes", "example.com:relay.example.net\n")
		w.control("tlspolicy", "relay.example.net:verify\n")
	}, []want{{warning, "control/tlspolicy:1", "without an @", "write @"}}},
	{"a policy for an exchanger that is never met", func(w *world) {
		w.control("smtproutes", ":relay.example.net\n")
		w.control("tlspolicy", "@.example.com:must\n@relay.example.net:must\n@.example.net:must\n")
	}, []want{{warning, "control/tlspolicy:1", "all mail goes to relays", "name the relay"}}},
	{"dane without trustresolvers", func(w *world) { w.control("tlspolicy", "a.example:dane\nb.example:dane\n") }, []want{
		{failure, "control/tlspolicy:1", "expected control/trustresolvers for dane", "mxf-control(5)"}, {failure, "control/tlspolicy:2", "expected control/trustresolvers for dane", "mxf-control(5)"}}},

	// DKIM.
	{"a key without a record", func(w *world) { w.rsa("key.pem", 2048); w.control("signingkeys", "shop.example:s1:control/key.pem\n") },
		[]want{{warning, "control/signingkeys:1", "no TXT record s1._domainkey.shop.example", `publish s1._domainkey.shop.example. IN TXT ( "v=DKIM1; k=rsa; p=`}}},
	{"a record of another key", func(w *world) {
		w.publish("s1._domainkey.shop.example", w.ed25519("other.pem"))
		w.ed25519("key.pem")
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	}, []want{{warning, "control/signingkeys:1", "has another key", "k=ed25519; p="}}},
	{"a key that is revoked", func(w *world) {
		w.ed25519("key.pem")
		w.publish("s1._domainkey.shop.example", "v=DKIM1; p=")
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	}, []want{{warning, "control/signingkeys:1", "revoked", "publish"}}},
	{"two records", func(w *world) {
		w.publish("s1._domainkey.shop.example", w.ed25519("other.pem"))
		w.publish("s1._domainkey.shop.example", w.ed25519("key.pem"))
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	}, []want{{warning, "control/signingkeys:1", "2 TXT records", "leave one"}}},
	{"a record for sha1", func(w *world) {
		w.publish("s1._domainkey.shop.example", w.ed25519("key.pem")+"; h=sha1")
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	}, []want{{warning, "control/signingkeys:1", "does not allow sha256", "publish"}}},
	{"a short key", func(w *world) {
		w.publish("s1._domainkey.shop.example", w.rsa("key.pem", 1024))
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	}, []want{{warning, "control/signingkeys:1", "1024 bits", "2048"}}},
	{"a key that all can read", func(w *world) {
		w.rsa("key.pem", 2048)
		must.OK(w, os.Chmod(w.file("key.pem"), 0o644))
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	}, []want{{failure, "control/signingkeys:1", "others cannot read", "chmod 640"}}},
	{"a key that is none", func(w *world) {
		w.secret("key.pem", "x\n")
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	},
		[]want{{failure, "control/signingkeys:1", "mail of shop.example waits", "openssl genpkey"}}},
	{"a key that is missing", func(w *world) { w.control("signingkeys", "shop.example:s1:control/key.pem\n") }, []want{{failure, "control/signingkeys:1", "no such file", "make that file"}}},

	// qmail.
	{"another qmail-remote", func(w *world) {
		w.remove("bin/qmail-remote")
		must.OK(w, os.WriteFile(filepath.Join(w.home, "bin/qmail-remote"), []byte("\x7fELF\x00"), 0o755))
	}, []want{{warning, "", "bin/qmail-remote is not ours", "section 7"}}},
	{"a copy of control files", func(w *world) {
		must.OK(w, os.RemoveAll(filepath.Join(w.home, "bin")), os.RemoveAll(filepath.Join(w.home, "queue")))
	}, []want{{note, "", "neither bin nor queue", ""}}},
	{"no qmail-remote", func(w *world) { w.remove("bin/qmail-remote") }, []want{{failure, "", "there is no bin/qmail-remote", "section 7"}}},
	{"an older copy", func(w *world) {
		w.remove("bin/qmail-remote")
		must.OK(w, os.WriteFile(filepath.Join(w.home, "bin/qmail-remote"), []byte("\x7fELF\x00 old nightmare.mail/mxf/cmd/mxf-remote"), 0o755))
	}, []want{{warning, "", "of another version", "copy the program once more"}}},
	{"QMAILREMOTE leads elsewhere", func(w *world) { w.process("environ", "QMAILREMOTE=/nowhere/qmail-remote\x00") }, []want{{failure, "", "there is no $QMAILREMOTE", "section 7"}}},
	{"too little address space", func(w *world) { w.limit("Max address space", "80000000") }, []want{{failure, "", "limit of qmail-rspawn on address space is 80000000 bytes", "softlimit -a"}}},
	{"too little data", func(w *world) { w.limit("Max data size", "80000000") }, []want{{failure, "", "data size is 80000000", "softlimit -d"}}},
	{"too few processes", func(w *world) { w.limit("Max processes", "300"); w.control("concurrencyremote", "120\n") }, []want{{failure, "", "can need 1920", "1920"}}},
	{"too few open files", func(w *world) { w.limit("Max open files", "100") }, []want{{warning, "", "open files is 100", "LimitNOFILE"}}},
	{"a limit before the safe script", func(w *world) {
		w.limit("Max address space", "80000000")
		w.remove("bin/qmail-remote")
		must.Script(w, filepath.Join(w.home, "bin/qmail-remote"), "exec mxf-remote")
	}, []want{{warning, "", "mail waits where it is reached", "softlimit"}}},
	{"concurrencyremote malformed", func(w *world) { w.control("concurrencyremote", "many\n") }, []want{{failure, "control/concurrencyremote:1", "expected a whole number", "correct it"}}},
	{"another qmail-remote that is a script", func(w *world) {
		w.remove("bin/qmail-remote")
		must.Script(w, filepath.Join(w.home, "bin/qmail-remote"), "exec sendmail")
	}, []want{{warning, "", "bin/qmail-remote is not ours", "section 7"}}},
	{"another qmail-rspawn of ours", func(w *world) {
		w.remove("bin/qmail-remote")
		must.OK(w, os.WriteFile(filepath.Join(w.home, "bin/qmail-rspawn"), []byte("\x7fELF\x00 nightmare.mail/mxf/cmd/mxf-rspawn"), 0o755))
	}, []want{{warning, "", "bin/qmail-rspawn is ours, of another version", "section 9"}}},
	{"files of mxf-rspawn without it", func(w *world) { w.control("connectionlimits", ":5\n"); w.control("statusfile", "/nowhere/status\n") }, []want{
		{note, "control/connectionlimits", "only mxf-rspawn reads this file", ""}, {note, "control/statusfile", "only mxf-rspawn", ""}}},
	{"mistakes in files of mxf-rspawn", func(w *world) {
		w.spawner()
		w.control("delnumbytes", "3\n")
		w.control("spawnlimit", "0\n")
		w.control("connectionlimits", ":5\nmx\n:6\n")
		w.control("connectionidle", "301\n")
		w.control("connectionwait", "x\n")
		w.control("tlsresumption", "2\n")
		w.control("statusfile", "status\n")
	}, []want{
		{failure, "control/delnumbytes:1", "expected 1 or 2", "describes delnumbytes"}, {failure, "control/spawnlimit:1", "from 1 to 255", "correct it"},
		{failure, "control/connectionlimits:2", "expected exchanger:connections", "correct it"}, {warning, "control/connectionlimits:3", "line 1 is for the same", "remove one"},
		{failure, "control/connectionidle:1", "from 0 to 300", "correct it"}, {failure, "control/connectionwait:1", "from 0 to 3600", "correct it"},
		{failure, "control/tlsresumption:1", "0 or 1", "correct it"}, {failure, "control/statusfile:1", "an absolute path", "correct it"},
	}},
	{"a spawnlimit for two bytes", func(w *world) { w.spawner(); w.control("spawnlimit", "500\n") },
		[]want{{failure, "control/spawnlimit:1", "control/delnumbytes 2 allows more", "correct it"}}},
	{"concurrencyremote above one byte", func(w *world) { w.spawner(); w.control("concurrencyremote", "300\n") },
		[]want{{warning, "control/concurrencyremote:1", "it is 300, and mxf-rspawn announces 255", "2 in control/delnumbytes"}}},
	{"concurrencyremote above spawnlimit", func(w *world) {
		w.spawner()
		w.control("delnumbytes", "2\n")
		w.control("spawnlimit", "100\n")
		w.control("concurrencyremote", "101\n")
	}, []want{{warning, "control/concurrencyremote:1", "it is 101, and mxf-rspawn announces 100", "conf-spawn"}, {note, "control/delnumbytes:1", "big-concurrency patch", ""}}},
	{"connections that are never reached", func(w *world) {
		w.spawner()
		w.control("connectionlimits", ":11\n.example.net:21\n[192.0.2.1]:20\n")
		w.control("connectionwait", "401\n")
	}, []want{{note, "control/connectionlimits:1", "half of the 20 deliveries, 10, and 11", ""}, {note, "control/connectionlimits:2", "20 deliveries at a time: 21", ""},
		{note, "control/connectionwait:1", "after 400 seconds", ""}}},
	{"a connection limit for an exchanger that is never met", func(w *world) {
		w.spawner()
		w.control("smtproutes", ":relay.example.net\n")
		w.control("connectionlimits", ":5\nMX.example.com:2\nRelay.example.net:3\n")
	}, []want{{warning, "control/connectionlimits:2", "none of them", "name the relay"}}},
	{"no folder for the status file", func(w *world) { w.spawner(); w.control("statusfile", "/nowhere/mxf/status\n") },
		[]want{{warning, "control/statusfile:1", "no file can be made", "install -d"}}},
	{"the status file among the control files", func(w *world) { w.spawner(); w.control("statusfile", w.file("status")+"\n") },
		[]want{{warning, "control/statusfile:1", "among the control files", "another folder"}}},
	{"QMAILREMOTE beside mxf-rspawn", func(w *world) { w.spawner(); w.process("environ", "QMAILREMOTE=/bin/mxf-remote\x00") },
		[]want{{warning, "", "deliveries share nothing", "take $QMAILREMOTE out"}}},
	{"few processes for mxf-rspawn", func(w *world) {
		w.spawner()
		w.limit("Max processes", "400")
		w.control("concurrencyremote", "120\n")
	}, nil},
	{"too few processes for mxf-rspawn", func(w *world) {
		w.spawner()
		w.limit("Max processes", "300")
		w.control("concurrencyremote", "120\n")
	}, []want{{warning, "", "can need 336", "336"}}},
	{"few open files for mxf-rspawn, which raises the limit", func(w *world) { w.spawner(); w.limit("Max open files", "100") }, nil},
	{"too few open files for mxf-rspawn", func(w *world) {
		w.spawner()
		w.process("limits", strings.Replace(unlimited, "4096", "143 ", 1))
	}, []want{{warning, "", "hard limit of qmail-rspawn on open files is 143", "ulimit -Hn"}}},
	{"limits that cannot be seen", func(w *world) { must.OK(w, os.Remove(filepath.Join(w.proc, "42/limits"))) }, []want{{note, "", "cannot be seen", ""}}},
	{"an address as the name", func(w *world) { w.control("me", "[192.0.2.1]\n") }, []want{{note, "control/me:1", "address literal", ""},
		{warning, "control/me:1", "reverse name of 192.0.2.1", ""}, {warning, "control/me:1", "reverse name of 2001:db8::1", ""}}},
	{"a name that is none", func(w *world) { w.control("me", "mx_1.example.1\n"); w.control("families", ":ipv4\n") }, []want{
		{warning, "control/me:1", "is no host name", "full name"}, {warning, "control/me:1", "reverse name of 192.0.2.1", ""}}},
	{"names that cannot be looked up", func(w *world) {
		w.trouble["mx.example.org"], w.trouble["1.2.0.192.in-addr.arpa"] = "servfail", "servfail"
		w.control("families", ":ipv4\n")
	}, []want{{note, "control/me:1", "cannot be looked up for now", ""}, {note, "control/me:1", "reverse name of 192.0.2.1 cannot be looked up", ""}}},
	{"a key record that cannot be looked up", func(w *world) {
		w.ed25519("key.pem")
		w.trouble["s1._domainkey.shop.example"] = "servfail"
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	}, []want{{note, "control/signingkeys:1", "cannot be looked up for now", ""}}},
	{"a domain that is testing", func(w *world) {
		w.publish("s1._domainkey.shop.example", w.ed25519("key.pem")+"; t=s:y")
		w.control("signingkeys", "shop.example:s1:control/key.pem\n")
	}, []want{{note, "control/signingkeys:1", "only testing", ""}}},
	{"submissions on another port without implicit TLS", func(w *world) {
		w.control("protocols", "submissions:2525:-1:N:Y:mxf-remote-smtpc\nsmtp:25:0:N:Y:mxf-remote-smtpc\n")
	}, []want{{warning, "control/protocols:1", "has no implicit TLS", "Y:N"}}},
	{"a program that is a script without #!", func(w *world) {
		must.OK(w, os.WriteFile(filepath.Join(w.programs, "bare"), []byte("exec true\n"), 0o755))
		w.control("protocols", "smtp:25:0:N:Y:bare\n")
	}, []want{{failure, "control/protocols:1", "text without a first line #!", "#!/bin/sh"}}},
	{"a program of somebody else's", func(w *world) {
		w.options.RunVersion = func(context.Context, string) (string, error) { return "usage: remote\n", nil }
		for _, name := range []string{"mxf-remote-smtpc", "mxf-remote-qmtpc", "mxf-tlsc", "mxf-ucspitlsc", "mxf-policy", "qmail-remote-io"} {
			must.OK(w, os.Remove(filepath.Join(w.programs, name)))
			must.Script(w, filepath.Join(w.programs, name), "exit 0")
		}
	}, []want{{warning, "", "mxf-remote is another program", "section 3"}, {note, "", "mxf-tlsc is a script in the place of ours; it was not run", ""}}},
	{"text in the place of a program", func(w *world) { must.OK(w, os.WriteFile(filepath.Join(w.programs, "mxf-policy"), []byte("x"), 0o755)) },
		[]want{{failure, "", "mxf-policy is neither a program", "section 3"}}},
	{"a policy that is kept although it cannot be fetched", func(w *world) {
		text := "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 864000\n"
		w.cache("example.com", fmt.Sprintf("mxf-sts 1\ndomain example.com\nid 1\nfetched %d\nbytes %d\nfailed %[1]d sts-policy-fetch-error no route\n\n%[3]s",
			time.Now().Unix()-60, len(text), text))
	}, []want{{warning, "control/mtasts:1", "is good until", "mxf-policy fetch example.com"}}},
	{"a client certificate for an exchanger that is never met", func(w *world) {
		w.control("smtproutes", ":[192.0.2.25]\n")
		w.control("clientcerts", "relay.example.net::\n[192.0.2.25]::\n")
		w.control("families", "elsewhere.example:ipv4\n:ipv4\n")
	}, []want{{warning, "control/clientcerts:1", "none of them", "name the relay"}, {warning, "control/families:1", "none of them", "name the relay"}}},
	{"qmail does not run", func(w *world) { w.process("comm", "sh\n") }, []want{{note, "", "qmail-send does not run", ""}}},
}

// TestSettings holds the table: each finding that is wanted is there once, and there is no other
// warning and no other error. Each of these says what to do.
func TestSettings(t *testing.T) {
	if len(broken) < 60 {
		t.Errorf("there are %d set-ups only", len(broken))
	}
	for _, test := range broken {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			test.spoil(w)
			before := tree(t, w.home)
			all := w.look(t.Context())
			left := slices.Clone(all)
			for _, x := range test.want {
				i := slices.IndexFunc(left, x.fits)
				if i < 0 {
					t.Errorf("not found: %v\n%s", x, shown(all))
					continue
				}
				left = slices.Delete(left, i, i+1)
			}
			for _, f := range left {
				if f.Level >= warning {
					t.Errorf("found as well:\n%s", shown([]check.Finding{f}))
				}
			}
			proper(t, all)
			if after := tree(t, w.home); after != before {
				t.Errorf("something was written:\n%s\n%s", before, after)
			}
		})
	}
}

// proper holds every finding to its form.
func proper(t *testing.T, all []check.Finding) {
	t.Helper()
	for _, f := range all {
		switch {
		case f.What == "", strings.ContainsAny(f.What+f.Do, "\n\x00"), strings.HasSuffix(f.What, "."):
			t.Errorf("not one sentence: %+v", f)
		case (f.Do != "") != (f.Level >= warning):
			t.Errorf("what to do belongs to warnings and errors: %+v", f)
		}
	}
}

// tree is what a folder has: names, modes, sizes, times.
func tree(t *testing.T, folder string) string {
	t.Helper()
	var b strings.Builder
	must.OK(t, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime())
		return nil
	}))
	return b.String()
}

// full is a set-up with everything that there is, in order.
func full(w *world) {
	w.control("helohost", "mx.example.org\n")
	w.control("protocols", "submissions:465:-1:Y:N:mxf-remote-smtpc\nsmtp:25:0:N:Y:mxf-remote-smtpc\n")
	w.control("smtproutes", ".example.com:relay.example.net\nlocal.example:127.0.0.1:2525\nelsewhere.example:\n")
	w.control("senderroutes", "@work.example:smart.example.net:465\n<>:\n")
	w.control("submissionsroutes", "only.example:smart.example.net\n")
	w.control("joe", "swordfish\n")
	must.OK(w, os.Chmod(w.file("joe"), 0o600))
	w.secret("credentials", "smart.example.net:@work.example:joetheuser:password:hunter2\nrelay.example.net::joetheuser:passwordfile,unverified:control/joe\n"+
		"127.0.0.1::joetheuser:password,clear:open sesame\n")
	w.control("sources", "@shop.example:192.0.2.10:shop.example\n:ipv4\n:ipv6\n")
	w.control("families", "old.example:ipv4\n")
	pair := w.ca.Leaf(nil, "mx.example.org")
	w.secret("pair.pem", string(pair.PEM())+string(pair.KeyPEM()))
	w.control("clientcerts", "smart.example.net::control/pair.pem\nother.example::\n")
	w.clientCertificate(pair, pair)
	w.publish("s1._domainkey.shop.example", w.rsa("rsa.pem", 2048))
	w.publish("e1._domainkey.shop.example", w.ed25519("ed.pem"))
	w.control("signingkeys", "shop.example:s1:control/rsa.pem\nshop.example:e1:control/ed.pem\n")
	w.control("tlspolicy", "bank.example:dane\n@relay.example.net:must\n:auto:may\n")
	w.control("tlsstrictness", "1\n")
	w.control("ipme", "192.0.2.1\n192.0.2.10\n2001:db8::1\n")
	w.control("smtpavoid", "old.example:PIPELINING\n")
	w.control("timeoutdns", "30\n")
	w.control("clearafter", "3600\n")
	w.control("concurrencyremote", "60\n")
	w.control("rcpthosts", "example.org\n")
	w.control("smtproutes.bak", ":x y\n")
	text := "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n"
	w.cache("example.com", fmt.Sprintf("mxf-sts 1\ndomain example.com\nid 1\nfetched %d\nbytes %d\n\n%s", time.Now().Unix()-60, len(text), text))
	w.socket()
	w.dnssec()
	w.spawner()
	w.control("delnumbytes", "1\n")
	w.control("spawnlimit", "120\n")
	w.control("connectionlimits", ".example.com:5:50:50\n:10\n")
	w.control("connectionidle", "10\n")
	w.control("connectionwait", "60\n")
	w.control("tlsresumption", "0\n")
	w.control("statusfile", w.programs+"/status\n")
	w.control("queuelifetime", "86400\n")
}

// TestSettingsInOrder: what is in order has no warning.
func TestSettingsInOrder(t *testing.T) {
	for name, set := range map[string]func(*world){"bare": func(*world) {}, "full": full} {
		for _, verbose := range []bool{false, true} {
			w := newWorld(t)
			set(w)
			w.options.Verbose = verbose
			all := w.look(t.Context())
			proper(t, all)
			n := 0
			for _, f := range all {
				if f.Level >= warning {
					t.Errorf("%s: found\n%s", name, shown([]check.Finding{f}))
				}
				if f.Level == check.OK {
					n++
				}
			}
			if n < 6 {
				t.Errorf("%s: %d things are in order:\n%s", name, n, shown(all))
			}
			if set := slices.ContainsFunc(all, func(f check.Finding) bool {
				return f.File == "control/timeoutconnect" && strings.Contains(f.What, "60, the default")
			}); set != verbose {
				t.Errorf("%s: the default is shown: %v", name, set)
			}
		}
	}
}

// TestSettingsKeepSecrets: no finding has a user, a password or a key, whatever is wrong.
func TestSettingsKeepSecrets(t *testing.T) {
	for _, spoil := range []func(*world){
		func(*world) {},
		func(w *world) { must.OK(w, os.Chmod(w.file("credentials"), 0o644), os.Chmod(w.file("joe"), 0o644)) },
		func(w *world) {
			w.control("smtproutes", ":relay.example.net joetheuser hunter2\n:x|joetheuser|hunter2\n:x;joetheuser;hunter2\n")
		},
		func(w *world) {
			w.secret("credentials", "joetheuser:hunter2\nsmart.example.net::joetheuser:hunter2:password\nhunter2 x::joetheuser:password:y\n")
		},
		func(w *world) { w.remove("control/trustanchors") },
		func(w *world) { w.control("tlsclient", "mxf-tlsc hunter2 joetheuser\n") },
		func(w *world) { w.secret("joe", "hunter2\x00\n") },
	} {
		w := newWorld(t)
		full(w)
		spoil(w)
		w.options.Verbose = true
		text := shown(w.look(t.Context()))
		for _, secret := range []string{"hunter2", "swordfish", "sesame", "joetheuser", "BEGIN", "PRIVATE KEY"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in\n%s", secret, text)
			}
		}
	}
}

// TestSettingsCutShort: what is not looked at is not found to be wrong.
func TestSettingsCutShort(t *testing.T) {
	w := newWorld(t)
	full(w)
	ctx, cancel := context.WithCancel(t.Context())
	w.options.Waiting = func(string) { cancel() }
	all := w.look(ctx)
	last := len(all) - 1
	for i, f := range all {
		if (f.Level >= warning) != (i == last) {
			t.Errorf("found %+v", f)
		}
	}
	if !(want{warning, "", "interrupted", "again"}).fits(all[last]) || !slices.ContainsFunc(all, want{check.OK, "control/helohost", "mx.example.org", ""}.fits) {
		t.Errorf("what was known by then:\n%s", shown(all))
	}
}

// TestSettingsOfThisMachine has no option but the home: it takes the machine as it is.
func TestSettingsOfThisMachine(t *testing.T) {
	w := newWorld(t)
	w.server = dnstest.New(t, w.zone, nil)
	all := check.Settings(t.Context(), check.SettingsOptions{Home: w.home, Programs: w.programs, Servers: dns.Config{Servers: []netip.AddrPort{w.server.Addr}}})
	proper(t, all)
	if !slices.ContainsFunc(all, func(f check.Finding) bool {
		return strings.HasPrefix(f.What, "addresses of this host, by its interfaces")
	}) {
		t.Errorf("the interfaces are not found:\n%s", shown(all))
	}
	if all := check.Settings(t.Context(), check.SettingsOptions{Home: filepath.Join(w.home, "nowhere")}); len(all) != 1 || all[0].Level != failure || all[0].Do == "" {
		t.Errorf("a home that is missing:\n%s", shown(all))
	}
}

// TestSettingsUnreadable: a file that the user cannot read is an error. Root can read them all.
func TestSettingsUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root can read every file")
	}
	w := newWorld(t)
	w.control("smtproutes", ":relay.example.net\n")
	must.OK(t, os.Chmod(w.file("smtproutes"), 0))
	all := w.look(t.Context())
	if x := (want{failure, "control/smtproutes", "permission denied", "let the user that delivers read it"}); !slices.ContainsFunc(all, x.fits) {
		t.Errorf("not found:\n%s", shown(all))
	}
}

// TestSettingsBounds: a table of another program does not make a million findings.
func TestSettingsBounds(t *testing.T) {
	w := newWorld(t)
	var routes strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&routes, "a%d.example:relay.example.net:%d\na%d.example:relay.example.net\n", i, 1000+i, i)
	}
	w.control("smtproutes", routes.String())
	w.control("qmtproutes", strings.Repeat("malformed\n", 3000))
	all := w.look(t.Context())
	count := map[string]int{}
	for _, f := range all {
		count[f.File+" "+f.Level.String()]++
	}
	if count["control/smtproutes warning"] != 51 || count["control/qmtproutes error"] != 51 {
		t.Errorf("got %v", count)
	}
	if n := len(w.server.Questions()); n > 20 {
		t.Errorf("%d questions", n)
	}
}

// TestSettingsContradict: no file and no line is called in order that has a warning or an error.
func TestSettingsContradict(t *testing.T) {
	w := newWorld(t)
	w.control("trustanchors", "/nowhere.pem\n")
	w.control("smtproutes", "a.example:relay.example.net\na.example:relay.example.net\nb.example:relay.example.net\n")
	w.control("ipme", "")
	w.options.Verbose = true
	all := w.look(t.Context())
	for _, f := range all {
		for _, x := range all {
			if f.Level == check.OK && f.File != "" && x.File == f.File && x.Level >= warning && (f.Line == 0 || f.Line == x.Line) {
				t.Errorf("%+v, and %+v", f, x)
			}
		}
	}
	for _, x := range []want{{check.OK, "control/smtproutes:3", "b.example", ""}, {note, "control/smtproutes", "3 lines", ""}, {check.OK, "control/ipme", "empty", ""}} {
		if !slices.ContainsFunc(all, x.fits) {
			t.Errorf("not found: %v\n%s", x, shown(all))
		}
	}
}
