package smtpc

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

func bufferOf(text string) *bufio.Reader {
	return bufio.NewReaderSize(strings.NewReader(text), readerSize)
}

func parse(text string) (*reply, error) {
	return readReply(bufferOf(text), asItIs, func(string) {})
}

func asItIs(line string) string { return line }

var goodReplies = []struct {
	text     string
	code     int
	enhanced EnhancedCode
	message  string
}{
	{"250 ok\r\n", 250, EnhancedCode{}, "250 ok"},
	{"250 ok\n", 250, EnhancedCode{}, "250 ok"},
	{"250\r\n", 250, EnhancedCode{}, "250"},
	{"250 \r\n", 250, EnhancedCode{}, "250 "},
	{"\r\n\n250 ok\r\n", 250, EnhancedCode{}, "250 ok"},
	{strings.Repeat("\r\n", maxEmptyLines) + "250 ok\r\n", 250, EnhancedCode{}, "250 ok"},
	{"550-5.7.1 no\r\n550 really\r\n", 550, EnhancedCode{5, 7, 1}, "550-5.7.1 no\n550 really"},
	{"250-a\r\n250 b\r\n", 250, EnhancedCode{}, "250-a\n250 b"},
	{"250-a\n250\n", 250, EnhancedCode{}, "250-a\n250"},
	{"250-\r\n250-\r\n250 x\r\n", 250, EnhancedCode{}, "250-\n250-\n250 x"},
	{"354 go\r\n", 354, EnhancedCode{}, "354 go"},
	{"550 5.1.1 nobody\r\n", 550, EnhancedCode{5, 1, 1}, "550 5.1.1 nobody"},
	{"550 4.1.1 mixed up\r\n", 550, EnhancedCode{}, "550 4.1.1 mixed up"},
	{"550 5.1.1111 long\r\n", 550, EnhancedCode{}, "550 5.1.1111 long"},
	{"599 \x00\xff\r\r\n", 599, EnhancedCode{}, "599 \x00\xff\r"},
	{"250 " + strings.Repeat("x", maxReplyLine-4) + "\r\n", 250, EnhancedCode{}, "250 " + strings.Repeat("x", maxReplyLine-4)},
	{"200 next\r\n250 not looked at", 200, EnhancedCode{}, "200 next"},
}

var badReplies = []string{
	strings.Repeat("\r\n", maxEmptyLines+1) + "250 ok\r\n", // empty lines without end
	"250-a\r\n\r\n250 b\r\n",                               // an empty line in the middle
	"hello\r\n",                                            // no digits
	"25\r\n",                                               // too short
	"25 ok\r\n",                                            // likewise
	"2500 ok\r\n",                                          // four digits
	"150 ok\r\n",                                           // 1xx is nothing that SMTP has
	"650 ok\r\n",                                           // nor is 6xx
	"050 ok\r\n",                                           // nor 0xx
	"250_ok\r\n",                                           // a separator that is none
	"250-a\r\n251 b\r\n",                                   // two codes
	"250-a\r\n550 b\r\n",                                   // two classes
	"250-a\r\nb\r\n",                                       // the second line is no reply
	"+OK\r\n",                                              // another protocol
	"\xff\xff\xff ok\r\n",                                  // bytes
	"250 " + strings.Repeat("x", maxReplyLine-3) + "\r\n",                     // one byte too long
	strings.Repeat("250-x\r\n", maxReplyLines) + "250 y\r\n",                  // one line too many
	strings.Repeat("250-"+strings.Repeat("x", 4000)+"\r\n", 17) + "250 y\r\n", // too long in all
	strings.Repeat("x", 1<<20),                                                // 1 MB without an end
	"250-" + strings.Repeat("\x00", 1<<20),                                    // likewise
}

