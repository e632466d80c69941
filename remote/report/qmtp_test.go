package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/qmtpc"
)

// inBars is a stream as it goes to descriptor 1, with | for the end of a report.
func inBars(s Stream) string {
	return strings.NewReplacer("\n\x00", "|", "\x00", "|").Replace(string(s.Bytes()))
}

// brokeBy is the error of a conversation that ended for err and lost the connection.
func brokeBy(err error) error { return &qmtpc.BrokenError{Err: errors.Join(err, io.EOF)} }

// A tlsFault is an error of a TLS client.
type tlsFault string

func (f tlsFault) Error() string      { return "tls: " + string(f) }
func (f tlsFault) TLSFailure() string { return string(f) }

// Outcomes with a complete stream.
func TestQMTP(t *testing.T) {
	type answers = []qmtpc.Answer
	ok, later, no, none := qmtpc.Answer{Status: qmtpc.Accepted, Text: "ok"}, qmtpc.Answer{Status: qmtpc.Deferred, Text: "later"},
		qmtpc.Answer{Status: qmtpc.Refused, Text: "no"}, qmtpc.Answer{}
	nonsense := brokeBy(&qmtpc.ProtocolError{Seen: "' ' in a netstring's length"})
	changed := &qmtpc.MessageError{Err: fmt.Errorf("%w: 2 bytes were announced, 1 are there", qmtpc.ErrChanged)}
	const (
		dislikes  = "192.0.2.1 does not like recipient.\nRemote host said: "
		died      = "ZConnected to 192.0.2.1 but connection died. "
		notQMTP   = "ZConnected to 192.0.2.1 but its answer is not QMTP: ' ' in a netstring's length. "
		duplicate = "Possible duplicate! "
		tlsLine   = "\nTLS: TLSv1.3 C verified mx.example.org|"
	)
	for _, c := range []struct {
		name    string
		outcome qmtpc.Outcome
		want    string // in TLS, when it ends in the line on TLS
	}{
		{"accepted", qmtpc.Outcome{Recipients: answers{ok}, FirstByte: true, LastByte: true, Heard: true}, "r|K192.0.2.1 accepted message.\nRemote host said: ok|"},
		{"accepted in TLS", qmtpc.Outcome{Recipients: answers{ok}, FirstByte: true, LastByte: true, Heard: true}, "r|K192.0.2.1 accepted message.\nRemote host said: ok" + tlsLine},
		{"refused in TLS", qmtpc.Outcome{Recipients: answers{no}, FirstByte: true, LastByte: true, Heard: true}, "h" + dislikes + "no|DGiving up on 192.0.2.1." + tlsLine},
		{"lost in TLS", qmtpc.Outcome{Recipients: answers{none}, FirstByte: true, LastByte: true, Err: brokeBy(nil)}, died + duplicate + "(#4.4.2)" + tlsLine},
		{"TLS failed", qmtpc.Outcome{Recipients: answers{none}, FirstByte: true, LastByte: true, Err: brokeBy(tlsFault("bad record"))}, died + duplicate + "(#4.4.2)\nTLS failed: bad record|"},

		{"half an answer before", qmtpc.Outcome{Recipients: answers{none, none}, FirstByte: true, Heard: true, Err: brokeBy(nil)}, died + "(#4.4.2)|"},
		{"one refusal before", qmtpc.Outcome{Recipients: answers{no, none}, FirstByte: true, Heard: true, Err: brokeBy(nil)}, "h" + dislikes + "no|" + died + "(#4.4.2)|"},
		{"nonsense before", qmtpc.Outcome{Recipients: answers{none, none}, FirstByte: true, Heard: true, Err: nonsense}, notQMTP + "(#4.5.0)|"},
		{"both refused before", qmtpc.Outcome{Recipients: answers{no, no}, FirstByte: true, Heard: true}, "h" + dislikes + "no|h" + dislikes + "no|DGiving up on 192.0.2.1.|"},
		{"both accepted before", qmtpc.Outcome{Recipients: answers{ok, ok}, FirstByte: true, Heard: true, Err: brokeBy(nil)}, "r|r|" + died + duplicate + "(#4.4.2)|"},
		{"one accepted before", qmtpc.Outcome{Recipients: answers{ok, no}, FirstByte: true, Heard: true, Err: brokeBy(nil)}, "r|h" + dislikes + "no|" + died + duplicate + "(#4.4.2)|"},
		{"no byte after", qmtpc.Outcome{Recipients: answers{none, none}, FirstByte: true, LastByte: true, Err: brokeBy(nil)}, died + duplicate + "(#4.4.2)|"},
		{"one acceptance after", qmtpc.Outcome{Recipients: answers{ok, none}, FirstByte: true, LastByte: true, Heard: true, Err: brokeBy(nil)}, "r|" + died + duplicate + "(#4.4.2)|"},
		{"one deferral after", qmtpc.Outcome{Recipients: answers{later, none}, FirstByte: true, LastByte: true, Heard: true, Err: brokeBy(nil)}, "s" + dislikes + "later|" + died + duplicate + "(#4.4.2)|"},
		{"nonsense after", qmtpc.Outcome{Recipients: answers{none, none}, FirstByte: true, LastByte: true, Heard: true, Err: nonsense}, notQMTP + duplicate + "(#4.5.0)|"},
		{"nonsense after an acceptance", qmtpc.Outcome{Recipients: answers{ok, none}, FirstByte: true, LastByte: true, Heard: true, Err: nonsense}, "r|" + notQMTP + duplicate + "(#4.5.0)|"},
		{"cancelled", qmtpc.Outcome{Recipients: answers{none}, FirstByte: true, LastByte: true, Err: brokeBy(context.Canceled)}, died + duplicate + "(#4.4.2)|"},
		{"deaf", qmtpc.Outcome{Recipients: answers{ok, none}, FirstByte: true, Heard: true, Err: brokeBy(qmtpc.ErrDeaf)}, "r|" + died + duplicate + "(#4.4.2)|"},

		{"unreadable", qmtpc.Outcome{Err: &qmtpc.MessageError{Err: errors.New("input/output error")}}, "ZUnable to read message: input/output error. (#4.3.0)|"},
		{"unreadable in TLS", qmtpc.Outcome{Err: &qmtpc.MessageError{Err: errors.New("input/output error")}}, "ZUnable to read message: input/output error. (#4.3.0)" + tlsLine},
		{"too long to spool", qmtpc.Outcome{Err: fmt.Errorf("spooling the message: %w", &qmtpc.MessageError{Err: errors.New("too long")})}, "ZUnable to read message: too long. (#4.3.0)|"},
		{"changed", qmtpc.Outcome{Recipients: answers{no, none}, FirstByte: true, Heard: true, Err: changed},
			"h" + dislikes + "no|ZUnable to read message: it changed while it was sent: 2 bytes were announced, 1 are there. (#4.3.0)|"},
		{"a bug", qmtpc.Outcome{Recipients: answers{none}, Err: errors.New("panic: x")}, "ZInternal error: panic: x. (#4.3.5)|"},
		{"a bug after the last byte", qmtpc.Outcome{Recipients: answers{none}, FirstByte: true, LastByte: true, Err: errors.New("panic: x")}, "ZInternal error: panic: x. Possible duplicate! (#4.3.5)|"},
		{"nothing is known", qmtpc.Outcome{}, "ZGiving up on 192.0.2.1.|"},

		{"foreign text", qmtpc.Outcome{Recipients: answers{{Status: qmtpc.Accepted, Text: "a\x00b\x1b[2J\r\n\xff"},
			{Status: qmtpc.Refused, Text: strings.Repeat("\x01y", 4999)}, {Status: qmtpc.Deferred}}, FirstByte: true, LastByte: true, Heard: true},
			"r|h" + dislikes + strings.Repeat("?y", 2500) + "|s192.0.2.1 does not like recipient.|K192.0.2.1 accepted message.\nRemote host said: a?b?[2J\n\xff|"},
	} {
		peer := Peer{IP: "192.0.2.1", Fuse: time.Minute}
		if strings.HasSuffix(c.want, tlsLine) {
			peer.TLS = &TLS{Version: "TLSv1.3", Cipher: "C", Verified: true, ServerName: "mx.example.org"}
		}
		stream, err := QMTP(&c.outcome, peer)
		if got := inBars(stream); err != nil || got != c.want {
			t.Errorf("%s: error %v, reports\n %q, want\n %q", c.name, err, got, c.want)
		}
	}
}

