package lab

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Step is a point of a conversation at which a server can misbehave.
type Step string

// The steps, in the order of a conversation.
const (
	Greeting  Step = "greeting"
	EHLO      Step = "ehlo" // the first
	HELO      Step = "helo"
	STARTTLS  Step = "starttls"
	Handshake Step = "handshake" // instead of the server's part of it
	AgainEHLO Step = "tlsehlo"   // EHLO inside TLS
	AUTH      Step = "auth"      // also "auth:plain", for this mechanism alone
	Response  Step = "response"  // a line of ours within a login; also "response:1", the second on a connection
	MAIL      Step = "mail"
	RCPT      Step = "rcpt"
	DATA      Step = "data"
	BDAT      Step = "bdat"
	BigHello  Step = "bighello" // a ClientHello that does not fit into one packet
	Group     Step = "group"    // MAIL with more commands right behind it
	Body      Step = "body"     // when the first bytes of the message have come (QMTP: of the package)
	End       Step = "end"      // after the message's last byte (QMTP: the package's), in place of the answer
	QUIT      Step = "quit"
)

var steps = map[Step]bool{
	Greeting: true, EHLO: true, HELO: true, STARTTLS: true, Handshake: true, AgainEHLO: true, AUTH: true, Response: true, MAIL: true,
	RCPT: true, DATA: true, BDAT: true, BigHello: true, Group: true, Body: true, End: true, QUIT: true,
}

// A Fault is what a server does at a step in place of the right thing. Its parts
// happen in the order of the fields.
type Fault struct {
	Times int           // on the first so many connections only; 0: on all
	Delay time.Duration // first wait
	Reply string        // answer this; \r\n is added, "\n" in it begins a further line
	Spoil bool          // send what cannot be deciphered, and close the connection
	Drop  bool          // close the connection
	Reset bool          // close it with a TCP reset
	Stall bool          // say nothing more, and wait until the client goes
}

// over reports whether the right thing is not done afterwards.
func (f Fault) over() bool { return f.Reply != "" || f.ends() }

func (f Fault) ends() bool { return f.Drop || f.Reset || f.Stall || f.Spoil }

// ParseFault reads "step=word,word,...": spoil, drop, reset, stall, delay:1s, times:2,
// and, as the last one, reply:text.
func ParseFault(text string) (Step, Fault, error) {
	name, rest, _ := strings.Cut(text, "=")
	step := Step(name)
	whole, _, parts := strings.Cut(name, ":")
	if !steps[Step(whole)] || parts && Step(whole) != AUTH && Step(whole) != Response {
		return "", Fault{}, fmt.Errorf("unknown step %q", name)
	}
	var f Fault
	for rest != "" {
		word := rest
		if after, ok := strings.CutPrefix(rest, "reply:"); ok {
			f.Reply = strings.ReplaceAll(after, `\n`, "\n")
			break
		}
		word, rest, _ = strings.Cut(rest, ",")
		if err := f.set(word); err != nil {
			return "", Fault{}, err
		}
	}
	return step, f, nil
}

func (f *Fault) set(word string) (err error) {
	key, value, _ := strings.Cut(word, ":")
	switch key {
	case "spoil":
		f.Spoil = true
	case "drop":
		f.Drop = true
	case "reset":
		f.Reset = true
	case "stall":
		f.Stall = true
	case "delay":
		f.Delay, err = time.ParseDuration(value)
	case "times":
		f.Times, err = strconv.Atoi(value)
	default:
		err = fmt.Errorf("unknown fault %q", word)
	}
	return err
}

// Faults are a server's misbehaviours.
type Faults map[Step]Fault

// at returns the fault for a step of the n-th connection, counted from 1.
func (fs Faults) at(step Step, n int64) (Fault, bool) {
	f, ok := fs[step]
	if !ok || f.Times > 0 && n > int64(f.Times) {
		return Fault{}, false
	}
	return f, true
}

// TLS is how a server does TLS.
type TLS struct {
	Certificate   *tls.Certificate // nil: no TLS
	MinVersion    uint16           // 0: TLS 1.0
	MaxVersion    uint16           // 0: the newest
	CipherSuites  []uint16         // up to TLS 1.2; nil: Go's choice
	RefuseName    bool             // answer any server name with unrecognized_name
	RequestClient bool             // ask for a client certificate
	DemandClient  bool             // and end the connection without one
}

func (t *TLS) config() *tls.Config {
	c := &tls.Config{
		Certificates: []tls.Certificate{*t.Certificate},
		MinVersion:   tls.VersionTLS10,
		MaxVersion:   t.MaxVersion,
		CipherSuites: t.CipherSuites,
	}
	if t.MinVersion != 0 {
		c.MinVersion = t.MinVersion
	}
	if t.RequestClient {
		c.ClientAuth = tls.RequestClientCert
	}
	if t.DemandClient {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	if t.RefuseName {
		// A server without a certificate for the name is what makes
		// crypto/tls send the alert.
		c.Certificates = nil
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName != "" {
				return nil, nil
			}
			return t.Certificate, nil
		}
	}
	return c
}
