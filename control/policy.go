package control

import (
	"fmt"
	"time"

	"nightmare.mail/mxf/control/domain"
)

const (
	// maxTrustResolvers is how many name servers are asked, as of $DNSCACHEIP.
	maxTrustResolvers = 16

	// maxSocketPath is the longest path of a Unix socket in bytes: Linux has room for 108
	// with the zero byte at the end (unix(7)).
	maxSocketPath = 107
)

// ReadPolicy reads the control files of mxf-policy in home/control: mtasts, trustresolvers
// and trustanchors. The other fields are zero. An error is an *Error.
func ReadPolicy(home string) (*Settings, error) {
	d, err := openDir(home)
	if err != nil {
		return nil, err
	}
	s := &Settings{Home: d.home}
	for _, read := range []func(*Settings) error{d.anchors, d.policy} {
		if err := read(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// policy reads what turns policies on that others publish.
func (d dir) policy(s *Settings) error {
	folder, err := d.path("mtasts")
	if err != nil {
		return err
	}
	if folder != "" {
		s.MTASTS = d.absolute(folder)
	}
	return d.trustResolvers(s)
}

// HasPolicy reports whether anything but TLSStrictness decides about TLS.
func (s *Settings) HasPolicy() bool {
	return len(s.TrustResolvers) > 0 || s.MTASTS != "" || len(s.TLSPolicy.lines) > 0
}

func (d dir) trustResolvers(s *Settings) error {
	data, err := d.read("trustresolvers")
	if data == nil || err != nil {
		return err
	}
	err = d.entries("trustresolvers", data, func(_ int, entry string) string {
		server, err := domain.ParseServer(entry)
		if err != nil {
			return fmt.Sprintf("expected the IP address of a name server, with or without a port (192.0.2.1, [2001:db8::1]:53), found %s", found(entry))
		}
		if len(s.TrustResolvers) == maxTrustResolvers {
			return fmt.Sprintf("expected at most %d name servers, found one more", maxTrustResolvers)
		}
		s.TrustResolvers = append(s.TrustResolvers, server)
		return ""
	})
	if err == nil && len(s.TrustResolvers) == 0 {
		return d.malformed("trustresolvers", 0, "expected at least one name server, found none; remove the file to trust none")
	}
	return err
}

func (d dir) tlsrptSocket(s *Settings) error {
	path, err := d.path("tlsrptsocket")
	if path == "" || err != nil {
		return err
	}
	s.TLSRPTSocket = d.absolute(path)
	if n := len(s.TLSRPTSocket); n > maxSocketPath {
		return d.malformed("tlsrptsocket", 1, fmt.Sprintf("expected the path of a socket of at most %d bytes, found one of %d with the home", maxSocketPath, n))
	}
	return nil
}

func (d dir) clearAfter(s *Settings) error {
	n, err := d.number("clearafter", 0, maxNumber, "a whole number of seconds from 0 to 2147483647")
	s.ClearAfter = time.Duration(n) * time.Second
	return err
}