// Every mixture of acceptances and refusals, against the rule as the specification
// words it.
func TestQMTP_mixtures(t *testing.T) {
	mixtures := []string{""}
	for i := 0; len(mixtures[i]) < 4; i++ {
		mixtures = append(mixtures, mixtures[i]+"r", mixtures[i]+"s", mixtures[i]+"h")
	}
	status := map[rune]qmtpc.Status{'r': qmtpc.Accepted, 's': qmtpc.Deferred, 'h': qmtpc.Refused}
	for _, mixture := range mixtures[1:] {
		o, want := qmtpc.Outcome{FirstByte: true, LastByte: true, Heard: true}, ""
		for i, letter := range mixture {
			o.Recipients = append(o.Recipients, qmtpc.Answer{Status: status[letter], Text: fmt.Sprint("because ", i)})
			if want += string(letter); letter != 'r' {
				want += fmt.Sprint("192.0.2.1 does not like recipient.\nRemote host said: because ", i)
			}
			want += "|"
		}
		switch first := strings.IndexByte(mixture, 'r'); {
		case first >= 0:
			want += fmt.Sprint("K192.0.2.1 accepted message.\nRemote host said: because ", first, "|")
		case strings.Trim(mixture, "h") == "":
			want += "DGiving up on 192.0.2.1.|"
		default:
			want += "ZGiving up on 192.0.2.1.|"
		}
		stream, err := QMTP(&o, Peer{IP: "192.0.2.1"})
		if got := inBars(stream); err != nil || got != want {
			t.Errorf("%s: error %v, reports\n %q, want\n %q", mixture, err, got, want)
		}
	}
}

