package peers

import (
	"os/exec"
	"strings"
	"testing"
)

// OpenSMTPD starts an OpenSMTPD that stores each recipient's copy in a maildir.
// It cannot demand client certificates in a way that others can, nor leave out
// extensions.
func OpenSMTPD(t testing.TB, o Options) *Server {
	t.Helper()
	needRoot(t, "smtpd")
	program := find(t, "smtpd")
	agent := find(t, "mail.maildir")
	r := newRoot(t, "opensmtpd", "opensmtpq")
	r.install(program, "usr/sbin/smtpd")
	// Its delivery agents are started by a shell.
	r.install(find(t, "dash"), "bin/sh")
	r.install(agent, "usr/libexec/opensmtpd/mail.maildir")
	own(t, r.path("var/lib/opensmtpd/empty"), 0o755, 0, 0)
	own(t, r.path("var/run"), 0o755, 0, 0)
	own(t, r.path("var/spool/smtpd"), 0o711, 0, 0)
	r.write("etc/mailname", "opensmtpd."+Domain+"\n")

	o = r.certificates(o, 0)
	s := launch{name: "opensmtpd", log: r.path("log"), greets: true, command: func(port string) *exec.Cmd {
		r.write("etc/smtpd.conf", opensmtpdConfig(port, o))
		return r.command("/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf")
	}}.start(t)
	s.stored = maildir(r.path("home/mail/all"), func(raw []byte) (Message, error) {
		// There is no Return-Path for the empty sender.
		fields := []string{"Return-Path", "Delivered-To", "Received"}
		if !hasPrefixFold(raw, fields[0]) {
			fields = fields[1:]
		}
		f, data, err := traceFields(raw, fields...)
		return Message{strings.Trim(f["Return-Path"], "<>"), []string{f["Delivered-To"]}, data}, err
	})
	return s
}

func opensmtpdConfig(port string, o Options) string {
	conf := []string{
		`table everyone { "@" = mail }`,
		`smtp max-message-size "64M"`,
		`smtp limit max-rcpt 10000`,
	}
	listen := "listen on 127.0.0.1 port " + port
	if o.tls() {
		conf = append(conf, `pki peer cert "`+o.Certificate+`"`, `pki peer key "`+o.Key+`"`)
		listen += " tls pki peer"
	}
	return strings.Join(append(conf, listen,
		`action "store" maildir "/home/mail/all" virtual <everyone>`,
		`match from any for rcpt-to regex "^`+RefusedPrefix+`" reject`,
		`match from any for domain "`+Domain+`" action "store"`,
	), "\n") + "\n"
}
