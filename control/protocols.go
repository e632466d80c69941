package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// defaultProtocols is used if control/protocols is missing: QMTP with TLS, QMTP
// without, then SMTP with STARTTLS.
const defaultProtocols = `qmtps:6209:-1:Y:N:mxf-remote-qmtpc
qmtp:209:1:N:N:mxf-remote-qmtpc
smtp:25:0:N:Y:mxf-remote-smtpc
`

// The bundled protocol programs, as a line names them.
const (
	SMTPProgram = "mxf-remote-smtpc"
	QMTPProgram = "mxf-remote-qmtpc"
)

// maxService is the length of the longest service name. With an underscore in front it
// is one label in the name of an SRV record (RFC 2782, RFC 1035 2.3.4).
const maxService = 62

// Submissions is the service of submission inside TLS (RFC 8314 section 7.3).
const Submissions = "submissions"

// RelayOnly reports whether p is spoken to relays alone. The SRV records of these services are
// for mail readers (RFC 6186, RFC 8314).
func (p *Protocol) RelayOnly() bool {
	return p.Service == Submissions || p.Service == "submission" || p.Service == "smtps"
}

// Slices of MXPS.
const (
	NoSlice  = -1 // no MX record's preference selects the protocol
	maxSlice = 15 // a slice is a preference modulo 16
)

// A Protocol is one line of control/protocols.
type Protocol struct {
	Service  string // name of RFC 2782, and of the routes file: a to z, 0 to 9, hyphen; 1 to 62 bytes
	Port     uint16 // TCP; used if nothing more specific is known; never 0
	Slice    int    // of MXPS: a preference modulo 16, 0 to 15, or NoSlice
	Implicit bool   // TLS from the first byte
	Explicit bool   // TLS on request; never together with Implicit
	Program  string // an absolute path, or a name without a slash: beside the router's executable, then in home/bin
	Line     int    // of control/protocols, from 1; 0: there is no such file

	Routes *Routes // never nil after Read
}

func (d dir) protocols(s *Settings) error {
	data, err := d.read("protocols")
	if err != nil {
		return err
	}
	byDefault := data == nil
	if byDefault {
		data = []byte(defaultProtocols)
	}
	s.Protocols, err = d.parseProtocols(data)
	if byDefault {
		for i := range s.Protocols {
			s.Protocols[i].Line = 0
		}
	}
	return err
}

func (d dir) parseProtocols(data []byte) (protocols []Protocol, err error) {
	err = d.entries("protocols", data, func(line int, entry string) string {
		p, problem := parseProtocol(entry)
		if problem != "" {
			return problem
		}
		if slices.ContainsFunc(protocols, func(q Protocol) bool { return q.Service == p.Service }) {
			return fmt.Sprintf("expected each service once, found %q for the second time", p.Service)
		}
		if strings.Contains(p.Program, "/") {
			p.Program = d.absolute(p.Program)
		}
		p.Line = line
		protocols = append(protocols, p)
		return ""
	})
	if err == nil && len(protocols) == 0 {
		err = d.malformed("protocols", 0, "expected at least one protocol, found none; remove the file to have the default ones")
	}
	if err != nil {
		return nil, err
	}
	return protocols, nil
}

// parseProtocol parses one line of control/protocols and leaves Program as it is
// written. problem says what is wrong, and is "" if nothing is.
func parseProtocol(entry string) (p Protocol, problem string) {
	wrong := func(expected, text string) (Protocol, string) {
		return Protocol{}, fmt.Sprintf("expected %s, found %s", expected, found(text))
	}
	field := strings.SplitN(entry, ":", 6)
	if len(field) < 6 {
		return wrong("service:defport:slice:implicit:explicit:program", entry)
	}
	if !isService(field[0]) {
		return wrong("a service of 1 to 62 lower-case letters, digits and hyphens", field[0])
	}
	port, ok := parsePort(field[1])
	if !ok {
		return wrong("a port from 1 to 65535 as the second field", field[1])
	}
	slice, ok := parseSlice(field[2])
	if !ok {
		return wrong("a slice from -1 to 15 as the third field", field[2])
	}
	if !isYesNo(field[3]) {
		return wrong("Y or N for implicit TLS as the fourth field", field[3])
	}
	if !isYesNo(field[4]) {
		return wrong("Y or N for explicit TLS as the fifth field", field[4])
	}
	if field[3] == "Y" && field[4] == "Y" {
		return wrong("implicit or explicit TLS, not both", "Y:Y")
	}
	if !isProgram(field[5]) {
		return wrong("a program as the sixth field", field[5])
	}
	return Protocol{
		Service:  field[0],
		Port:     port,
		Slice:    slice,
		Implicit: field[3] == "Y",
		Explicit: field[4] == "Y",
		Program:  field[5],
	}, ""
}

func isService(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= maxService
}

func parsePort[S string | []byte](s S) (uint16, bool) {
	n, ok := decimal(s, 65535)
	return uint16(n), ok && n != 0
}

func parseSlice(s string) (int, bool) {
	if s == strconv.Itoa(NoSlice) {
		return NoSlice, true
	}
	n, ok := decimal(s, maxSlice)
	return int(n), ok
}

func isYesNo(s string) bool { return s == "Y" || s == "N" }

func isProgram(s string) bool { return s != "" && s != "." && s != ".." && !isBlank(s[0]) }
