package dns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/regular"
)

const (
	// maxServers bounds the name servers that are asked; djbdns reads as many.
	maxServers = 16
	// maxResolvConf bounds what is read of resolv.conf, in bytes.
	maxResolvConf = 1 << 20
)

// A Config says whom a Client asks, and where it gets what it needs of the world.
type Config struct {
	Servers []netip.AddrPort // asked in this order; those after the sixteenth are not
	TCP     bool             // nothing is asked by UDP
	Source  string           // who names them: control/trustresolvers, $DNSCACHEIP or the path of resolv.conf
	Guess   string           // why Servers are this host's own, which nobody has named; else empty

	// Sockets bounds the sockets in use at a time; 0: 64. A process with many deliveries
	// sets it by its limit of descriptors.
	Sockets int

	IDs io.Reader        // source of query ids; nil: crypto/rand
	Now func() time.Time // the clock: deadlines of sockets, and how long EDNS0 is left out; nil: time.Now
}

// A ConfigError says why the name servers are not known. It is temporary.
type ConfigError struct {
	Source string // $DNSCACHEIP, or the path of resolv.conf
	What   string // what is wrong there
	Err    error  // the cause, may be nil
}

func (e *ConfigError) Error() string { return e.Source + ": " + e.What }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// ReadConfig returns a Config with the name servers in trusted, those whose word on DNSSEC
// counts (see Question.Secure), or, when there are none, with those in dnscacheip, the value
// of $DNSCACHEIP, or, when it names none, with those in the file resolvConf, see
// resolv.conf(5), or, when that is missing or names none, with this host's own.
// They are 16 at most. The error is a *ConfigError.
func ReadConfig(trusted []netip.AddrPort, dnscacheip, resolvConf string) (Config, error) {
	c := Config{Source: "control/trustresolvers"}
	for _, server := range trusted {
		c.add(server)
	}
	if len(trusted) > 0 {
		return c, nil // nothing of what others wrote is even read
	}
	c.Source = "$DNSCACHEIP"
	for _, field := range strings.FieldsFunc(dnscacheip, func(r rune) bool { return strings.ContainsRune(" \t,/", r) }) {
		server, err := domain.ParseServer(field)
		if err != nil {
			return Config{}, &ConfigError{"$DNSCACHEIP", fmt.Sprintf("%q is not an IP address with or without a port", field), err}
		}
		c.add(server)
	}
	if len(c.Servers) == 0 {
		c.Source = resolvConf
		if err := c.readResolvConf(resolvConf); err != nil {
			return Config{}, &ConfigError{resolvConf,
				fmt.Sprintf("expected a file that can be read, or the name servers in $DNSCACHEIP: %v", withoutPath(err)), err}
		}
	}
	return c, nil
}

func (c *Config) add(server netip.AddrPort) {
	if !slices.Contains(c.Servers, server) && len(c.Servers) < maxServers {
		c.Servers = append(c.Servers, server)
	}
}

// readResolvConf reads the nameserver lines of resolv.conf(5), and the option that has
// everything asked by TCP. Like the C library it passes over what it does not
// understand, because the file is not ours.
func (c *Config) readResolvConf(path string) error {
	f, _, err := regular.Open(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		c.guess("there is no " + path)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxResolvConf))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 2:
		case fields[0] == "options":
			// As glibc, FreeBSD and OpenBSD call it.
			for _, option := range fields[1:] {
				c.TCP = c.TCP || option == "use-vc" || option == "usevc" || option == "tcp"
			}
		case fields[0] == "nameserver":
			if addr, err := netip.ParseAddr(fields[1]); err == nil {
				c.add(netip.AddrPortFrom(addr, domain.DNSPort))
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if len(c.Servers) == 0 {
		c.guess(path + " names no name server")
	}
	return nil
}

// guess takes this host's own name servers, because nobody has named any.
func (c *Config) guess(why string) {
	c.Guess = why
	c.add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), domain.DNSPort))
	c.add(netip.AddrPortFrom(netip.IPv6Loopback(), domain.DNSPort))
}

// withoutPath returns the system's error in err, without the operation and the path,
// which the text around it has already.
func withoutPath(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
