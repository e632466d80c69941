package transport

import (
	"errors"
	"strings"

	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// A Securing is what became of STARTTLS in one attempt, for the reports on TLS (RFC 8460).
// The zero Securing says nothing: STARTTLS was not to be used, or EHLO was not answered, or a
// program of others does not say.
type Securing struct {
	What   smtpc.Securing
	Faults tlsc.Faults // of the certificate: they have ended the handshake, or in TLS that is up they are not enforced
	Reason string      // why there is no TLS, or the certificate is not good: one line, for people; empty: not known
}

// securing is what became of STARTTLS in a conversation in this process.
func (s *session) securing(o *smtpc.Outcome) Securing {
	became := Securing{What: o.Securing}
	failed := new(tlsc.Error)
	switch {
	case became.What == smtpc.NotSecured && errors.As(o.Err, &failed):
		if failed.Kind == tlsc.KindSettings {
			return Securing{} // that is about us
		}
		became.Faults, became.Reason = failed.Faults, failed.What
	case became.What == smtpc.NotSecured:
		_, err := report.SMTP(o, s.peer())
		var none *report.NoTransaction
		if errors.As(err, &none) {
			became.Reason = none.Reason.NoTLS(s.target.ip())
		}
	case became.What == smtpc.Secured:
		verdict := s.tls.Facts().Verdict
		became.Faults, became.Reason = verdict.Faults, verdict.Reason
	}
	return became
}

// securingMark is in the line on STARTTLS of mxf-remote-smtpc(8), on its descriptor 2.
const securingMark = "mxf-remote-smtpc: starttls: "

// cutSecuring parts what a chain said on its standard error: the line on STARTTLS, if there is one, and
// the rest. No server can make a program print such a line: lines that repeat one begin with its reply
// code.
func cutSecuring(said string) (became Securing, rest string) {
	var others strings.Builder
	for line := range strings.Lines(said) {
		words, found := strings.CutPrefix(line, securingMark)
		if !found {
			others.WriteString(line)
			continue
		}
		words, verdict, _ := strings.Cut(strings.TrimSuffix(words, "\n"), " no:")
		became = Securing{What: smtpc.ParseSecuring(words), Faults: tlsc.FaultsOf(verdict), Reason: verdict}
	}
	return became, others.String()
}

// completed is b with why there is no TLS: by the last line of the TLS client, which is in said, or else by
// the reason of err. Where the program has said nothing of STARTTLS, err may: a program of others that
// keeps to our exit codes.
func (b Securing) completed(said string, err error, ip string) Securing {
	var none *report.NoTransaction
	errors.As(err, &none)
	f, _ := diagnosis(said)
	if b.What == smtpc.NotAsked {
		switch {
		case errors.Is(err, policy.ErrNotOffered):
			b.What = smtpc.NotOffered
		case errors.Is(err, policy.ErrTLS) && f.what != "":
			b.What = smtpc.NotSecured
		}
	}
	switch {
	case b.What != smtpc.NotSecured:
	case f.what != "":
		b.Faults, b.Reason = f.faults, f.what
	case none != nil:
		b.Reason = none.Reason.NoTLS(ip)
	}
	return b
}
