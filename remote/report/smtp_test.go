package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/smtpc"
)

// said is a reply of one line.
func said(text string) smtpc.Reply { return smtpc.Reply{Text: text} }

// quiet is the error of a server that did not answer within five seconds.
func quiet(at smtpc.Stage) error {
	return fmt.Errorf("%w: %w", smtpc.ErrLost, &smtpc.SilenceError{Stage: at, Limit: 5 * time.Second})
}

// The wording of every outcome of SMTP. No want is an outcome that is not reported here.
func TestSMTP(t *testing.T) {
	type answers = []smtpc.Answer
	type (
		login   = smtpc.LoginError
		refused = smtpc.RefusedError
		broken  = smtpc.BrokenError
	)
	ok := smtpc.Answer{Status: smtpc.Accepted, Reply: said("250 ok")}
	no := smtpc.Answer{Status: smtpc.Refused, Reply: said("550 no")}
	later := smtpc.Answer{Status: smtpc.Deferred, Reply: said("450 later")}
	odd := smtpc.Answer{Status: smtpc.Malformed, Err: errors.New("there is a control byte in it")}
	none := smtpc.Answer{}
	lost := fmt.Errorf("%w: %w", smtpc.ErrLost, io.ErrUnexpectedEOF)
	tlsLost := fmt.Errorf("%w: %w", smtpc.ErrLost, tlsFault("bad record"))
	nonsense := &smtpc.ProtocolError{What: `it sent "hello", which is not a reply`}
	canceled := &broken{Stage: smtpc.StageEHLO, Err: context.Canceled}
	panicked := errors.New("panic in the SMTP conversation: x")
	const place = "control/credentials:3"
	const connected = "Connected to 192.0.2.1 but "
	const diedText = connected + "connection died"
	const (
		no554     = "\nRemote host said: 554 no"
		dislikes  = "192.0.2.1 does not like recipient.\nRemote host said: "
		died      = "Z" + diedText
		noTLS     = connected + "TLS could not be had: "
		duplicate = "Possible duplicate! "
		tlsLine   = "\nTLS: TLSv1.3 C verified mx.example.org"
	)
	for _, c := range []struct {
		name    string
		outcome smtpc.Outcome
		tls     bool
		want    string // the stream, | for the end of a report; after ? the reason why nothing was begun
		letter  Letter // of that reason, 0: Z
	}{
		// Accepted.
		{"accepted", smtpc.Outcome{Recipients: answers{ok}, Begun: true, LastByte: true, Reply: said("250 queued")},
			false, "r|K192.0.2.1 accepted message.\nRemote host said: 250 queued|", 0},
		{"accepted, in TLS", smtpc.Outcome{Recipients: answers{ok, no, later, odd}, Begun: true, LastByte: true, Reply: said("250 queued")},
			true, "r|h" + dislikes + "550 no|s" + dislikes + "450 later|hI cannot send to this recipient: there is a control byte in it. (#5.1.3)|" +
				"K192.0.2.1 accepted message.\nRemote host said: 250 queued" + tlsLine + "|", 0},
		{"accepted, after a note", smtpc.Outcome{Recipients: answers{ok}, Begun: true, Reply: said("250 queued"),
			Notes: []smtpc.Note{{Stage: smtpc.StageMAIL, Reply: said("555 what")}}},
			false, "r|K192.0.2.1 accepted message.\nRemote host said: 250 queued|", 0},

		// Refused.
		{"greeting", smtpc.Outcome{Recipients: answers{none}, Err: &refused{Stage: smtpc.StageGreeting, Reply: said("554 no")}},
			false, "?" + connected + "greeting failed." + no554, 0},
		{"EHLO", smtpc.Outcome{Err: &refused{Stage: smtpc.StageEHLO, Reply: said("421 no")}},
			true, "?" + connected + "my name was rejected.\nRemote host said: 421 no", 0},
		{"HELO", smtpc.Outcome{Err: &refused{Stage: smtpc.StageHELO, Reply: said("554 no")}},
			false, "?" + connected + "my name was rejected." + no554, 0},
		{"MAIL, for good", smtpc.Outcome{Recipients: answers{none}, Err: &refused{Stage: smtpc.StageMAIL, Reply: said("554 no"), Permanent: true}},
			true, "D" + connected + "sender was rejected." + no554 + tlsLine + "|", 0},
		{"MAIL", smtpc.Outcome{Recipients: answers{none}, Err: &refused{Stage: smtpc.StageMAIL, Reply: said("554 no")},
			Notes: []smtpc.Note{{Stage: smtpc.StageSTARTTLS, Reply: said("454-not\n454 now")}, {Stage: smtpc.StageMAIL, Reply: said("555 what")}}},
			true, "Z" + connected + "sender was rejected." + no554 + "\nSTARTTLS was refused before: 454-not / 454 now\nMAIL was refused with parameters before: 555 what" + tlsLine + "|", 0},
		{"MAIL, for good, after a note", smtpc.Outcome{Err: &refused{Stage: smtpc.StageMAIL, Reply: said("554 no"), Permanent: true},
			Notes: []smtpc.Note{{Stage: smtpc.StageMAIL, Reply: said("555 what")}}},
			false, "D" + connected + "sender was rejected." + no554 + "|", 0},
		{"all recipients, for good", smtpc.Outcome{Recipients: answers{no, odd}, Begun: true, Err: &refused{Stage: smtpc.StageRCPT, Permanent: true}},
			false, "h" + dislikes + "550 no|hI cannot send to this recipient: there is a control byte in it. (#5.1.3)|DGiving up on 192.0.2.1.|", 0},
		{"all recipients", smtpc.Outcome{Recipients: answers{no, later}, Begun: true, Err: &refused{Stage: smtpc.StageRCPT}},
			true, "h" + dislikes + "550 no|s" + dislikes + "450 later|ZGiving up on 192.0.2.1." + tlsLine + "|", 0},
		{"DATA", smtpc.Outcome{Recipients: answers{ok}, Begun: true, Err: &refused{Stage: smtpc.StageDATA, Reply: said("554 no"), Permanent: true}},
			false, "r|D192.0.2.1 failed on DATA command." + no554 + "|", 0},
		{"the message", smtpc.Outcome{Recipients: answers{ok}, Begun: true, LastByte: true, Err: &refused{Stage: smtpc.StageMessage, Reply: said("452 full")}},
			false, "r|Z192.0.2.1 failed after I sent the message.\nRemote host said: 452 full|", 0},
		{"a group", smtpc.Outcome{Recipients: answers{ok}, Begun: true, Err: &refused{Stage: smtpc.StageDATA, Reply: said("503 no"), Cause: smtpc.ErrStumbled}},
			true, "?" + connected + "a group of commands was not understood. (#4.5.0)\nRemote host said: 503 no", 0},
		{"STARTTLS", smtpc.Outcome{Err: &refused{Stage: smtpc.StageSTARTTLS, Reply: said("454 no"), Cause: smtpc.ErrTLSFailed}},
			false, "?" + noTLS + "STARTTLS was refused. (#4.7.5)\nRemote host said: 454 no", 0},
		{"EHLO in TLS", smtpc.Outcome{Err: &refused{Stage: smtpc.StageEHLO, Reply: said("454 no"), Cause: smtpc.ErrTLSFailed}},
			true, "?" + noTLS + "it refused EHLO inside TLS. (#4.7.5)\nRemote host said: 454 no", 0},

		// Logins.
		{"a login", smtpc.Outcome{Recipients: answers{odd, none}, Err: &login{Place: place, Mechanism: "PLAIN", Reply: smtpc.Reply{Code: 535, Text: "535 no"}}},
			true, "hI cannot send to this recipient: there is a control byte in it. (#5.1.3)|Z" + connected + "the login of control/credentials:3 was refused (PLAIN). (#4.7.8)\nRemote host said: 535 no" + tlsLine + "|", 0},
		{"a login without a proof", smtpc.Outcome{Recipients: answers{none}, Err: &login{Place: place, Mechanism: "SCRAM-SHA-256", Reason: "there is no proof"},
			Notes: []smtpc.Note{{Stage: smtpc.StageSTARTTLS, Reply: said("454 no")}}},
			false, "Z" + connected + "the login of control/credentials:3 was refused (SCRAM-SHA-256). (#4.7.8)\nthere is no proof\nSTARTTLS was refused before: 454 no|", 0},
		{"421 to a login", smtpc.Outcome{Recipients: answers{none}, Err: &login{Place: place, Mechanism: "LOGIN", Reply: smtpc.Reply{Code: 421, Text: "421 busy"}}},
			true, "?" + connected + "the login of control/credentials:3 was refused (LOGIN). (#4.7.8)\nRemote host said: 421 busy", 0},
		{"no login", smtpc.Outcome{Recipients: answers{none}, Err: &smtpc.NoLoginError{Place: place}},
			true, "?" + connected + "it offers no login that control/credentials:3 can use (none). (#4.7.8)", 0},
		{"no mechanism", smtpc.Outcome{Recipients: answers{none}, Err: &smtpc.NoLoginError{Place: place, Offered: "GSSAPI NTLM"}},
			true, "?" + connected + "it offers no login that control/credentials:3 can use (GSSAPI NTLM). (#4.7.8)", 0},
		{"a login without a certificate", smtpc.Outcome{Err: &broken{Stage: smtpc.StageAUTH, Cause: smtpc.ErrTLSFailed, Err: errors.New("a login needs it")}},
			true, "?" + noTLS + "a login needs it. (#4.7.5)", 0},
		{"AUTH lost", smtpc.Outcome{Recipients: answers{none}, Err: &broken{Stage: smtpc.StageAUTH, Err: quiet(smtpc.StageAUTH)}},
			false, "?" + diedText + ": no answer to AUTH within 5 seconds. (#4.4.2)", 0},
		{"AUTH lost after STARTTLS was refused", smtpc.Outcome{Recipients: answers{none}, Err: &broken{Stage: smtpc.StageAUTH, Cause: smtpc.ErrTLSFailed, Err: lost}},
			false, "?" + noTLS + "server refused STARTTLS and ended the connection. (#4.7.5)", 0},

		// Lost before a transaction.
		{"lost", smtpc.Outcome{Recipients: answers{odd, none}, Err: &broken{Stage: smtpc.StageMAIL, Err: lost}}, true, "?" + diedText + ". (#4.4.2)", 0},
		{"silent", smtpc.Outcome{Err: &broken{Stage: smtpc.StageMAIL, Err: quiet(smtpc.StageMAIL)}}, false, "?" + diedText + ": no answer to MAIL within 5 seconds. (#4.4.2)", 0},
		{"EHLO lost", smtpc.Outcome{Err: &broken{Stage: smtpc.StageHELO, Cause: smtpc.ErrEHLOLost, Err: lost},
			Notes: []smtpc.Note{{Stage: smtpc.StageEHLO, Reply: said("502 what")}}},
			false, "?" + diedText + ". (#4.4.2)\nEHLO was refused before: 502 what", 0},
		{"EHLO lost to TLS", smtpc.Outcome{Err: &broken{Stage: smtpc.StageEHLO, Cause: smtpc.ErrEHLOLost, Err: tlsLost},
			Notes: []smtpc.Note{{Stage: smtpc.StageEHLO, Reply: said("502 what")}}},
			true, "?" + diedText + ". (#4.4.2)\nEHLO was refused before: 502 what\nTLS failed: bad record", 0},
		{"a group lost", smtpc.Outcome{Recipients: answers{ok, none}, Begun: true, Err: &broken{Stage: smtpc.StageRCPT, Cause: smtpc.ErrStumbled, Err: quiet(smtpc.StageRCPT)}},
			true, "?" + diedText + ": no answer to RCPT within 5 seconds. (#4.4.2)", 0},
		{"nonsense", smtpc.Outcome{Err: &broken{Stage: smtpc.StageEHLO, Err: nonsense}}, true, "?" + connected + `it sent "hello", which is not a reply. (#4.5.0)`, 0},
		{"long nonsense", smtpc.Outcome{Err: &broken{Stage: smtpc.StageEHLO, Err: &smtpc.ProtocolError{What: strings.Repeat("x", 2000)}}},
			false, "?" + connected + strings.Repeat("x", 1000-len(connected)), 0},

		// Lost after it has begun.
		{"lost, begun", smtpc.Outcome{Recipients: answers{ok, none}, Begun: true, Err: &broken{Stage: smtpc.StageRCPT, Err: lost}}, true, "r|" + died + ". (#4.4.2)" + tlsLine + "|", 0},
		{"silent, after the last byte", smtpc.Outcome{Recipients: answers{ok}, Begun: true, LastByte: true, Err: &broken{Stage: smtpc.StageMessage, Err: quiet(smtpc.StageMessage)}},
			false, "r|" + died + ": no answer to the message within 5 seconds. " + duplicate + "(#4.4.2)|", 0},
		{"TLS broke down", smtpc.Outcome{Recipients: answers{ok}, Begun: true, LastByte: true, Err: &broken{Stage: smtpc.StageMessage, Err: tlsLost}},
			true, "r|" + died + ". " + duplicate + "(#4.4.2)\nTLS failed: bad record" + tlsLine + "|", 0},
		{"nonsense, begun", smtpc.Outcome{Recipients: answers{none}, Begun: true, LastByte: true, Err: &broken{Stage: smtpc.StageMessage, Err: nonsense}},
			false, "Z" + connected + `it sent "hello", which is not a reply. ` + duplicate + "(#4.5.0)|", 0},
		{"a panic while sending", smtpc.Outcome{Recipients: answers{ok}, Begun: true, Err: &broken{Stage: smtpc.StageMessage, Err: errors.New("panic while sending: x")}},
			false, "r|ZInternal error: panic while sending: x. (#4.3.5)|", 0},

		// Without TLS.
		{"not offered", smtpc.Outcome{Err: smtpc.ErrTLSNotOffered}, false, "?" + noTLS + "STARTTLS is not offered. (#4.7.5)", 0},
		{"handshake", smtpc.Outcome{Err: &broken{Stage: smtpc.StageHandshake, Cause: smtpc.ErrTLSFailed, Err: errors.New("certificate has expired")}},
			false, "?" + noTLS + "certificate has expired. (#4.7.5)", 0},
		{"words in front of the handshake", smtpc.Outcome{Err: &broken{Stage: smtpc.StageHandshake, Err: nonsense}},
			false, "?" + noTLS + `it sent "hello", which is not a reply. (#4.7.5)`, 0},
		{"STARTTLS lost", smtpc.Outcome{Err: &broken{Stage: smtpc.StageSTARTTLS, Cause: smtpc.ErrTLSFailed, Err: lost}},
			false, "?" + noTLS + "server ended the connection instead of answering STARTTLS. (#4.7.5)", 0},
		{"STARTTLS not answered", smtpc.Outcome{Err: &broken{Stage: smtpc.StageSTARTTLS, Cause: smtpc.ErrTLSFailed, Err: quiet(smtpc.StageSTARTTLS)}},
			false, "?" + noTLS + "no answer to STARTTLS within 5 seconds. (#4.7.5)", 0},
		{"STARTTLS and nonsense", smtpc.Outcome{Err: &broken{Stage: smtpc.StageSTARTTLS, Cause: smtpc.ErrTLSFailed, Err: nonsense}},
			false, "?" + noTLS + `it sent "hello", which is not a reply. (#4.7.5)`, 0},
		{"EHLO in TLS lost", smtpc.Outcome{Err: &broken{Stage: smtpc.StageEHLO, Cause: smtpc.ErrTLSFailed, Err: lost}},
			true, "?" + noTLS + "server ended the connection inside TLS instead of answering EHLO. (#4.7.5)", 0},
		{"an alert to EHLO in TLS", smtpc.Outcome{Err: &broken{Stage: smtpc.StageEHLO, Cause: smtpc.ErrTLSFailed, Err: tlsLost}},
			true, "?" + noTLS + "bad record. (#4.7.5)", 0},
		{"STARTTLS refused, and lost", smtpc.Outcome{Recipients: answers{none}, Err: &broken{Stage: smtpc.StageMAIL, Cause: smtpc.ErrTLSFailed, Err: lost},
			Notes: []smtpc.Note{{Stage: smtpc.StageSTARTTLS, Reply: said("454 no")}}},
			false, "?" + noTLS + "server refused STARTTLS and ended the connection. (#4.7.5)\nSTARTTLS was refused before: 454 no", 0},

		// What this server cannot take, or none can.
		{"SMTPUTF8", smtpc.Outcome{Err: &smtpc.UTF8Error{}}, false, "?192.0.2.1 cannot take an address that is not ASCII: SMTPUTF8 is not offered. (#5.6.7)", Permanent},
		{"SMTPUTF8, avoided", smtpc.Outcome{Err: &smtpc.UTF8Error{Avoided: true}}, false, "?192.0.2.1 is not asked for SMTPUTF8, which an address that is not ASCII needs. (#4.6.7)", 0},
		{"SMTPUTF8, in the clear", smtpc.Outcome{Err: &smtpc.UTF8Error{Clear: true}}, false, "?192.0.2.1 cannot take an address that is not ASCII: SMTPUTF8 is not offered in the clear. (#4.6.7)", 0},
		{"too large", smtpc.Outcome{Recipients: answers{odd, none}, Err: &smtpc.SizeError{Size: 11, Limit: 10}},
			true, "hI cannot send to this recipient: there is a control byte in it. (#5.1.3)|D192.0.2.1: message of 11 bytes is over the limit of 10. (#5.3.4)" + tlsLine + "|", 0},
		{"a sender", smtpc.Outcome{Err: &smtpc.SenderError{Err: errors.New("there is a control byte in it")}},
			false, "DI cannot send a message with this envelope sender: there is a control byte in it. (#5.1.7)|", 0},
		{"a partial line", smtpc.Outcome{Recipients: answers{none}, Err: smtpc.ErrPartialLine}, false, "DSMTP cannot transfer messages with partial final lines. (#5.6.2)|", 0},
		{"unreadable", smtpc.Outcome{Recipients: answers{ok}, Begun: true, Err: &smtpc.MessageError{Err: errors.New("disk on fire")}},
			false, "r|ZUnable to read message: disk on fire. (#4.3.0)|", 0},

		// Nothing to report.
		{"canceled", smtpc.Outcome{Recipients: answers{none}, Err: canceled}, false, "", 0},
		{"a panic", smtpc.Outcome{Recipients: answers{none}, Begun: true, Err: panicked}, false, "", 0},
		{"a panic after the last byte", smtpc.Outcome{Recipients: answers{ok, odd}, Begun: true, LastByte: true, Err: panicked}, true,
			"r|hI cannot send to this recipient: there is a control byte in it. (#5.1.3)|ZInternal error: panic in the SMTP conversation: x. " + duplicate + "(#4.3.5)" + tlsLine + "|", 0},
		{"a panic of the writer after the last byte", smtpc.Outcome{Recipients: answers{ok}, Begun: true, LastByte: true, Err: &broken{Stage: smtpc.StageMessage, Err: errors.New("panic while sending: x")}},
			false, "r|ZInternal error: panic while sending: x. " + duplicate + "(#4.3.5)|", 0},
	} {
		peer := Peer{IP: "192.0.2.1", Port: 25, Fuse: 20 * time.Second}
		if c.tls {
			peer.TLS = &TLS{Version: "TLSv1.3", Cipher: "C", Verified: true, ServerName: "mx.example.org"}
		}
		stream, err := SMTP(&c.outcome, peer)
		var reason *NoTransaction
		switch {
		case errors.As(err, &reason):
			letter := c.letter
			if letter == 0 {
				letter = Temporary
			}
			if got := "?" + reason.Reason.Text; got != c.want || reason.Reason.Letter != letter || stream.Message.Letter != 0 {
				t.Errorf("%s:\n got %c%s\nwant %c%s", c.name, reason.Reason.Letter, got, letter, c.want)
			}
			if !errors.Is(err, c.outcome.Err) {
				t.Errorf("%s: the cause is lost", c.name)
			}
		case c.want == "":
			if stream.Message.Letter != 0 || err == nil || !errors.Is(c.outcome.Err, err) {
				t.Errorf("%s: %v, error %v", c.name, stream, err)
			}
		case err != nil || inBars(stream) != c.want:
			t.Errorf("%s:\n got %s, error %v\nwant %s", c.name, inBars(stream), err, c.want)
		}
	}
}

