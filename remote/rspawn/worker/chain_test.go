package worker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/qmtpc/qmtptest"
	"nightmare.mail/mxf/remote/dns/dnstest"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// A program of a chain gets one recipient, whoever was to go with it, and its connection is not kept.
func TestChain(t *testing.T) {
	g := newGate(t, nil, nil)
	folder := t.TempDir()
	client := filepath.Join(folder, "client")
	must.Script(t, client, `shift 2; echo "$@" >>'`+folder+`/recipients'; printf 'r\0Kok\0'`)
	h := newHost(t, g.at, map[string]string{"protocols": "smtp:25:0:N:N:" + client})
	g.unbar()
	message := h.message(text)
	for n := range 5 {
		h.deliver(message, fmt.Sprintf("r%d@example.org", n))
	}
	h.wait(t, 5)
	for id, a := range h.answers {
		if a.Letter != 'K' || !h.last[id] {
			t.Errorf("%d: %c%s\n%s", id, a.Letter, a.Text, h.traced())
		}
	}
	lines := strings.Split(strings.TrimSpace(string(must.Get(os.ReadFile(filepath.Join(folder, "recipients")))(t))), "\n")
	slices.Sort(lines)
	for n, line := range lines {
		if !strings.HasSuffix(line, fmt.Sprintf("r%d@example.org", n)) || strings.Count(line, "@example.org") != 1 {
			t.Errorf("%q", lines)
		}
	}
	if c := h.Counters(); len(lines) != 5 || c.Idle != 0 || c.Busy != 0 {
		t.Errorf("%q, %+v", lines, c)
	}
}

// A party that has been begun by this process, whose next exchanger is for a program, and the one after it for
// this process again: everyone is delivered to once.
func TestChain_between(t *testing.T) {
	folder := t.TempDir()
	client := filepath.Join(folder, "client")
	must.Script(t, client, `echo x >>'`+folder+`/runs'; exit 75`)
	g := newGate(t, []string{"PIPELINING"}, func(e *smtptest.Exchange) smtptest.Action {
		if e.Phase == smtptest.MAIL {
			return hangUp
		}
		return smtptest.Action{}
	})
	_, port, _ := strings.Cut(g.at, ":")
	good := &smtptest.Server{Extensions: []string{"PIPELINING"}}
	smtptest.ListenAt(t, "127.0.0.3:"+port, good.Serve)
	_, other, _ := strings.Cut(smtptest.ListenAt(t, "127.0.0.2:0", func(c *smtptest.Conn) { c.Hold() }), ":")
	names := dnstest.New(t, `
example.org. MX 16 mx1.example.org.
example.org. MX 12801 mx2.example.org.
example.org. MX 12816 mx3.example.org.
mx1.example.org. A 127.0.0.1
mx2.example.org. A 127.0.0.2
mx3.example.org. A 127.0.0.3
`, nil)
	h := setup{resolver: names.Addr.String()}.newHost(t, "", map[string]string{
		"ipme": "192.0.2.1", "protocols": fmt.Sprintf("smtp:%s:0:N:N:mxf-remote-smtpc\nalt:%s:1:N:N:%s\n", port, other, client)})
	answers := h.group(g, 0, "a", "b", "c", "d")
	if letters(answers) != "KKKK" {
		t.Errorf("got %q\n%s", answers, h.traced())
	}
	h.Stop()
	h.Wait()
	var all []string
	must.Until(t, "all recipients", func() bool {
		all = nil
		for _, c := range good.Conversations() {
			for _, command := range c.Commands {
				if address, _, ok := smtptest.Path(command); ok && strings.HasPrefix(command, "RCPT") {
					all = append(all, address)
				}
			}
		}
		return len(all) >= 4
	})
	slices.Sort(all)
	if fmt.Sprint(all) != "[a@example.org b@example.org c@example.org d@example.org]" {
		t.Errorf("%q", all)
	}
	if runs := must.Get(os.ReadFile(filepath.Join(folder, "runs")))(t); len(runs) != 2*4 {
		t.Errorf("the program ran %d times", len(runs)/2)
	}
}

// QMTP has one package for a party, and one package a connection.
func TestQMTP(t *testing.T) {
	came, joined := make(chan struct{}, 9), make(chan struct{})
	server := must.Get(qmtptest.Start(func(c *qmtptest.Conn) error {
		came <- struct{}{}
		<-joined
		p, err := c.Package()
		if err != nil {
			return err
		}
		var answers []string
		for _, r := range p.Recipients {
			switch r[0] {
			case 'd':
				answers = append(answers, "Dno")
			case 'z':
				answers = append(answers, "Zlater")
			default:
				answers = append(answers, "Kok")
			}
		}
		return c.Say(answers...)
	}))(t)
	defer server.Close()
	h := newHost(t, "", map[string]string{"protocols": "qmtp:209:0:N:N:mxf-remote-qmtpc", "qmtproutes": ":" + server.Addr(), "connectionlimits": ":1\n"})
	before := h.deliver(h.message(text), "before@example.org")
	<-came
	must.Until(t, "its package", func() bool { return h.joined() == 0 })
	message := h.message(text)
	for n, r := range []string{"a", "d", "z", "b"} {
		h.deliver(message, r+"@example.org")
		must.Until(t, "the order", func() bool { return h.joined() == n+1 })
	}
	close(joined)
	h.wait(t, 5)
	for n, want := range []byte("KDZK") {
		id := before + 1 + uint64(n)
		a := h.answers[id]
		if a.Letter != want || !h.last[id] {
			t.Errorf("%d: %c%s\n%s", id, a.Letter, a.Text, h.traced())
		}
	}
	h.send("c@example.org")
	packages := server.Packages()
	if len(packages) != 3 || fmt.Sprint(packages[1].Recipients) != "[a@example.org d@example.org z@example.org b@example.org]" {
		t.Errorf("%q", packages)
	}
	if c := h.Counters(); c.Idle != 0 || c.Busy != 0 || c.New != 3 {
		t.Errorf("%+v", c)
	}
}
