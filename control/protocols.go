package control

import (
	"fmt"
	"path"
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

// submissionsProtocol is understood if control/protocols has no line for submissions
// (RFC 8314 3.3). It changes nothing until a route leads to it.
const submissionsProtocol = "submissions:465:-1:Y:N:mxf-remote-smtpc"

// Services that more than their own line depends on.
const (
	SMTP        = "smtp"        // its protocol is that of routes by sender
	Submissions = "submissions" // its protocol is that of every relay with SubmissionsPort in smtproutes and senderroutes
)

// SubmissionsPort is the TCP port where a server waits for TLS and never speaks first
// (RFC 8314 7.3).
const SubmissionsPort = 465

// bySender is no service: its routes file would be senderroutes.
const bySender = "sender"

// The bundled protocol programs, as a line names them.
const (
	SMTPProgram = "mxf-remote-smtpc"
	QMTPProgram = "mxf-remote-qmtpc"
)

// maxService is the length of the longest service name. With an underscore in front it
// is one label in the name of an SRV record (RFC 2782, RFC 1035 2.3.4).
const maxService = 62

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
	Line     int    // of control/protocols, from 1; 0: the line is not there, it is a default

	Routes *Routes // never nil after Read
}

// RelayOnly reports whether the protocol is spoken to relays alone. The SRV records of
// such a service are for mail readers (RFC 6186, RFC 8314), and no host takes mail of
// strangers there: nobody looks these records up or tries the host itself.
func (p *Protocol) RelayOnly() bool { return isRelayOnly(p.Service) }

func isRelayOnly(service string) bool {
	return service == Submissions || service == "submission" || service == "smtps"
}

// QMTP reports whether the protocol is QMTP, clear or inside TLS, whoever's program speaks it.
// It has no logins, and nothing of SMTP that could be avoided.
func (p *Protocol) QMTP() bool {
	return path.Base(p.Program) == QMTPProgram || p.Service == "qmtp" || p.Service == "qmtps"
}

func (d dir) protocols(s *Settings) error {
	data, err := d.read("protocols")
	if err != nil {
		return err
	}
	if data == nil {
		return d.defaultProtocols(s)
	}
	s.Protocols, err = d.parseProtocols(data)
	if err == nil && len(s.Protocols) == 0 { // all mistakes are wanted, and its lines have nothing else
		return d.plain().defaultProtocols(s)
	}
	if err == nil {
		s.Protocols = withSubmissions(s.Protocols)
	}
	return err
}

// defaultProtocols sets the protocols of a home without the file.
func (d dir) defaultProtocols(s *Settings) error {
	protocols, err := d.parseProtocols([]byte(defaultProtocols))
	if err != nil {
		return err
	}
	for i := range protocols {
		protocols[i].Line = 0
	}
	s.Protocols = withSubmissions(protocols)
	return nil
}

// withSubmissions adds the line that is understood: directly before smtp, else at the end.
func withSubmissions(protocols []Protocol) []Protocol {
	if serviceIndex(protocols, Submissions) >= 0 {
		return protocols
	}
	submissions, _ := parseProtocol(submissionsProtocol)
	at := serviceIndex(protocols, SMTP)
	if at < 0 {
		at = len(protocols)
	}
	return slices.Insert(protocols, at, submissions)
}

func serviceIndex(protocols []Protocol, service string) int {
	return slices.IndexFunc(protocols, func(p Protocol) bool { return p.Service == service })
}

// Service returns the protocol of a service, nil if there is none. After Read there is
// always one of Submissions.
func (s *Settings) Service(service string) *Protocol {
	if i := serviceIndex(s.Protocols, service); i >= 0 {
		return &s.Protocols[i]
	}
	return nil
}

func (d dir) parseProtocols(data []byte) (protocols []Protocol, err error) {
	err = d.entries("protocols", data, func(line int, entry string) string {
		p, problem := parseProtocol(entry)
		if problem != "" {
			return problem
		}
		if serviceIndex(protocols, p.Service) >= 0 {
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
	if field[0] == bySender {
		return wrong("a service whose routes file is not control/senderroutes", field[0])
	}
	port, ok := parsePort(field[1])
	if !ok {
		return wrong("a port from 1 to 65535 as the second field", field[1])
	}
	slice, ok := parseSlice(field[2])
	if !ok {
		return wrong("a slice from -1 to 15 as the third field", field[2])
	}
	if isRelayOnly(field[0]) && slice != NoSlice {
		return wrong("slice -1 for "+field[0]+", which is for relays only", field[2])
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