// A server on port 465 that does not greet waits for TLS.
func TestSMTP_port465(t *testing.T) {
	const hint = ", and a server on port 465 waits for TLS from the first byte"
	for _, c := range []struct {
		port int
		at   smtpc.Stage
		want bool
	}{{465, smtpc.StageGreeting, true}, {465, smtpc.StageEHLO, false}, {25, smtpc.StageGreeting, false}} {
		_, err := SMTP(&smtpc.Outcome{Err: &smtpc.BrokenError{Stage: c.at, Err: quiet(c.at)}}, Peer{Port: c.port})
		if got := strings.Contains(err.Error(), "within 5 seconds"+hint+". (#4.4.2)"); got != c.want {
			t.Errorf("port %d, %s: %v", c.port, c.at, err)
		}
	}
}

func TestSMTP_fuse(t *testing.T) {
	blown := &smtpc.BrokenError{Stage: smtpc.StageMessage, Err: smtpc.ErrFuse}
	refusal := &smtpc.RefusedError{Stage: smtpc.StageMAIL, Reply: said("550 no"), Permanent: true}
	ok := []smtpc.Answer{{Status: smtpc.Accepted}}
	const took = "Connected to 192.0.2.1 but the conversation took longer than 20 seconds. "
	for _, c := range []struct {
		name    string
		outcome smtpc.Outcome
		begun   bool
		want    string // the stream
		reason  string
	}{
		{"before MAIL", smtpc.Outcome{Recipients: make([]smtpc.Answer, 1), Err: blown}, false, "Z" + took + "(#4.4.2)|", took + "(#4.4.2)"},
		{"in the message", smtpc.Outcome{Recipients: ok, Begun: true, Err: blown,
			Notes: []smtpc.Note{{Stage: smtpc.StageMAIL}}}, true, "r|Z" + took + "(#4.4.2)|", took + "(#4.4.2)"},
		{"after it", smtpc.Outcome{Recipients: ok, Begun: true, LastByte: true, Err: blown}, true,
			"r|Z" + took + "Possible duplicate! (#4.4.2)|", took + "Possible duplicate! (#4.4.2)"},
		{"after a refusal", smtpc.Outcome{Err: refusal, After: blown}, true,
			"DConnected to 192.0.2.1 but sender was rejected.\nRemote host said: 550 no|", took + "(#4.4.2)"},
	} {
		stream, err := SMTP(&c.outcome, Peer{IP: "192.0.2.1", Fuse: 20 * time.Second})
		var fuse *Fuse
		if !errors.As(err, &fuse) || (fuse.Reports != nil) != c.begun || fuse.Reason.Text != c.reason || fuse.Reason.Letter != Temporary || stream.Message.Letter != 0 {
			t.Errorf("%s: error %#v, stream %v", c.name, err, stream)
			continue
		}
		if got := inBars(fuse.Stream()); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// A loss after a refusal is no fuse.
	if _, err := SMTP(&smtpc.Outcome{Err: refusal, After: &smtpc.BrokenError{Err: smtpc.ErrLost}}, Peer{}); err != nil {
		t.Errorf("error %v", err)
	}
}

// The router takes a program's sentence for what it is when it is whole, and for nothing else.
func TestSentence(t *testing.T) {
	f := Facts{IP: "192.0.2.1"}
	for _, c := range []Case{NeedsSMTPUTF8, TLSNotOffered, ConnectionDied} {
		text := New(c, f).Text
		for said, want := range map[string]Case{
			text: c, text + " ": Internal, "a" + text: Internal, text + "\n" + text: Internal, text[:len(text)-1]: Internal, "": Internal,
		} {
			if got := Sentence(said, f); got != want {
				t.Errorf("%q is case %d, want %d", said, got, want)
			}
		}
		if got := Sentence(text, Facts{IP: "192.0.2.2"}); got != Internal {
			t.Errorf("%q for another server is case %d", text, got)
		}
	}
	if got := Sentence(New(GreetingFailed, f).Text, f); got != Internal {
		t.Errorf("a sentence that makes no difference is case %d", got)
	}
}
