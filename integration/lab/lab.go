package lab

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"nightmare.mail/mxf/tlsc/tlstest"
)

// A Lab is a name server, a home, two authorities of which the home can trust
// one, four ports, and an inbox; servers are added to it.
type Lab struct {
	DNS       *DNS
	Home      *Home
	Authority *tlstest.Party // the home's, once Home.Trust was told so
	Stranger  *tlstest.Party // nobody's
	Inbox     *Inbox

	ports   map[string]*Port // by service
	closers []func() error
}

// services are the protocols that a lab has a port for.
var services = [...]string{"smtp", "submissions", "qmtp", "qmtps"}

// Open sets a lab up whose home is dir (see NewHome): SMTP under a STARTTLS client, QMTP and
// QMTPS as in the default control/protocols, on the lab's ports, and an empty zone.
// TLS is off until Home.Trust.
func Open(dir string) (*Lab, error) {
	l := &Lab{Inbox: new(Inbox), ports: make(map[string]*Port)}
	if err := l.open(dir); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Lab) open(dir string) (err error) {
	if l.Home, err = NewHome(dir); err != nil {
		return err
	}
	for _, service := range services {
		p, err := ReservePort()
		if err != nil {
			return err
		}
		l.ports[service] = p
		l.closers = append(l.closers, p.Close)
	}
	l.Authority, l.Stranger = tlstest.NewAuthority("mxf lab authority"), tlstest.NewAuthority("mxf lab stranger")
	if l.DNS, err = StartDNS(nil); err != nil {
		return err
	}
	l.closers = append(l.closers, l.DNS.Close)
	return l.Home.Default("protocols", l.Protocols()...)
}

// Port returns the number of a service's port.
func (l *Lab) Port(service string) uint16 { return l.ports[service].Number }

// Protocols are the lines of control/protocols with the lab's ports.
func (l *Lab) Protocols() []string {
	return []string{
		fmt.Sprintf("qmtps:%d:-1:Y:N:mxf-remote-qmtpc", l.Port("qmtps")),
		fmt.Sprintf("qmtp:%d:1:N:N:mxf-remote-qmtpc", l.Port("qmtp")),
		fmt.Sprintf("smtp:%d:0:N:Y:mxf-remote-smtpc", l.Port("smtp")),
	}
}

// Zone makes text the zone of the name server.
func (l *Lab) Zone(text string) error {
	z, err := ParseZone(text)
	if err == nil {
		l.DNS.Use(z)
	}
	return err
}

// SMTP starts an SMTP server on addr.
func (l *Lab) SMTP(addr netip.Addr, config SMTP) (*SMTPServer, error) {
	listener, err := l.listen(addr, &config)
	if err != nil {
		return nil, err
	}
	s := StartSMTP(listener, config, l.Inbox)
	l.closers = append(l.closers, s.Close)
	return s, nil
}

func (l *Lab) listen(addr netip.Addr, config *SMTP) (net.Listener, error) {
	switch {
	case config.Port != 0:
		return net.Listen("tcp", netip.AddrPortFrom(addr, config.Port).String())
	case config.Submissions:
		return l.ports["submissions"].Listen(addr)
	}
	return l.ports["smtp"].Listen(addr)
}

// QMTP starts a QMTP server on addr, a QMTPS server when config has a certificate.
func (l *Lab) QMTP(addr netip.Addr, config QMTP) (*QMTPServer, error) {
	service := "qmtp"
	if config.TLS.Certificate != nil {
		service = "qmtps"
	}
	listener, err := l.ports[service].Listen(addr)
	if err != nil {
		return nil, err
	}
	s := StartQMTP(listener, config, l.Inbox)
	l.closers = append(l.closers, s.Close)
	return s, nil
}

// Dead makes addr a host that does not answer on a service's port.
func (l *Lab) Dead(service string, addr netip.Addr) error {
	hole, err := l.ports[service].BlackHole(addr)
	if err == nil {
		l.closers = append(l.closers, hole.Close)
	}
	return err
}

// Certificate issues one of the trusted authority for a name.
func (l *Lab) Certificate(name string) *tls.Certificate {
	pair := l.Authority.Leaf(nil, name).Pair(l.Authority)
	return &pair
}

// Environ is a qmail-rspawn's environment in this lab: PATH, where the home is,
// and whom to ask for names.
func (l *Lab) Environ() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"MXF_HOME=" + l.Home.Dir,
		"DNSCACHEIP=" + l.DNS.Addr(),
	}
}

// Close stops all servers. The home's folder stays.
func (l *Lab) Close() error {
	var errs []error
	for _, f := range slices.Backward(l.closers) {
		errs = append(errs, f())
	}
	l.closers = nil
	return errors.Join(errs...)
}
