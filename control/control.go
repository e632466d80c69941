// Package control reads the control files of a qmail home.
//
// Absent, default and malformed are three different answers. A file that does
// not exist takes its default. So does an empty file that has one value. A file
// that exists and cannot be read, or has no meaning, is an *Error that names the
// file, the line and what was expected. Nothing is ever guessed.
//
// A file with one value is its first line. A list has an entry in each line,
// except in empty lines and those that begin with '#'. Trailing spaces, tabs and
// carriage returns are not part of a line: an editor that writes CR LF does not
// change what a file means.
//
//	mxf-control(5)            every file, its format and its default
//	qmail-control(5)          me, helohost, smtproutes, timeoutconnect, timeoutremote
//	RFC 2782                  the service names of protocols
//	RFC 6409, RFC 8314        the services that are for relays only, and port 465
//	RFC 6376 3.1              selectors
//	MXPS                      slices (cr.yp.to/proto/mxps.txt)
package control

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"nightmare.mail/mxf/control/domain"
)

// The defaults of the time limits; qmail-remote has the first two.
const (
	DefaultTimeoutConnect = 60 * time.Second
	DefaultTimeoutRemote  = 1200 * time.Second
	DefaultTimeoutDNS     = 60 * time.Second
)

// A Client has what a protocol program must know.
type Client struct {
	HeloHost       string        // said in HELO and EHLO: ASCII, 1 to 255 bytes, no blanks
	TimeoutRemote  time.Duration // for the whole conversation; 0: no limit
	TimeoutConnect time.Duration // for one TCP connection, the TLS handshake and the answer to STARTTLS; 0: no limit
}

// Settings has what the router must know.
type Settings struct {
	Client

	Home string // absolute

	// Protocols are in order of liking. Beside those of the file there is always one of
	// Submissions. See [Protocol.RelayOnly].
	Protocols    []Protocol
	SenderRoutes SenderRoutes

	// The TLS clients: an absolute path, or a name without a slash: beside the router's
	// executable, else in home/bin. Empty: the bundled one.
	TLSClient      string // for implicit TLS
	UCSPITLSClient string // for explicit TLS (UCSPI-TLS)

	TrustAnchors Anchors
	ClientCert   string // absolute path, PEM; empty: none
	ClientKey    string // absolute path, PEM; empty if and only if ClientCert is

	TLSStrictness int // 0: TLS where it is offered; 1: TLS first; 2: verified TLS or nothing

	IPMe        []netip.Addr // our own addresses; no zones, IPv4-mapped addresses as IPv4
	IPMeDefault bool         // there is no ipme, and IPMe is empty: ours are those of the interfaces and all of loopback

	// Who we are to the other side. What a file does not say is as above.
	Sources     Sources
	Families    Families
	ClientCerts ClientCerts
	SigningKeys SigningKeys
	Me          string // the domain of control/me in lower case and A-labels; "" if there are no SigningKeys, or if me has no domain

	SMTPAvoid  Avoided
	TimeoutDNS time.Duration // for all lookups together; 0: no limit

	Trace Trace

	// Policies that others publish; see also TrustAnchors.
	MTASTS         string           // absolute path of the folder of the policy cache; empty: no MTA-STS
	TrustResolvers []netip.AddrPort // name servers whose word on DNSSEC counts, 1 to 16; nil: none, and no DANE

	TLSPolicy  TLSPolicies   // what we want ourselves of some hosts and exchangers
	ClearAfter time.Duration // age of a message before TLS that failed is replaced by clear text

	TLSRPTSocket string // absolute path of a Unix datagram socket, 1 to 107 bytes; empty: no TLSRPT
}

// Anchors has the absolute path of the trust anchors in one of its fields. Both are
// empty if there are none.
type Anchors struct {
	File string // certificates in PEM
	Dir  string // a directory of files like that
}