// Outcomes after which another server may be tried, or of a fuse, or of this machine.
func TestQMTP_errors(t *testing.T) {
	ok := qmtpc.Answer{Status: qmtpc.Accepted, Text: "ok"}
	tls := &TLS{Version: "TLSv1.3", Cipher: "C", ServerName: "mx.example.org"}
	const (
		died    = "Connected to unknown but connection died. (#4.4.2)"
		took    = "Connected to unknown but the conversation took longer than 2 seconds. "
		tlsLine = "\nTLS: TLSv1.3 C unverified mx.example.org"
	)
	spool := fmt.Errorf("spooling the message: %w", io.ErrShortWrite)
	for _, c := range []struct {
		name    string
		outcome qmtpc.Outcome
		is      any    // a type of the error
		cause   error  // what the error wraps, nil for nothing
		text    string // the error's
		reports string
	}{
		{"lost", qmtpc.Outcome{Recipients: make([]qmtpc.Answer, 1), FirstByte: true, Err: brokeBy(nil)}, new(*NoTransaction), io.EOF, died, ""},
		{"lost before the first byte", qmtpc.Outcome{Recipients: make([]qmtpc.Answer, 1), Err: brokeBy(nil)}, new(*NoTransaction), io.EOF, died, ""},
		{"deaf", qmtpc.Outcome{Recipients: make([]qmtpc.Answer, 1), FirstByte: true, Err: brokeBy(qmtpc.ErrDeaf)}, new(*NoTransaction), qmtpc.ErrDeaf, died, ""},
		{"TLS failed", qmtpc.Outcome{Recipients: make([]qmtpc.Answer, 1), FirstByte: true, Err: brokeBy(tlsFault("certificate required"))}, new(*NoTransaction),
			tlsFault("certificate required"), died + "\nTLS failed: certificate required", ""},

		{"fuse after the package", qmtpc.Outcome{Recipients: make([]qmtpc.Answer, 2), FirstByte: true, LastByte: true, Err: brokeBy(qmtpc.ErrFuse)},
			new(*Fuse), nil, took + "Possible duplicate! (#4.4.2)" + tlsLine, "Z" + took + "Possible duplicate! (#4.4.2)" + tlsLine + "|"},
		{"fuse after one answer", qmtpc.Outcome{Recipients: []qmtpc.Answer{ok, {}}, FirstByte: true, LastByte: true, Heard: true, Err: brokeBy(qmtpc.ErrFuse)},
			new(*Fuse), nil, took + "Possible duplicate! (#4.4.2)" + tlsLine, "r|Z" + took + "Possible duplicate! (#4.4.2)" + tlsLine + "|"},
		{"fuse, and accepted before", qmtpc.Outcome{Recipients: []qmtpc.Answer{ok}, FirstByte: true, Heard: true, Err: brokeBy(qmtpc.ErrFuse)},
			new(*Fuse), nil, took + "Possible duplicate! (#4.4.2)" + tlsLine, "r|Z" + took + "Possible duplicate! (#4.4.2)" + tlsLine + "|"},
		{"fuse before the end", qmtpc.Outcome{Recipients: make([]qmtpc.Answer, 2), FirstByte: true, Err: brokeBy(qmtpc.ErrFuse)},
			new(*Fuse), nil, took + "(#4.4.2)" + tlsLine, "Z" + took + "(#4.4.2)" + tlsLine + "|"},
		{"fuse before TLS failed", qmtpc.Outcome{Recipients: make([]qmtpc.Answer, 2), FirstByte: true, Err: brokeBy(errors.Join(qmtpc.ErrFuse, tlsFault("x")))},
			new(*Fuse), nil, took + "(#4.4.2)" + tlsLine, "Z" + took + "(#4.4.2)" + tlsLine + "|"},
		{"fuse before the first byte", qmtpc.Outcome{Err: qmtpc.ErrFuse}, new(*Fuse), nil, took + "(#4.4.2)", ""},

		{"no room for the spool", qmtpc.Outcome{Err: spool}, new(error), io.ErrShortWrite, spool.Error(), ""},
		{"cancelled before the first byte", qmtpc.Outcome{Err: context.Canceled}, new(error), context.Canceled, "context canceled", ""},
	} {
		stream, err := QMTP(&c.outcome, Peer{Fuse: 2 * time.Second, TLS: tls})
		if !errors.As(err, c.is) || err.Error() != c.text || c.cause != nil && !errors.Is(err, c.cause) {
			t.Errorf("%s: error %v (%T)", c.name, err, err)
			continue
		}
		if !reflect.DeepEqual(stream, Stream{}) {
			t.Errorf("%s: reports %q beside an error", c.name, inBars(stream))
		}
		got := ""
		if fuse, ok := err.(*Fuse); ok && fuse.Reports != nil {
			got = inBars(*fuse.Reports)
		}
		if got != c.reports {
			t.Errorf("%s: reports\n %q, want\n %q", c.name, got, c.reports)
		}
	}
}
