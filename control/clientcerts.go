package control

import (
	"fmt"
	"net/netip"
)

// A ClientCert is one line of control/clientcerts: the certificate that an exchanger is
// shown. Certificate and Key are both empty if it is shown none.
type ClientCert struct {
	Line        int    // from 1
	Certificate string // absolute path, PEM
	Key         string // absolute path, PEM; the same as Certificate if the line has no key

	home dir
}

// ClientCerts are the client certificates by exchanger and sender.
type ClientCerts struct{ exchangers keyed[keyed[ClientCert]] }

func (d dir) clientCerts(s *Settings) error {
	data, err := d.read("clientcerts")
	if err != nil {
		return err
	}
	s.ClientCerts, err = d.parseClientCerts(data)
	return err
}

func (d dir) parseClientCerts(data []byte) (certs ClientCerts, err error) {
	err = d.entries("clientcerts", data, func(line int, entry string) string {
		exchanger, sender, cert, problem := d.parseClientCert(entry)
		if problem != "" {
			return problem
		}
		cert.Line = line
		senders := certs.exchangers[exchanger]
		if !senders.add(sender, cert) {
			return "expected each exchanger and sender once, found these for the second time"
		}
		certs.exchangers.set(exchanger, senders)
		return ""
	})
	if err != nil {
		return ClientCerts{}, err
	}
	return certs, nil
}

// parseClientCert parses exchanger:sender:certificate or exchanger:sender:certificate:key.
// problem says what is wrong, and is "" if nothing is.
func (d dir) parseClientCert(entry string) (exchanger, sender string, cert ClientCert, problem string) {
	wrong := func(problem string) (string, string, ClientCert, string) { return "", "", ClientCert{}, problem }
	field := allFields(entry)
	if len(field) != 3 && len(field) != 4 {
		return wrong("expected exchanger:sender:certificate or exchanger:sender:certificate:key, found " + foundFields(field))
	}
	if exchanger, problem = parseExchanger(field[0]); problem != "" {
		return wrong(problem)
	}
	if sender, problem = parseSender(field[1]); problem != "" {
		return wrong(problem)
	}
	for _, path := range field[2:] {
		if problem = checkPath(path); problem != "" {
			return wrong(problem)
		}
	}
	key := field[len(field)-1]
	switch {
	case len(field) == 4 && field[2] == "":
		return wrong("expected a certificate before the key, found none; without both no certificate is shown")
	case len(field) == 4 && key == "":
		return wrong("expected a key after the third colon, found none; without this colon it is in the certificate's file")
	case field[2] == "":
		return exchanger, sender, ClientCert{}, ""
	}
	return exchanger, sender, ClientCert{Certificate: d.absolute(field[2]), Key: d.absolute(key), home: d.plain()}, ""
}

// For returns the line for an exchanger and an envelope sender, nil if none fits both. The
// exchanger decides first, then the sender among its lines; if no sender fits, the next
// exchanger that does. host, addr and sender are as for [Families.For] and [Sources.For].
func (c ClientCerts) For(host string, addr netip.Addr, sender string) *ClientCert {
	if len(c.exchangers) == 0 {
		return nil
	}
	senders := senderKeys(sender)
	for _, key := range exchangerKeys(host, addr) {
		if cert, fits := c.exchangers[key].first(senders); fits {
			return &cert
		}
	}
	return nil
}

// Place returns the file and the line, for errors and the trace.
func (c *ClientCert) Place() string { return fmt.Sprintf("control/clientcerts:%d", c.Line) }

// CheckKey refuses a key that others can read, or that cannot be read. It is for a line
// that is used, before the key is loaded. An error is an *Error at the line.
func (c *ClientCert) CheckKey() error {
	if c.Key == "" {
		return nil
	}
	f, err := c.home.openSecret("clientcerts", c.Line, c.Key)
	if err != nil {
		return err
	}
	return f.Close()
}