// Read reads every control file of the router in home/control, routes included, except
// credentials: see [Settings.Credential]. An error is an *Error.
func Read(home string) (*Settings, error) {
	d, err := openDir(home)
	if err != nil {
		return nil, err
	}
	s := &Settings{Home: d.home}
	if err := d.readInto(s); err != nil {
		return nil, err
	}
	return s, nil
}

func (d dir) readInto(s *Settings) error {
	for _, read := range []func(*Settings) error{
		d.client, d.protocols, d.routes, d.senderRoutes, d.tls,
		d.sources, d.families, d.clientCerts, d.signingKeys, d.ipme, d.smtpAvoid, d.timeouts, d.trace,
		d.policy, d.tlsPolicy, d.clearAfter, d.tlsrptSocket,
	} {
		if err := read(s); err != nil {
			return err
		}
	}
	return nil
}

// ReadClient reads the control files of a protocol program in home/control:
// helohost or me, timeoutremote and timeoutconnect. An error is an *Error.
func ReadClient(home string) (Client, error) {
	d, err := openDir(home)
	if err != nil {
		return Client{}, err
	}
	return d.readClient()
}

func (d dir) client(s *Settings) (err error) {
	s.Client, err = d.readClient()
	return err
}

func (d dir) readClient() (c Client, err error) {
	if c.HeloHost, err = d.heloHost(); err != nil {
		return Client{}, err
	}
	if c.TimeoutRemote, err = d.seconds("timeoutremote", DefaultTimeoutRemote); err != nil {
		return Client{}, err
	}
	if c.TimeoutConnect, err = d.seconds("timeoutconnect", DefaultTimeoutConnect); err != nil {
		return Client{}, err
	}
	return c, nil
}

// heloHost reads me only if helohost has no value: a malformed me that is not used
// must not stop mail.
func (d dir) heloHost() (string, error) {
	for _, name := range []string{"helohost", "me"} {
		value, err := d.value(name)
		if err != nil {
			return "", err
		}
		if value == "" {
			continue
		}
		host, problem := parseHeloHost(value)
		if problem != "" {
			return "", d.malformed(name, 1, problem)
		}
		return host, nil
	}
	return "", d.malformed("helohost", 0, fmt.Sprintf(
		"expected a host name here or in control/me, and both are missing or empty (home is %q)", d.home))
}

// maxHeloHost is the longest domain in a command, in bytes (RFC 5321 4.5.3.1.2).
const maxHeloHost = 255

// parseHeloHost accepts every text that a server reads as one word: me is often a
// name that exists nowhere, or an address literal. A name beyond ASCII becomes
// A-labels, because nobody knows before EHLO whether a server speaks SMTPUTF8. problem
// says what is wrong, and is "" if nothing is.
func parseHeloHost(s string) (host, problem string) {
	const expected = "a host name without blanks and control bytes"
	host, err := domain.ToASCII(s)
	if err != nil {
		return "", fmt.Sprintf("expected %s, found %s, which is not a valid international name", expected, found(s))
	}
	for i := range len(host) {
		if host[i] <= ' ' || host[i] == 0x7f {
			return "", fmt.Sprintf("expected %s, found %s", expected, found(s))
		}
	}
	if len(host) > maxHeloHost {
		return "", fmt.Sprintf("expected %s, of at most %d bytes, found %d", expected, maxHeloHost, len(host))
	}
	return host, ""
}

func (d dir) tls(s *Settings) error {
	for _, f := range []struct {
		name string
		to   *string
	}{
		{"tlsclient", &s.TLSClient},
		{"ucspitlsclient", &s.UCSPITLSClient},
	} {
		value, err := d.path(f.name)
		if err != nil {
			return err
		}
		if strings.Contains(value, "/") {
			value = d.absolute(value)
		}
		*f.to = value
	}

	if err := d.anchors(s); err != nil {
		return err
	}
	if err := d.clientCertificate(s); err != nil {
		return err
	}
	strictness, err := d.number("tlsstrictness", 0, 2, "0, 1 or 2")
	s.TLSStrictness = int(strictness)
	return err
}

