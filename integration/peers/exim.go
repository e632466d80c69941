package peers

import (
	"os/exec"
	"strings"
	"testing"
)

// Exim starts an Exim that stores one copy for all recipients in a maildir.
func Exim(t testing.TB, o Options) *Server {
	t.Helper()
	needRoot(t, "exim")
	program := find(t, "exim4")
	const user = "Debian-exim" // compiled in
	r := newRoot(t, user, "eximq")
	// A delivery starts the program anew, under the name that it knows.
	r.install(program, "usr/sbin/exim4")
	for _, dir := range []string{"var/spool/exim4", "var/log/exim4", "run/exim4", "home/mail"} {
		own(t, r.path(dir), 0o750, serverUser, serverUser)
	}
	if l := o.Login; l != nil {
		r.write("etc/exim4/user", l.User)
		r.write("etc/exim4/password", l.Password)
	}
	r.write("etc/exim4/exim4.conf", eximConfig(r.certificates(o, serverUser)))
	s := launch{name: "exim", log: r.path("log"), greets: true, command: func(port string) *exec.Cmd {
		// Logs go to standard error too: -v is the least of debugging.
		return r.command("/usr/sbin/exim4", "-bdf", "-v", "-oX", "127.0.0.1:"+port)
	}}.start(t)
	s.stored = maildir(r.path("home/mail/all"), func(raw []byte) (Message, error) {
		f, data, err := traceFields(raw, "Return-path", "Envelope-to", "Delivery-date", "Received")
		m := Message{Sender: strings.Trim(f["Return-path"], "<>"), Data: data}
		for _, recipient := range strings.Split(f["Envelope-to"], ",") {
			m.Recipients = append(m.Recipients, strings.TrimSpace(recipient))
		}
		return m, err
	})
	return s
}

func eximConfig(o Options) string {
	main := []string{
		"primary_hostname = exim." + Domain,
		"log_file_path = /var/log/exim4/%slog",
		"domainlist ours = " + Domain,
		"acl_smtp_rcpt = rcpt",
		"acl_smtp_data = data",
		"host_lookup =",
		"rfc1413_hosts =",
		"rfc1413_query_timeout = 0s",
		"dns_dnssec_ok = 0",
		"smtp_accept_max = 0",
		"smtp_accept_max_per_connection = 0",
		"recipients_max = 50000",
		"queue_run_max = 0",
		"message_size_limit = 64M",
		"accept_8bitmime = true",
		"smtputf8_advertise_hosts = *",
		"keep_environment =",
		"prdr_enable = false",
		// Root is given up for good, so that no program has to be set-uid.
		"deliver_drop_privilege = true",
	}
	switch {
	case o.tls():
		main = append(main, "tls_advertise_hosts = *",
			"tls_certificate = "+o.Certificate, "tls_privatekey = "+o.Key)
	default:
		main = append(main, "tls_advertise_hosts =")
	}
	if o.ClientCA != "" {
		main = append(main, "tls_verify_hosts = *", "tls_verify_certificates = "+o.ClientCA)
	}
	if o.NoPipelining {
		main = append(main, "pipelining_advertise_hosts =")
	}
	authenticators := ""
	if o.Login != nil {
		main = append(main, "acl_smtp_mail = mail", "auth_advertise_hosts = *")
		authenticators = eximAuthenticators(o.Login)
	}
	return strings.Join(main, "\n") + eximSections + authenticators
}

const eximSections = `

begin acl
mail:
  accept authenticated = *
  deny message = 530 5.7.0 Authentication required

rcpt:
  deny local_parts = ^` + RefusedPrefix + `
       message = no such mailbox
  accept domains = +ours
  deny message = not here

data:
  accept

begin routers
all:
  driver = accept
  transport = store

begin transports
store:
  driver = appendfile
  directory = /home/mail/all
  maildir_format
  create_directory
  return_path_add
  envelope_to_add
  delivery_date_add
  batch_max = 10000

begin retry

begin rewrite

begin authenticators
`
