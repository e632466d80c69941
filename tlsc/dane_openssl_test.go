package tlsc

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
)

// Setup: one server, which shows what the name asks for that it is sent; openssl s_client,
// with -dane_ee_no_namechecks as Postfix has it; our client.
//
// Test: both reach the same verdict on the same certificates by the same records, but for
// the deliberate differences.

// deliberate are the differences from OpenSSL, each with the verdict that is ours.
var deliberate = map[string]bool{
	// RFC 7671 section 5.2.2 has the authority's certificate sent (RFC 7672 section 3.1.2
	// for mail); OpenSSL takes a bare key for the one above the last that was sent.
	"a key (2 1 0) whose certificate is not sent": false,
	// X509_check_host falls back on the common name where there is no dNSName.
	"the name is a common name": false,
	// OpenSSL does not look at the dates of an authority that a record is about, unless it
	// has signed itself.
	"the authority has expired": false,
}

// difference says which deliberate difference there can be, or "".
func difference(q question) string {
	certificates := strings.Split(q.sent, ";")
	leaf, above := certificates[0], certificates[1:]
	for _, r := range q.records {
		kind, name := r[:5], r[6:]
		sent := slices.Contains(above, name) && name != leaf // to repeat the leaf is not to send more
		switch {
		case kind == "2 1 0" && !sent:
			return "a key (2 1 0) whose certificate is not sent"
		case kind[0] == '2' && leaf == "common name":
			return "the name is a common name"
		case kind[0] == '2' && name == "expired middle" && sent:
			return "the authority has expired"
		}
	}
	return ""
}

// A question is what both are asked. Records are as in daneCase; "short" or "wrong" behind
// one: a byte is missing at the end, or another one.
type question struct {
	sent    string
	records []string
}

func questions() []question {
	kinds := func(usage int) (kinds []string) {
		for selector := range 2 {
			for matching := range 3 {
				kinds = append(kinds, fmt.Sprintf("%d %d %d", usage, selector, matching))
			}
		}
		return kinds
	}
	const withMore = 12 // of the chains below: the first, with which the other questions are asked
	var all []question
	ask := func(sent string, records ...string) { all = append(all, question{sent, records}) }
	for i, sent := range []string{
		"leaf", "leaf;root", "leaf;other", "leaf;namesake", "leaf;namesake;root", "leaf;leaf",
		"wrong name;root", "wildcard;root", "common name;root", "no name;root", "address;root",
		"expired;root", "early;root", "for clients;root",
		"self", "self;self", "self, authority", "self, authority;self, authority", "self, expired, nameless",
		"leaf of middle", "leaf of middle;middle", "leaf of middle;middle;root", "leaf of middle;root", "leaf of middle;root;middle", "leaf of middle;renewed middle",
		"leaf of lower;lower;middle;root", "leaf of lower;lower", "leaf of lower;middle",
		"leaf of expired middle;expired middle;root", "leaf of expired root", "leaf of expired root;expired root",
		"leaf of no authority;no authority", "leaf of no authority;no authority;root",
		"leaf of last;last;root", "leaf of below last;below last;last;root",
		"leaf of constrained;constrained;root", "leaf of permitting;permitting",
	} {
		about := strings.Split(sent, ";")
		if issuer, found := strings.CutPrefix(about[0], "leaf of "); found {
			about = append(about, issuer)
		}
		about = append(about, "root")
		slices.Sort(about)
		for _, name := range slices.Compact(about) {
			for _, kind := range kinds(2) {
				ask(sent, kind+" "+name)
			}
		}
		leaf, _, _ := strings.Cut(sent, ";")
		ask(sent, "3 1 1 "+leaf)
		ask(sent, "3 0 0 "+leaf)
		if i >= withMore {
			continue
		}
		for _, kind := range kinds(3) {
			ask(sent, kind+" "+leaf)
		}
		ask(sent, "3 1 1 other")
		ask(sent, "3 1 1 "+leaf+" short")
		ask(sent, "3 0 2 "+leaf+" wrong")
		ask(sent, "2 1 1 root short")
		ask(sent, "2 0 1 root wrong")
		ask(sent, "2 1 1 other", "3 0 1 "+leaf)
		ask(sent, "3 1 1 "+leaf, "3 1 2 other")         // agility
		ask(sent, "3 1 1 "+leaf, "3 1 2 other short")   // malformed: hides nothing
		ask(sent, "2 0 1 root", "2 0 2 root wrong")     // agility
		ask(sent, "2 0 1 root", "2 1 2 root wrong")     // another selector: hides nothing
		ask(sent, "3 1 1 other", "2 0 0 root")          // both usages
		ask(sent, "2 0 0 root short", "2 0 1 root")     // no certificate
		ask(sent, "2 0 0 other", "2 0 1 root")          // one of two
		ask(sent, "3 1 3 "+leaf, "3 2 1 "+leaf)         // unknown numbers
		ask(sent, "2 1 2 expired middle", "2 1 1 last") // an authority in the middle
	}
	return all
}