func TestReplies(t *testing.T) {
	for _, c := range goodReplies {
		r, err := parse(c.text)
		if err != nil {
			t.Errorf("reply %.50q: %v", c.text, err)
			continue
		}
		if r.Code != c.code || r.Enhanced != c.enhanced || r.Text != c.message {
			t.Errorf("reply %.50q: %d %v %.50q", c.text, r.Code, r.Enhanced, r.Text)
		}
	}
	for _, text := range badReplies {
		_, err := parse(text)
		var protocol *ProtocolError
		if !errors.As(err, &protocol) {
			t.Errorf("reply %.50q: error %v, want a protocol error", text, err)
		} else if len(protocol.What) > 1000 {
			t.Errorf("reply %.50q: an error of %d bytes", text, len(protocol.What))
		}
	}
	for _, text := range []string{"", "2", "250", "250 ok", "250 ok\r", "250-a\r\n", "250-a\r\n250 b"} {
		_, err := parse(text)
		if !isLost(err) {
			t.Errorf("reply %q: error %v, want a lost connection", text, err)
		}
	}
}

func TestReplyOfTheLargestNumberOfLines(t *testing.T) {
	r, err := parse(strings.Repeat("250-x\r\n", maxReplyLines-1) + "250 y\r\n")
	if err != nil || strings.Count(r.Text, "\n") != maxReplyLines-1 {
		t.Errorf("error %v", err)
	}
}

func TestProtocolErrorNamesWhatWasSeen(t *testing.T) {
	_, err := parse("SSH-2.0-OpenSSH_9.2\r\n")
	if want := `it sent "SSH-2.0-OpenSSH_9.2", which is not a reply`; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func FuzzReply(f *testing.F) {
	for _, c := range goodReplies {
		f.Add(c.text)
	}
	for _, text := range badReplies {
		f.Add(text[:min(len(text), 1000)])
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parse(text)
		var protocol *ProtocolError
		switch {
		case err != nil && !isLost(err) && !errors.As(err, &protocol):
			t.Fatalf("error %v is neither", err)
		case err != nil:
			return
		case r.Code < 200 || r.Code > 599:
			t.Fatalf("code %d", r.Code)
		case len(r.Text) > maxReplyBytes:
			t.Fatalf("%d bytes", len(r.Text))
		}
		lines := strings.Split(r.Text, "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, fmt.Sprint(r.Code)) || (i < len(lines)-1) != strings.HasPrefix(line[3:], "-") {
				t.Fatalf("line %d of %q", i, r.Text)
			}
		}
		parseCapabilities(r)
	})
}

func TestCapabilities(t *testing.T) {
	r, err := parse("250-mx.example.org SIZE 5\r\n250-pipelining\r\n250-Size 1000\r\n250-SIZE 7\r\n" +
		"250-AUTH PLAIN LOGIN\r\n250-AUTH=PLAIN\r\n250-\r\n250-8bitMIME \r\n250-X-UNKNOWN  a  B\r\n250-STARTTLSX\r\n250 CHUNKING\r\n")
	must.OK(t, err)
	c := parseCapabilities(r)
	for _, keyword := range []string{extPipelining, extSize, ext8BitMIME, "CHUNKING", "AUTH"} {
		if !c.offers(keyword) {
			t.Errorf("%s is not offered", keyword)
		}
	}
	for _, keyword := range []string{"AUTH=PLAIN", extStartTLS, extSMTPUTF8, "MX.EXAMPLE.ORG", ""} {
		if c.offers(keyword) {
			t.Errorf("%q is offered", keyword)
		}
	}
	if c.sizeLimit() != 1000 || c["AUTH"] != "PLAIN LOGIN PLAIN" || c["X-UNKNOWN"] != "a  B" {
		t.Errorf("capabilities %q", c)
	}
}

func TestSizeLimit(t *testing.T) {
	for parameter, want := range map[string]int64{
		"": 0, "0": 0, "1": 1, "9223372036854775807": 1<<63 - 1,
		"9223372036854775808": 0, "-1": 0, "many": 0, "10 20": 0,
	} {
		if got := (capabilities{extSize: parameter}).sizeLimit(); got != want {
			t.Errorf("SIZE %q: %d, want %d", parameter, got, want)
		}
	}
	if capabilities(nil).sizeLimit() != 0 {
		t.Error("a limit without SIZE")
	}
}