func (d dir) anchors(s *Settings) error {
	anchors, err := d.path("trustanchors")
	if err != nil {
		return err
	}
	switch {
	case strings.HasSuffix(anchors, "/"):
		s.TrustAnchors.Dir = d.absolute(anchors)
	case anchors != "":
		s.TrustAnchors.File = d.absolute(anchors)
	}
	return nil
}

func (d dir) clientCertificate(s *Settings) error {
	cert, err := d.path("clientcert")
	if err != nil {
		return err
	}
	key, err := d.path("clientkey")
	if err != nil {
		return err
	}
	switch {
	case cert == "" && key == "":
		return nil
	case cert == "":
		return d.malformed("clientcert", 0, "expected the certificate for control/clientkey, and this file is missing or empty; set both or neither")
	case key == "":
		return d.malformed("clientkey", 0, "expected the key for control/clientcert, and this file is missing or empty; set both or neither")
	}
	s.ClientCert, s.ClientKey = d.absolute(cert), d.absolute(key)
	return nil
}

func (d dir) ipme(s *Settings) error {
	data, err := d.read("ipme")
	if data == nil || err != nil {
		s.IPMeDefault = err == nil
		return err
	}
	return d.entries("ipme", data, func(_ int, entry string) string {
		addr, err := netip.ParseAddr(entry)
		if err != nil || addr.Zone() != "" {
			return fmt.Sprintf("expected one IPv4 or IPv6 address, without brackets, port or zone, found %s", found(entry))
		}
		s.IPMe = append(s.IPMe, addr.Unmap())
		return ""
	})
}

func (d dir) timeouts(s *Settings) (err error) {
	s.TimeoutDNS, err = d.seconds("timeoutdns", DefaultTimeoutDNS)
	return err
}

// maxNumber is the largest number in a control file, 2^31-1. As seconds these are 68
// years, which fit a time.Duration and every C program that reads the same file.
const maxNumber = 1<<31 - 1

// seconds reads a file with a number of seconds. 0 means no limit.
func (d dir) seconds(name string, missing time.Duration) (time.Duration, error) {
	n, err := d.number(name, int64(missing/time.Second), maxNumber,
		"a whole number of seconds from 0 to 2147483647, 0 meaning no limit")
	return time.Duration(n) * time.Second, err
}

// number reads a file with one number from 0 to highest. It returns missing if the
// file is missing or empty.
func (d dir) number(name string, missing, highest int64, expected string) (int64, error) {
	value, err := d.value(name)
	if err != nil {
		return 0, err
	}
	if value == "" {
		return missing, nil
	}
	n, ok := decimal(value, highest)
	if !ok {
		return missing, d.malformed(name, 1, fmt.Sprintf("expected %s, found %s", expected, found(value)))
	}
	return n, nil
}

// decimal reads a number from 0 to highest, which is at most maxNumber, in ASCII
// digits alone.
func decimal[S string | []byte](s S, highest int64) (n int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n = n*10 + int64(s[i]-'0'); n > highest {
			return 0, false
		}
	}
	return n, len(s) > 0
}

// path reads a file with one path.
func (d dir) path(name string) (string, error) {
	value, err := d.value(name)
	if err != nil {
		return "", err
	}
	if problem := checkPath(value); problem != "" {
		return "", d.malformed(name, 1, problem)
	}
	return value, nil
}

// checkPath returns what is wrong with a path, "" if nothing is. An empty one passes.
func checkPath(path string) (problem string) {
	switch {
	case path != "" && isBlank(path[0]):
		return fmt.Sprintf("expected a path without blanks before it, found %s", found(path))
	case strings.HasPrefix(path, "-----BEGIN "):
		return "expected the path of a file, found what should be in that file"
	}
	return ""
}

// absolute returns path, which is relative to home if it is not absolute.
func (d dir) absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return d.home + "/" + path
}
