package smtpc_test

import (
	"fmt"
	"strings"
	"testing"

	"nightmare.mail/mxf/control/avoid"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// replies is the Act of a server that answers each phase with the first reply that it
// has left for it.
func replies(all map[smtptest.Phase][]string) func(smtptest.Point) smtptest.Action {
	return func(p smtptest.Point) smtptest.Action {
		if p.N < len(all[p.Phase]) && all[p.Phase][p.N] != "" {
			return smtptest.Action{Reply: all[p.Phase][p.N]}
		}
		return smtptest.Action{}
	}
}

// TestGroups has a group of commands answered in every way that is, or is not, a server
// that stumbles.
func TestGroups(t *testing.T) {
	t.Parallel()
	type answers = map[smtptest.Phase][]string
	const (
		mail, rcpt, data = smtptest.MAIL, smtptest.RCPT, smtptest.DATA
		stumbled         = 77
	)
	rejected := func(letter, said string) string {
		return letter + "Connected to 192.0.2.1 but sender was rejected.\nRemote host said: " + said
	}
	for _, c := range []struct {
		answers answers
		exit    int
		want    string // in the reports, or the reason
		verbs   string
	}{
		// Not understood.
		{answers{mail: {"500 what"}, rcpt: {"503 first MAIL", "503 first MAIL"}, data: {"503 first RCPT"}}, stumbled, "not understood", "QUIT"},
		{answers{mail: {"503 no"}}, stumbled, "503 no", ""},
		{answers{rcpt: {"501 what"}, data: {"503 no"}}, stumbled, "501 what", "QUIT"},
		{answers{rcpt: {"", "504 what"}}, stumbled, "504 what", ""}, // and 354: no byte, and no QUIT, which would be one
		{answers{rcpt: {"", "503 one is enough"}}, stumbled, "503 one is enough", ""},
		{answers{data: {"502 no"}}, stumbled, "502 no", "QUIT"},
		{answers{rcpt: {"", "550 no"}, data: {"503 no"}}, stumbled, "503 no", "QUIT"},
		// Understood: what was refused makes what follows out of order.
		{answers{mail: {"550 no"}, rcpt: {"503 x", "502 x"}, data: {"503 x"}}, 0, rejected("D", "550 no"), "QUIT"},
		{answers{mail: {"451 no"}, rcpt: {"500 x", "503 x"}, data: {"500 x"}}, 0, rejected("Z", "451 no"), "QUIT"},
		{answers{rcpt: {"550 a", "550 b"}, data: {"503 x"}}, 0, "DGiving up", "QUIT"},
		{answers{rcpt: {"550 a", "450 b"}, data: {"502 x"}}, 0, "ZGiving up", "QUIT"},
		{answers{rcpt: {"550 a", "503 b"}, data: {"503 x"}}, 0, "DGiving up", "QUIT"}, // the one before was refused
		{answers{data: {"554 no"}}, 0, "Dfailed", "QUIT"},
		{answers{mail: {"555 no parameters were sent"}, rcpt: {"503 x", "503 x"}, data: {"503 x"}}, 0, rejected("D", "555 no"), "QUIT"},
		// 421 says that the server leaves.
		{answers{mail: {"421 away"}, rcpt: {"503 x", "503 x"}, data: {"500 x"}}, 0, rejected("Z", "421 away"), "QUIT"},
		{answers{rcpt: {"421 away", "500 x"}, data: {"500 x"}}, 0, "ZGiving up", "QUIT"},
	} {
		server := &smtptest.Server{Extensions: []string{"PIPELINING"}, Act: replies(c.answers)}
		r, seen := talk(t, server, newJob(2))
		got := r.reports + r.reason
		want := strings.Replace(c.want, "Dfailed", "D192.0.2.1 failed on DATA command.", 1)
		if r.exit != c.exit || !strings.Contains(got, want) || (r.reports == "") != (c.exit != 0) {
			t.Errorf("%v: %v", c.answers, r)
		}
		if last := verbs(seen); !strings.HasSuffix(last, c.verbs) || c.verbs == "" && strings.Contains(last, "QUIT") {
			t.Errorf("%v: server saw %q", c.answers, seen.Commands)
		}
		if len(seen.Message) > 0 || seen.Accepted {
			t.Errorf("%v: the message was sent", c.answers)
		}
	}
}

// TestParametersRefused has MAIL refused for its parameters, or not for them.
func TestParametersRefused(t *testing.T) {
	t.Parallel()
	const params = " SIZE=3 BODY=8BITMIME"
	for _, c := range []struct {
		extensions string
		first      string // the answer to MAIL
		second     string // the answer to the second MAIL, empty: accepted
		data       string // the first answer to DATA
		sender     string
		exit       int
		want       string
		mails      []string
	}{
		{"SIZE\n8BITMIME", "501 5.1.7 bad", "", "", "a@x", 0, "K", []string{params, ""}},
		{"SIZE\n8BITMIME", "504 bad", "", "", "a@x", 0, "K", []string{params, ""}},
		{"SIZE\n8BITMIME", "555 bad", "", "", "a@x", 0, "K", []string{params, ""}},
		{"SIZE\n8BITMIME", "555 bad", "550 you", "", "a@x", 0, "DConnected", []string{params, ""}},
		{"SIZE\n8BITMIME", "550 you", "", "", "a@x", 0, "DConnected", []string{params}},
		{"SIZE\n8BITMIME", "552 5.3.4 big", "", "", "a@x", 0, "DConnected", []string{params}},
		{"", "501 you", "", "", "a@x", 0, "DConnected", []string{""}},
		{"SIZE\n8BITMIME\nPIPELINING", "555 bad", "", "503 no", "a@x", 0, "K", []string{params, ""}},
		{"SIZE\n8BITMIME\nPIPELINING", "501 bad", "501 still", "503 no", "a@x", 77, "501 still", []string{params, ""}},
		{"SIZE\n8BITMIME\nPIPELINING", "555 bad", "", "354 go", "a@x", 77, "555 bad", []string{params}},
		// SMTPUTF8 stays, and its refusal is no verdict either.
		{"SIZE\n8BITMIME\nSMTPUTF8", "555 bad", "", "", "\u00e9@x", 0, "K", []string{params + " SMTPUTF8", " SMTPUTF8"}},
		{"SIZE\n8BITMIME\nSMTPUTF8", "555 bad", "555 bad", "", "\u00e9@x", 77, "555 bad", []string{params + " SMTPUTF8", " SMTPUTF8"}},
		{"SMTPUTF8", "501 bad", "", "", "\u00e9@x", 0, "ZConnected", []string{" SMTPUTF8"}},
		{"SMTPUTF8", "550 you", "", "", "\u00e9@x", 0, "DConnected", []string{" SMTPUTF8"}},
	} {
		server := &smtptest.Server{Extensions: strings.Fields(c.extensions), Act: replies(map[smtptest.Phase][]string{
			smtptest.MAIL: {c.first, c.second}, smtptest.DATA: {c.data},
		})}
		job := newJob(1)
		job.Sender, job.Message = c.sender, strings.NewReader("\x80\n")
		r, seen := talk(t, server, job)
		if r.exit != c.exit || !strings.Contains(r.reports+r.reason, c.want) {
			t.Errorf("%q %q: %v", c.extensions, c.first, r)
		}
		var mails []string
		for _, command := range seen.Commands {
			if rest, ok := strings.CutPrefix(command, "MAIL FROM:<"+c.sender+">"); ok {
				mails = append(mails, rest)
			}
		}
		if fmt.Sprintf("%q", mails) != fmt.Sprintf("%q", c.mails) {
			t.Errorf("%q %q: server saw %q", c.extensions, c.first, mails)
		}
		if strings.Contains(r.reports, "Z") && len(c.mails) > 1 && !strings.Contains(r.reports, "MAIL was refused with parameters before: "+c.first) {
			t.Errorf("%q %q: the step is not told: %q", c.extensions, c.first, r.reports)
		}
	}
}

// A refusal of STARTTLS and a hang-up are a want of TLS, in a group of commands too.
func TestSTARTTLSRefusedThenGone(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{nil, {"PIPELINING"}} {
		server := &smtptest.Server{Extensions: extensions, TLS: serverTLS()}
		server.Act = smtptest.At(smtptest.STARTTLS, smtptest.Action{Reply: "454 not now", Close: true})
		job := newJob(2)
		job.Secure = true
		r, _ := talk(t, server, job)
		const want = "server refused STARTTLS and ended the connection. (#4.7.5)\nSTARTTLS was refused before: 454 not now"
		if r.exit != 76 || !strings.Contains(r.reason, want) {
			t.Errorf("%q: %v", extensions, r)
		}
	}
}

// TestClearTextAfterTLSFailed has refusals that TLS might have spared.
func TestClearTextAfterTLSFailed(t *testing.T) {
	for _, c := range []struct {
		phase  smtptest.Phase
		reply  string
		letter string
	}{
		{smtptest.MAIL, "550 5.1.8 who", "Z"},
		{smtptest.MAIL, "530 first STARTTLS", "Z"},
		{smtptest.RCPT, "530 first STARTTLS", "s"},
		{smtptest.RCPT, "550 5.7.1 no", "s"},
		{smtptest.RCPT, "550-5.7.1 no\n550 really", "s"},
		{smtptest.RCPT, "550 5.1.1 nobody", "h"},
		{smtptest.DATA, "530 first STARTTLS", "Z"},
		{smtptest.DATA, "554 5.5.1 no", "D"},
		{smtptest.Message, "550 5.7.10 encrypt", "Z"},
		{smtptest.Message, "550 5.6.0 no", "D"},
	} {
		for _, failed := range []bool{true, false} {
			want := c.letter
			if !failed {
				want = strings.NewReplacer("Z", "D", "s", "h").Replace(want)
			}
			job := newJob(1)
			job.TLS, job.TLSFailed = smtpc.Never, failed
			r, _ := talk(t, &smtptest.Server{Act: at(c.phase, c.reply)}, job)
			if r.exit != 0 || !strings.HasPrefix(strings.TrimPrefix(r.reports, "r\x00"), want) {
				t.Errorf("TLS failed: %v, %s %q: %v, want %s", failed, c.phase, c.reply, r, want)
			}
		}
	}
}

func TestAvoid(t *testing.T) {
	all := []string{"PIPELINING", "SIZE 1", "8BITMIME", "SMTPUTF8"}
	for words, want := range map[string]string{
		"PIPELINING,SIZE,8BITMIME": "EHLO|MAIL FROM:<sender@example.net>|RCPT|DATA|QUIT",
		"SIZE,8BITMIME":            "EHLO|MAIL FROM:<sender@example.net>|RCPT|DATA|QUIT",
		"EHLO":                     "HELO|MAIL FROM:<sender@example.net>|RCPT|DATA|QUIT",
		"SIZE":                     "EHLO|MAIL FROM:<sender@example.net> BODY=8BITMIME|RCPT|DATA|QUIT",
	} {
		set, err := avoid.Parse(words)
		if err != nil || set.String() != words {
			t.Fatalf("%q: %v, %v", words, set, err)
		}
		job := newJob(1)
		job.Avoid, job.Message = set, strings.NewReader("\xe9\n")
		r, seen := talk(t, &smtptest.Server{Extensions: all}, job)
		wantReports(t, r, "r\x00"+accepted)
		var got []string
		for _, command := range seen.Commands {
			if !strings.HasPrefix(command, "MAIL") {
				command, _, _ = strings.Cut(command, " ")
			}
			got = append(got, command)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q: server saw %q", words, got)
		}
		if turns := strings.Contains(words, "PIPELINING"); turns && set.Or(smtpc.OneByOne) != set {
			t.Errorf("%q is plain", words)
		}
	}

	// Our own wish is no verdict on an address.
	job := newJob(1)
	job.Recipients, job.Avoid = []string{"jos\u00e9@x.example"}, smtpc.Avoid{SMTPUTF8: true}
	r, _ := talk(t, &smtptest.Server{Extensions: all}, job)
	if r.exit != 75 || !strings.Contains(r.reason, "(#4.6.7)") {
		t.Errorf("%v", r)
	}
}
