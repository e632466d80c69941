package integration

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// The whole of it, with servers that others wrote: mxf-remote finds the exchanger
// in DNS, connects, verifies and delivers.

const peerZone = peers.Domain + " MX 10 " + peerName + "\n" + peerName + " A 127.0.0.1\n"

// routed is mxf-remote with a home in which protocol is the only one; it has the
// fields of control/protocols after the port.
func (b *bench) routed(t *testing.T, name string, s *peers.Server, service, protocol string, control map[string]string) way {
	t.Helper()
	dns := must.Get(lab.StartDNS(must.Get(lab.ParseZone(peerZone))(t)))(t)
	t.Cleanup(func() { dns.Close() })
	_, port, err := net.SplitHostPort(s.Addr)
	must.OK(t, err)

	home := b.newHome(t, "home of "+name)
	must.OK(t, home.Set("protocols", service+":"+port+":"+protocol))
	for file, line := range control {
		must.OK(t, home.Set(file, line))
	}
	w := way{name: name, program: "mxf-remote", routed: true, tls: control["tlsstrictness"] == "2"}
	w.environ = []string{"MXF_HOME=" + home.Dir, "DNSCACHEIP=" + dns.Addr()}
	return w
}

// verified are the control files for TLS or nothing.
func (b *bench) verified(more map[string]string) map[string]string {
	control := map[string]string{"trustanchors": b.ca, "tlsstrictness": "2"}
	for name, line := range more {
		control[name] = line
	}
	return control
}

const (
	overSTARTTLS = "0:N:Y:mxf-remote-smtpc"
	overTLS      = "0:Y:N:mxf-remote-qmtpc"
)

// Deliveries in one process and through the chain of programs arrive the same.
func TestPeersRemote(t *testing.T) {
	b := newBench(t)
	postfix := peers.Postfix(t, b.tls())
	chained := b.verified(map[string]string{"ucspitlsclient": filepath.Join(b.bin, "mxf-ucspitlsc")})
	for _, w := range []way{
		b.routed(t, "one-process", postfix, "smtp", overSTARTTLS, b.verified(nil)),
		b.routed(t, "chain", postfix, "smtp", overSTARTTLS, chained),
	} {
		for _, l := range letters() {
			t.Run(w.name+"/"+l.name, func(t *testing.T) { b.delivers(t, postfix, w, l, same(unixLines(l.data))) })
		}
	}
}

func TestPeersRemoteQMTPS(t *testing.T) {
	b := newBench(t)
	stunnel := peers.Stunnel(t, peers.Mailfront(t), b.tls())
	chained := b.verified(map[string]string{"tlsclient": filepath.Join(b.bin, "mxf-tlsc")})
	for _, w := range []way{
		b.routed(t, "one-process", stunnel, "qmtps", overTLS, b.verified(nil)),
		b.routed(t, "chain", stunnel, "qmtps", overTLS, chained),
	} {
		for _, l := range letters() {
			if l.recipients <= 1 {
				t.Run(w.name+"/"+l.name, func(t *testing.T) { b.delivers(t, stunnel, w, l, same(l.data)) })
			}
		}
	}
}

// "the wrong CA, the wrong name and the expired certificate each refuse at
// strictness 2 and deliver at 0"
func TestPeersRemoteStrictness(t *testing.T) {
	b := newBench(t)
	other, otherKey := b.issue(t, "other", "other.example")
	expired, expiredKey := b.keep(t, "expired", b.Leaf(tlstest.Expired, peerName))
	l := letters()[0]
	for _, c := range []struct{ name, certificate, key, anchors, reason string }{
		{"wrong CA", b.certificate, b.key, b.otherCA, "signed by"},
		{"wrong name", other, otherKey, b.ca, "other.example"},
		{"expired", expired, expiredKey, b.ca, "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			postfix := peers.Postfix(t, peers.Options{Certificate: c.certificate, Key: c.key})
			for _, client := range []string{"", filepath.Join(b.bin, "mxf-ucspitlsc")} {
				control := map[string]string{"trustanchors": c.anchors, "tlsstrictness": "2"}
				how := "one process"
				if client != "" {
					how, control["ucspitlsclient"] = "chain", client
				}
				strict := b.routed(t, c.name+", strict, "+how, postfix, "smtp", overSTARTTLS, control)
				e := b.run(t, strict, "", l.data, "", []string{"strict@" + peers.Domain})
				if len(e.reports) != 1 || !strings.HasPrefix(e.reports[0], "Z") || e.status != 0 || e.stderr != "" ||
					!strings.Contains(e.reports[0], "(#4.7.5)") || !strings.Contains(e.reports[0], c.reason) {
					t.Errorf("%s: exit %d, reports %q, standard error %q", how, e.status, e.reports, e.stderr)
				}
				control["tlsstrictness"] = "0"
				lax := b.routed(t, c.name+", lax, "+how, postfix, "smtp", overSTARTTLS, control)
				e = b.run(t, lax, "", l.data, "", []string{"lax@" + peers.Domain})
				if len(e.reports) != 2 || !strings.HasPrefix(e.reports[1], "K127.0.0.1 accepted message.") ||
					!strings.Contains(e.reports[1], "\nTLS: TLSv1.3 ") || !strings.HasSuffix(e.reports[1], " unverified "+peerName) {
					t.Errorf("%s, strictness 0: exit %d, reports %q, standard error %q", how, e.status, e.reports, e.stderr)
				}
			}
			for _, m := range postfix.Stored(t, 2) {
				if m.Recipients[0] != "lax@"+peers.Domain {
					t.Errorf("stored for %q", m.Recipients)
				}
			}
		})
	}
}

// A client certificate that control/clientcert names reaches the server that
// demands it.
func TestPeersRemoteClientCertificate(t *testing.T) {
	b := newBench(t)
	postfix := peers.Postfix(t, b.demanding())
	for name, more := range map[string]map[string]string{
		"one-process": {}, "chain": {"ucspitlsclient": filepath.Join(b.bin, "mxf-ucspitlsc")},
	} {
		control := b.verified(more)
		control["clientcert"], control["clientkey"] = b.clientCert, b.clientK
		w := b.routed(t, name, postfix, "smtp", overSTARTTLS, control)
		b.delivers(t, postfix, w, letters()[0], same(letters()[0].data))
	}
}