func TestLimits(t *testing.T) {
	for text, want := range map[string]ServerLimits{
		"250-a\r\n250 b":                                                    {},
		"250-a\r\n250 LIMITS":                                               {},
		"250-a\r\n250 LIMITS MAILMAX=3 RCPTMAX=20":                          {3, 20},
		"250-a\r\n250 limits rcptmax=999999":                                {0, 999999},
		"250-a\r\n250 LIMITS  RCPTMAX=7  MAILMAX=1 ":                        {1, 7},
		"250-a\r\n250 LIMITS RCPTDOMAINMAX=1 MAILMAX=5":                     {5, 0},
		"250-a\r\n250 LIMITS MAILMAX MAILMAX= RCPTMAX=0 X=1 =4":             {},
		"250-a\r\n250 LIMITS MAILMAX=-3 RCPTMAX=1000000":                    {},
		"250-a\r\n250 LIMITS MAILMAX=03 RCPTMAX=1e3":                        {},
		"250-a\r\n250 LIMITS MAILMAX=99999999999999999999 RCPTMAX=2.5":      {},
		"250-a\r\n250 LIMITS MAILMAX=9 MAILMAX=4 MAILMAX=0 MAILMAX=6":       {4, 0},
		"250-a\r\n250-LIMITS MAILMAX=9\r\n250 LIMITS MAILMAX=4 RCPTMAX=100": {9, 0},
	} {
		r, err := parse(text + "\r\n")
		must.OK(t, err)
		if got := parseCapabilities(r).limits(); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	if (capabilities(nil).limits() != ServerLimits{}) {
		t.Error("limits without LIMITS")
	}
}

func TestMechanisms(t *testing.T) {
	for text, want := range map[string]string{
		"250-a\r\n250 b":                                  "",
		"250-a\r\n250 AUTH":                               "",
		"250-a\r\n250 AUTH plain  Login ":                 "PLAIN LOGIN",
		"250-a\r\n250 auth=plain login":                   "PLAIN LOGIN",
		"250-a\r\n250-AUTH PLAIN\r\n250 AUTH=LOGIN PLAIN": "PLAIN LOGIN",
		"250-a\r\n250-AUTH=LOGIN\r\n250 AUTH PLAIN":       "LOGIN PLAIN",
		"250-a\r\n250-AUTH PLAIN\r\n250 AUTH NTLM":        "PLAIN NTLM",
		"250-AUTH PLAIN\r\n250 AUTHX PLAIN":               "", // the first line is a greeting
	} {
		r, err := parse(text + "\r\n")
		must.OK(t, err)
		if got := strings.Join(parseCapabilities(r).mechanisms(), " "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzCapabilities(f *testing.F) {
	f.Add("PIPELINING", "SIZE 100")
	f.Add("auth=x y", "  ")
	f.Fuzz(func(t *testing.T, one, two string) {
		if strings.ContainsAny(one+two, "\r\n") {
			return
		}
		r := &reply{Reply: Reply{Code: 250}, raw: "250-x\n250-" + one + "\n250 " + two}
		c := parseCapabilities(r)
		for keyword := range c {
			if keyword == "" || strings.ContainsAny(keyword, " ") || keyword != strings.ToUpper(keyword) {
				t.Errorf("keyword %q", keyword)
			}
		}
		if c.sizeLimit() < 0 {
			t.Error("a limit below 0")
		}
		if l := c.limits(); l.MailMax < 0 || l.RcptMax < 0 || max(l.MailMax, l.RcptMax) > 999999 {
			t.Errorf("limits %+v", l)
		}
	})
}

func BenchmarkReply(b *testing.B) {
	text := "250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n" +
		"250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n"
	source := strings.NewReader(text)
	r := bufio.NewReaderSize(source, readerSize)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		source.Reset(text)
		must.Get(readReply(r, asItIs, func(string) {}))(b)
	}
}