// list makes the records of a question.
func (p pki) list(t testing.TB, texts []string) (records []TLSA) {
	for _, text := range texts {
		name, short := strings.CutSuffix(text[6:], " short")
		name, wrong := strings.CutSuffix(name, " wrong")
		r := record(t, text[:5], p.parties(t, name)[0].Cert)
		r.Data = bytes.Clone(r.Data)
		if short {
			r.Data = r.Data[:len(r.Data)-1]
		}
		if wrong {
			r.Data[len(r.Data)-1]++
		}
		records = append(records, r)
	}
	return records
}

func TestDANE_likeOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		peers.Missing(t, "openssl", "openssl is not installed")
	}
	p := newPKI(t)
	all := questions()
	if len(all) < 500 {
		t.Fatalf("%d questions", len(all))
	}
	port := p.serve(t, all)
	var mutex sync.Mutex
	differences, good := map[string]int{}, 0
	compare := func(t *testing.T, i int, q question) {
		list := p.list(t, q.records)
		theirs, said := ask(t, openssl, port, i, list)
		d := &Demand{ServerName: host, Judge: DANE{Records: must.Get(NewRecords(list))(t)}}
		_, ours := handshakeWith(t, &tls.Config{Certificates: []tls.Certificate{p.pair(t, q.sent)}}, trusting(""), d)
		mutex.Lock()
		defer mutex.Unlock()
		if ours == nil {
			good++
		}
		if (ours == nil) == theirs {
			return
		}
		why := difference(q)
		if wanted, known := deliberate[why]; !known || wanted != (ours == nil) {
			t.Errorf("%v; openssl %v:\n%s", ours, theirs, said)
		}
		differences[why]++
	}
	t.Run("question", func(t *testing.T) {
		for i, q := range all {
			t.Run(fmt.Sprintf("%s by %s", q.sent, strings.Join(q.records, ", ")), func(t *testing.T) {
				t.Parallel()
				compare(t, i, q)
			})
		}
	})
	for why := range deliberate {
		if differences[why] == 0 {
			t.Errorf("no difference any more: %s", why)
		}
	}
	t.Logf("%d questions, %d good, differences: %v", len(all), good, differences)
}

// serve is a server that shows the certificates of question N to who wants those of
// "qN.example". It returns its port.
func (p pki) serve(t *testing.T, all []question) (port string) {
	config := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		number, _, _ := strings.Cut(strings.TrimPrefix(hello.ServerName, "q"), ".")
		i, err := strconv.Atoi(number)
		if err != nil || i >= len(all) {
			return nil, fmt.Errorf("nobody is called %q", hello.ServerName)
		}
		pair := p.pair(t, all[i].sent)
		return &pair, nil
	}}
	listener := must.Get(tls.Listen("tcp", "127.0.0.1:0", config))(t)
	var served sync.WaitGroup
	t.Cleanup(func() { listener.Close(); served.Wait() })
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port
}

// ask asks OpenSSL, and returns whether it is content and what it says.
func ask(t *testing.T, openssl, port string, i int, records []TLSA) (content bool, said string) {
	args := []string{"s_client", "-brief", "-connect", "127.0.0.1:" + port, "-servername", fmt.Sprintf("q%d.example", i),
		"-dane_tlsa_domain", host, "-dane_ee_no_namechecks", "-verify_return_error", "-attime", strconv.FormatInt(testNow.Unix(), 10),
		"-no-CAfile", "-no-CApath", "-no-CAstore"}
	for _, r := range records {
		args = append(args, "-dane_tlsa_rrdata", r.String())
	}
	cmd := exec.Command(openssl, args...)
	cmd.Env = append(os.Environ(), "OPENSSL_CONF=/dev/null")
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
	return err == nil, string(out)
}
