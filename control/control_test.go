package control_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/domain/domaintest"
	"nightmare.mail/mxf/integration/must"
)

// files is what a test puts into home/control.
type files map[string]string

// home makes a home with a control folder. It has a me unless f has another.
func home(t testing.TB, f files) string {
	t.Helper()
	all := files{"me": "mx.example.org\n"}
	maps.Copy(all, f)
	return must.Home(t, all)
}

func read(t testing.TB, f files) *control.Settings {
	t.Helper()
	return must.Get(control.Read(home(t, f)))(t)
}

// malformed wants Read to refuse the files for a line of one of them.
func malformed(t *testing.T, f files, file string, line int, what string) {
	t.Helper()
	s, err := control.Read(home(t, f))
	if s != nil {
		t.Errorf("%s: settings come with an error", file)
	}
	refused(t, err, file, line, what)
}

// refused wants an Error at file and line whose text has what in it.
func refused(t *testing.T, err error, file string, line int, what string) {
	t.Helper()
	var e *control.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an error in %s line %d", err, file, line)
	}
	if e.File != "control/"+file || e.Line != line || !strings.Contains(e.What, what) {
		t.Errorf("got %q, want control/%s:%d: ...%s...", err, file, line, what)
	}
	if !strings.HasPrefix(e.What, "expected ") {
		t.Errorf("%q does not begin with what was expected", e.What)
	}
	if want := fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.What); err.Error() != want {
		t.Errorf("Error() is %q, want %q", err, want)
	}
	if strings.ContainsAny(err.Error(), "\n\x00") {
		t.Errorf("%q is not one line", err)
	}
}

func TestMissingFileTakesItsDefault(t *testing.T) {
	h := home(t, nil)
	s := must.Get(control.Read(h))(t)
	routes := make([]*control.Routes, len(s.Protocols))
	for i := range s.Protocols {
		routes[i], s.Protocols[i].Routes = s.Protocols[i].Routes, nil
	}
	want := &control.Settings{
		Client: control.Client{HeloHost: "mx.example.org", TimeoutRemote: 1200 * time.Second, TimeoutConnect: 60 * time.Second},
		Home:   h,
		Protocols: []control.Protocol{
			{Service: "qmtps", Port: 6209, Slice: -1, Implicit: true, Program: "mxf-remote-qmtpc"},
			{Service: "qmtp", Port: 209, Slice: 1, Program: "mxf-remote-qmtpc"},
			{Service: "submissions", Port: 465, Slice: -1, Implicit: true, Program: "mxf-remote-smtpc"},
			{Service: "smtp", Port: 25, Slice: 0, Explicit: true, Program: "mxf-remote-smtpc"},
		},
		IPMeDefault: true,
		TimeoutDNS:  60 * time.Second,
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	for i, r := range routes {
		if relay, err := r.Lookup("example.com"); r == nil || relay != nil || err != nil {
			t.Errorf("protocol %d: missing routes %v give %v, %v", i, r, relay, err)
		}
	}
}

func TestEmptySingleValuedFileTakesItsDefault(t *testing.T) {
	want := read(t, nil)
	for _, name := range []string{
		"helohost", "tlsclient", "ucspitlsclient", "trustanchors", "clientcert", "clientkey",
		"tlsstrictness", "timeoutconnect", "timeoutremote", "timeoutdns",
	} {
		for _, content := range []string{"", "\n", " \t \n", "\r\n", " ", "\nsecond line\n"} {
			s := read(t, files{name: content})
			s.Home = want.Home
			s.Protocols, want.Protocols = nil, nil
			if !reflect.DeepEqual(s, want) {
				t.Errorf("%s = %q: got %+v, want %+v", name, content, s, want)
			}
		}
	}
}

func TestSingleValuedFileIsItsFirstLineWithoutTrailingBlanks(t *testing.T) {
	for _, content := range []string{
		"17", "17\n", "17 \t \n", "17\r\n", "17 \r\n", "17\nnot a number\n", "17\n\n# nor this\n", "0017\n",
	} {
		if got := read(t, files{"timeoutdns": content}).TimeoutDNS; got != 17*time.Second {
			t.Errorf("%q is %v", content, got)
		}
	}
	got := read(t, files{"trustanchors": "certs/with a blank.pem \nother\n"}).TrustAnchors.File
	if filepath.Base(got) != "with a blank.pem" {
		t.Errorf("trustanchors is %q", got)
	}
}

func TestHeloHost(t *testing.T) {
	type name struct {
		f    files
		want string
	}
	tests := []name{
		{files{}, "mx.example.org"},
		{files{"helohost": "out.example.org\n"}, "out.example.org"},
		{files{"helohost": "\n"}, "mx.example.org"},
		{files{"helohost": "out.example.org", "me": ""}, "out.example.org"},
		{files{"helohost": "out.example.org", "me": "two words"}, "out.example.org"}, // me is not read
		{files{"helohost": strings.Repeat("a", 255)}, strings.Repeat("a", 255)},
	}
	for _, n := range domaintest.ASCII {
		tests = append(tests, name{files{"helohost": n.Text}, n.Text})
	}
	for _, n := range domaintest.Unicode { // EHLO is ASCII
		tests = append(tests, name{files{"helohost": n.Text}, n.Want})
	}
	for _, test := range tests {
		h := home(t, test.f)
		s, err := control.Read(h)
		if err != nil {
			t.Errorf("%q: %v", test.f, err)
			continue
		}
		if s.HeloHost != test.want {
			t.Errorf("%q: got %q, want %q", test.f, s.HeloHost, test.want)
		}
		c, err := control.ReadClient(h)
		if err != nil || c != s.Client {
			t.Errorf("%q: ReadClient gives %+v, %v, Read %+v", test.f, c, err, s.Client)
		}
	}
}

func TestNoNameToSayIsRefused(t *testing.T) {
	for _, helohost := range []string{"missing", "", "\n"} {
		for _, me := range []string{"missing", "", " \n"} {
			h := home(t, files{"me": me, "helohost": helohost})
			for name, content := range (files{"me": me, "helohost": helohost}) {
				if content == "missing" {
					must.OK(t, os.Remove(filepath.Join(h, "control", name)))
				}
			}
			_, err := control.Read(h)
			refused(t, err, "helohost", 0, "control/me")
			refused(t, err, "helohost", 0, h) // the home is named: $MXF_HOME may be wrong
			_, err = control.ReadClient(h)
			refused(t, err, "helohost", 0, "control/me")
		}
	}
}

func TestReadClientLooksAtItsOwnFilesOnly(t *testing.T) {
	c, err := control.ReadClient(home(t, files{
		"helohost": "out.example.org\n", "timeoutremote": "5\n",
		"protocols": "nonsense", "smtproutes": "nonsense", "timeoutdns": "nonsense", "me": "two words",
	}))
	if want := (control.Client{HeloHost: "out.example.org", TimeoutRemote: 5 * time.Second, TimeoutConnect: 60 * time.Second}); c != want || err != nil {
		t.Errorf("got %+v, %v", c, err)
	}
	_, err = control.ReadClient(home(t, files{"timeoutremote": "5 s"}))
	refused(t, err, "timeoutremote", 1, `found "5"`)
}

func TestWholeNumbers(t *testing.T) {
	for content, want := range map[string]time.Duration{
		"0": 0, // no limit
		"1": time.Second, "60": time.Minute, "2147483647": 2147483647 * time.Second, "007": 7 * time.Second,
	} {
		s := read(t, files{"timeoutconnect": content, "timeoutremote": content, "timeoutdns": content})
		if s.TimeoutConnect != want || s.TimeoutRemote != want || s.TimeoutDNS != want {
			t.Errorf("%q: got %v, %v, %v, want %v", content, s.TimeoutConnect, s.TimeoutRemote, s.TimeoutDNS, want)
		}
	}
	for _, content := range badNumbers {
		for _, name := range []string{"timeoutconnect", "timeoutremote", "timeoutdns", "tlsstrictness"} {
			malformed(t, files{name: content}, name, 1, "found ")
		}
	}
}

var badNumbers = []string{
	"-1", "+1", "2147483648", "4294967296", "18446744073709551617", "99999999999999999999999999",
	"1.5", "1e3", "0x10", "1_000", "60s", "six", " 60", "6 0", "60 # a minute", "\u0666\u0660", "\ufeff60", "#60",
}

func TestTLSStrictness(t *testing.T) {
	for content, want := range map[string]int{"": 0, "0": 0, "1\n": 1, "2 \n": 2} {
		if got := read(t, files{"tlsstrictness": content}).TLSStrictness; got != want {
			t.Errorf("%q: got %d, want %d", content, got, want)
		}
	}
	malformed(t, files{"tlsstrictness": "3\n"}, "tlsstrictness", 1, `0, 1 or 2, found "3"`)
}

func TestPathsAreRelativeToHome(t *testing.T) {
	h := home(t, files{
		"tlsclient": "libexec/s6-tlsc\n", "ucspitlsclient": "/command/s6-ucspitlsc\n", "trustanchors": "control/ca.pem\n",
		"clientcert": "/etc/ssl/cert.pem\n", "clientkey": "control/key.pem\n",
		"protocols": "smtp:25:0:N:Y:libexec/client\nqmtp:209:1:N:N:/opt/client with: args\n",
	})
	s := must.Get(control.Read(h))(t)
	for _, test := range []struct{ what, got, want string }{
		{"tlsclient", s.TLSClient, h + "/libexec/s6-tlsc"},
		{"ucspitlsclient", s.UCSPITLSClient, "/command/s6-ucspitlsc"},
		{"trustanchors", s.TrustAnchors.File, h + "/control/ca.pem"},
		{"no directory", s.TrustAnchors.Dir, ""},
		{"clientcert", s.ClientCert, "/etc/ssl/cert.pem"},
		{"clientkey", s.ClientKey, h + "/control/key.pem"},
		{"program", s.Service("smtp").Program, h + "/libexec/client"},
		{"the rest of the line", s.Service("qmtp").Program, "/opt/client with: args"},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %q, want %q", test.what, test.got, test.want)
		}
	}
	for _, name := range []string{"tlsclient", "ucspitlsclient", "trustanchors", "clientcert", "clientkey"} {
		malformed(t, files{name: " /etc/ssl/cert.pem\n"}, name, 1, "without blanks before it")
	}
}

func TestTrustAnchorsThatEndInASlashAreADirectory(t *testing.T) {
	for content, want := range map[string]control.Anchors{
		"/etc/ssl/certs/":    {Dir: "/etc/ssl/certs/"},
		"/etc/ssl/certs/ \n": {Dir: "/etc/ssl/certs/"},
		"/etc/ssl/certs":     {File: "/etc/ssl/certs"},
		"":                   {},
	} {
		if got := read(t, files{"trustanchors": content}).TrustAnchors; got != want {
			t.Errorf("%q: got %+v, want %+v", content, got, want)
		}
	}
	s := read(t, files{"trustanchors": "anchors/"})
	if want := (control.Anchors{Dir: s.Home + "/anchors/"}); s.TrustAnchors != want {
		t.Errorf("relative: got %+v, want %+v", s.TrustAnchors, want)
	}
}

// Where programs are is for the router to say.
func TestBareTLSClient(t *testing.T) {
	s := read(t, files{"tlsclient": "s6-tlsc", "ucspitlsclient": "no-such-client"})
	if s.TLSClient != "s6-tlsc" || s.UCSPITLSClient != "no-such-client" {
		t.Errorf("got %q and %q", s.TLSClient, s.UCSPITLSClient)
	}
}

func TestClientCertificateAndKeyBothOrNeither(t *testing.T) {
	for _, f := range []files{{"clientcert": "/c"}, {"clientcert": "/c", "clientkey": "\n"}} {
		malformed(t, f, "clientkey", 0, "both or neither")
	}
	for _, f := range []files{{"clientkey": "/k"}, {"clientkey": "/k", "clientcert": ""}} {
		malformed(t, f, "clientcert", 0, "both or neither")
	}
	if s := read(t, files{"clientcert": "/c", "clientkey": "/k"}); s.ClientCert != "/c" || s.ClientKey != "/k" {
		t.Errorf("got %q, %q", s.ClientCert, s.ClientKey)
	}
}

func TestIPMe(t *testing.T) {
	for _, content := range []string{"", "\n", "# none of them is ours\n", " \n\r\n"} {
		if s := read(t, files{"ipme": content}); len(s.IPMe) != 0 || s.IPMeDefault {
			t.Errorf("%q: got %v, default %v: no address is ours", content, s.IPMe, s.IPMeDefault)
		}
	}
	s := read(t, files{"ipme": "# the gateway's\n192.0.2.1 \n\n2001:DB8:0::1\r\n::ffff:192.0.2.2"})
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")}
	if !reflect.DeepEqual(s.IPMe, want) || s.IPMeDefault {
		t.Errorf("got %v, default %v", s.IPMe, s.IPMeDefault)
	}
	for _, bad := range []string{
		"[192.0.2.1]", "[2001:db8::1]", "192.0.2.1:25", "192.0.2.0/24", "192.0.2.256", "192.0.2", "192.0.2.01",
		"fe80::1%eth0", " 192.0.2.1", "192.0.2.1 192.0.2.2", "mx.example.org", " # no comment", "192.0.2.1 # gateway",
	} {
		malformed(t, files{"ipme": "# ours\n\n" + bad + "\n192.0.2.1\n"}, "ipme", 3, "one IPv4 or IPv6 address")
	}
}

func TestProtocols(t *testing.T) {
	s := read(t, files{"protocols": "# ours\n\nsmtp:2525:0:N:N:sender\t \r\n  \nlmtp-x1:65535:15:Y:N:a:b:c"})
	for i := range s.Protocols {
		s.Protocols[i].Routes = nil
	}
	want := []control.Protocol{
		{Service: "submissions", Port: 465, Slice: -1, Implicit: true, Program: "mxf-remote-smtpc"},
		{Service: "smtp", Port: 2525, Program: "sender", Line: 3},
		{Service: "lmtp-x1", Port: 65535, Slice: 15, Implicit: true, Program: "a:b:c", Line: 5},
	}
	if !reflect.DeepEqual(s.Protocols, want) {
		t.Errorf("got %+v, want %+v", s.Protocols, want)
	}
}

// The line for submissions is understood, unless there is one.
func TestSubmissionsIsUnderstood(t *testing.T) {
	for content, want := range map[string]string{
		"smtp:25:0:N:Y:a\n": "submissions smtp",
		"qmtp:209:1:N:N:a\nsmtp:25:0:N:Y:a\nlmtp:24:2:N:N:a\n": "qmtp submissions smtp lmtp",
		"qmtp:209:1:N:N:a\nlmtp:24:2:N:N:a\n":                  "qmtp lmtp submissions",
		"smtp:25:0:N:Y:a\nsubmissions:1465:-1:Y:N:a\n":         "smtp submissions",
		"smtps:465:-1:Y:N:a\n":                                 "smtps submissions",
	} {
		s := read(t, files{"protocols": content, "submissionsroutes": ":relay.example.org\n"})
		var got []string
		for _, p := range s.Protocols {
			got = append(got, p.Service)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: got %q", content, got)
		}
		p := s.Service(control.Submissions)
		if named := strings.Contains(content, "submissions"); p == nil || named != (p.Line > 0) || named != (p.Port == 1465) || !p.RelayOnly() {
			t.Fatalf("%q: got %+v", content, p)
		}
		if relay := must.Get(p.Routes.Lookup("example.com"))(t); relay == nil || relay.Host != "relay.example.org" {
			t.Errorf("%q: got %v", content, relay)
		}
	}
	if p := read(t, nil).Service("nntp"); p != nil {
		t.Errorf("got %v", p)
	}
}

func TestSameServiceTwiceIsMalformed(t *testing.T) {
	malformed(t, files{"protocols": "smtp:25:0:N:Y:a\nqmtp:209:1:N:N:b\nsmtp:26:2:N:N:c\n"}, "protocols", 3, `"smtp"`)
}

func TestNoProtocolAtAllIsMalformed(t *testing.T) {
	for _, content := range []string{"", "\n", " \t\n", "# smtp:25:0:N:Y:mxf-remote-smtpc\n"} {
		malformed(t, files{"protocols": content}, "protocols", 0, "at least one protocol")
	}
}

func TestEveryServiceHasItsRoutes(t *testing.T) {
	h := home(t, files{
		"protocols":  "smtp:25:0:N:Y:a\nqmtps:209:1:Y:N:b\nlmtp:24:2:N:N:c\nuucp:540:3:N:N:d\n",
		"smtproutes": "example.com:smtp.example.org\n", "qmtpsroutes": "example.com:qmtps.example.org\n", "lmtproutes": "example.com:lmtp.example.org\n",
		"qmtproutes": "nobody reads this\n",
	})
	s := must.Get(control.Read(h))(t)
	for _, p := range s.Protocols {
		relay := must.Get(p.Routes.Lookup("example.com"))(t)
		if p.Service == "uucp" || p.Service == "submissions" {
			if relay != nil {
				t.Errorf("%s has a route: %v", p.Service, relay)
			}
		} else if want := p.Service + ".example.org"; relay == nil || relay.Host != want {
			t.Errorf("%s: got %v, want %s", p.Service, relay, want)
		}
	}
	must.Write(t, filepath.Join(h, "control", "lmtproutes"), "# none\nexample.com\n")
	_, err := control.Read(h)
	refused(t, err, "lmtproutes", 2, "domain:relay")
}

// TestIdentity reads the files that say who we are.
func TestIdentity(t *testing.T) {
	s := read(t, files{
		"senderroutes": ":relay.example.org\n", "sources": ":192.0.2.1\n", "families": ":ipv6\n", "clientcerts": "::cert\n", "signingkeys": "shop.example:s:k\n",
		"credentials": "nobody reads this before a route has given a relay\n",
	})
	addr := netip.MustParseAddr("192.0.2.9")
	four, _, _ := s.Sources.For("")
	only, _ := s.Families.For("", addr)
	if relay := s.SenderRoutes.Lookup("x"); relay == nil || relay.Host != "relay.example.org" || four.Line != 1 || only != control.IPv6 ||
		s.ClientCerts.For("", addr, "").Certificate != s.Home+"/cert" || len(s.SigningKeys.For("shop.example")) != 1 || s.Me != "mx.example.org" {
		t.Errorf("got %+v", s)
	}
	_, err := control.ReadCredentials(s.Home)
	refused(t, err, "credentials", 0, "found mode 0644")
}

func TestMalformedAnywhereReadsNothing(t *testing.T) {
	for name, content := range (files{
		"me": "two words", "protocols": "smtp", "qmtpsroutes": "x", "qmtproutes": "x", "submissionsroutes": "x", "smtproutes": "x", "senderroutes": "x", "tlsclient": " x", "ucspitlsclient": " x",
		"trustanchors": "\tx", "clientcert": " x", "clientkey": " x", "tlsstrictness": "x", "ipme": "x", "timeoutconnect": "x", "timeoutremote": "x",
		"timeoutdns": "x", "sources": "x", "families": "x", "clientcerts": "x", "signingkeys": "x", "smtpavoid": "x",
	}) {
		malformed(t, files{name: content + "\n"}, name, 1, "expected ")
	}
	for _, bad := range append([]string{
		"two words", "tab\tbed", "bell\a", "del\x7f", "mx.example.org\x1b[2J", strings.Repeat("a", 256), " mx.example.org",
	}, domaintest.BadUnicode...) {
		malformed(t, files{"helohost": bad}, "helohost", 1, "a host name without blanks")
		_, err := control.ReadClient(home(t, files{"me": bad}))
		refused(t, err, "me", 1, "a host name without blanks")
	}
}

// every names the control files of the default protocols.
var every = []string{
	"helohost", "me", "protocols", "qmtpsroutes", "qmtproutes", "submissionsroutes", "smtproutes", "senderroutes", "tlsclient", "ucspitlsclient", "trustanchors",
	"clientcert", "clientkey", "tlsstrictness", "ipme", "timeoutconnect", "timeoutremote", "timeoutdns",
	"sources", "families", "clientcerts", "signingkeys", "smtpavoid",
}

func TestUnreadable(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(path string) error
		what string
		is   error
	}{
		{"directory", func(p string) error { return os.Mkdir(p, 0o755) }, "a directory", nil},
		{"dangling link", func(p string) error { return os.Symlink("nowhere", p) }, "a symbolic link to nothing", nil},
		{"link to itself", func(p string) error { return os.Symlink(filepath.Base(p), p) }, "symbolic links", syscall.ELOOP},
		{"FIFO", func(p string) error { return syscall.Mkfifo(p, 0o644) }, "FIFO", nil},
		{"device", func(p string) error { return os.Symlink("/dev/zero", p) }, "device", nil},
		{"no permission", func(p string) error { return os.WriteFile(p, []byte("1\n"), 0) }, "permission denied", fs.ErrPermission},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.is == fs.ErrPermission && os.Geteuid() == 0 {
				t.Skip("root reads everything")
			}
			for _, name := range every {
				h := home(t, nil)
				path := filepath.Join(h, "control", name)
				must.OK(t, os.RemoveAll(path))
				must.OK(t, test.make(path))
				_, err := control.Read(h)
				refused(t, err, name, 0, test.what)
				if test.is != nil && !errors.Is(err, test.is) {
					t.Errorf("%v does not wrap %v", err, test.is)
				}
			}
		})
	}
}

func TestControlThatIsAFile(t *testing.T) {
	h := t.TempDir()
	must.OK(t, os.WriteFile(filepath.Join(h, "control"), nil, 0o644))
	_, err := control.Read(h)
	refused(t, err, "helohost", 0, "not a directory")
}

func TestRelativeHome(t *testing.T) {
	h := home(t, files{"trustanchors": "ca.pem"})
	t.Chdir(filepath.Dir(h))
	s, err := control.Read(filepath.Base(h))
	if err != nil || s.Home != h || s.TrustAnchors.File != h+"/ca.pem" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestZeroByteIsMalformed(t *testing.T) {
	for _, name := range every {
		malformed(t, files{name: "\n# second\n# th\x00rd\n"}, name, 3, "zero byte")
	}
}

func TestLineLimit(t *testing.T) {
	for _, name := range every {
		h := home(t, files{name: "\n#" + strings.Repeat("x", 4096) + "\n"})
		_, err := control.Read(h)
		refused(t, err, name, 2, "at most 4096 bytes")
		malformed(t, files{name: "\n#" + strings.Repeat("x", 4096)}, name, 2, "at most 4096 bytes")
	}
	comment := "#" + strings.Repeat("x", 4095) + "\n"
	s := read(t, files{
		"ipme": comment + "192.0.2.1\n", "smtproutes": comment + ":relay\n" + comment,
		"trustanchors": "/" + strings.Repeat("x", 4095) + "\n",
		"protocols":    comment + "smtp:25:0:N:Y:" + strings.Repeat("p", 4082) + "\n",
	})
	if len(s.TrustAnchors.File) != 4096 || len(s.Service("smtp").Program) != 4082 || len(s.IPMe) != 1 {
		t.Error("a line of 4096 bytes was not read whole")
	}
}

func TestFileLimit(t *testing.T) {
	// lines makes a file of n bytes that begins with first.
	lines := func(first string, n int) string {
		const comment = "# this line is here for its length only\n"
		return (first + strings.Repeat(comment, n/len(comment)+1))[:n]
	}
	for _, name := range every {
		if strings.HasSuffix(name, "routes") && name != "senderroutes" {
			continue
		}
		malformed(t, files{name: lines("\n", control.MaxFile+1)}, name, 0, "at most 1048576 bytes")
	}
	if s := read(t, files{"timeoutdns": lines("5\n", control.MaxFile)}); s.TimeoutDNS != 5*time.Second {
		t.Errorf("a file of 1 MiB gives %v", s.TimeoutDNS)
	}
	read(t, files{"smtproutes": lines(":relay\n", control.MaxFile+1)})

	h := home(t, files{"smtproutes": ":relay\n"})
	path := filepath.Join(h, "control", "smtproutes")
	if err := os.Truncate(path, control.MaxRoutes+1); err != nil {
		t.Skip(err)
	}
	_, err := control.Read(h)
	refused(t, err, "smtproutes", 0, "at most 67108864 bytes")
	must.OK(t, os.Truncate(path, control.MaxRoutes))
	_, err = control.Read(h)
	refused(t, err, "smtproutes", 2, "at most 4096 bytes") // the line of zeros is too long, the file is not
}

func TestErrorsQuoteForeignText(t *testing.T) {
	_, err := control.Read(home(t, files{"timeoutdns": "\x1b[31m" + strings.Repeat("x", 1000)}))
	refused(t, err, "timeoutdns", 1, `\x1b[31m`)
	if len(err.Error()) > 300 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

// A report goes to the log and to strangers. It repeats one word of a malformed line and
// nothing behind that: other programs keep passwords there.
func TestSecretsAreNotQuoted(t *testing.T) {
	const secret = "s3cret-word"
	for _, test := range []struct{ file, line, found string }{
		{"smtproutes", "host.test:relay.test:587 user " + secret, "logins belong in control/credentials"},
		{"smtproutes", ".branch.test:192.0.2.5 user " + secret, "logins belong in control/credentials"},
		{"smtproutes", ":relay.test|user|" + secret, "logins belong in control/credentials"},
		{"smtproutes", ":relay.test|" + secret + "@x", "logins belong in control/credentials"},
		{"smtproutes", ":relay.test|587|user|" + secret, "logins belong in control/credentials"},
		{"smtproutes", ":" + secret + "|relay.test", "logins belong in control/credentials"},
		{"smtproutes", secret + "|x", "logins belong in control/credentials"},
		{"smtproutes", ":relay.test;user;" + secret, `found "relay.test" and more behind it`},
		{"smtproutes", ":relay.test\tuser\t" + secret, "logins belong in control/credentials"},
		{"smtproutes", ":relay.test:587:user:" + secret, `found "587" and more behind it`},
		{"smtproutes", ":relay.test:587," + secret, `found "587" and more behind it`},
		{"smtproutes", ":[192.0.2.5]|user|" + secret, "logins belong in control/credentials"},
		{"smtproutes", ":[192.0.2.5]:587|user|" + secret, "logins belong in control/credentials"},
		{"smtproutes", ":user:" + secret + "@relay.test", "a word with an @"},
		{"smtproutes", ":" + secret + "@relay.test", "a word with an @"},
		{"smtproutes", "https://user:" + secret + "@relay.test", "a word with an @"},
		{"smtproutes", "machine relay.test password " + secret, "logins belong in control/credentials"},
		{"smtproutes", "machine relay.test password " + secret + ":25", "logins belong in control/credentials"},
		{"smtproutes", ": " + secret, "logins belong in control/credentials"},
		{"smtproutes", ":relay.test: " + secret, "logins belong in control/credentials"},
		{"submissionsroutes", ":relay.test user " + secret, "logins belong in control/credentials"},
		{"senderroutes", "@host.test:relay.test:587 user " + secret, "logins belong in control/credentials"},
		{"senderroutes", ":relay.test|user|" + secret, "logins belong in control/credentials"},
		{"senderroutes", "machine relay.test password " + secret, "logins belong in control/credentials"},
		{"senderroutes", "joe@x.test|relay.test|user|" + secret, "logins belong in control/credentials"},
		{"senderroutes", ":relay.test:587:user:" + secret, `found "587" and more behind it`},
		{"senderroutes", "joe@x.test " + secret + ":relay.test", "logins belong in control/credentials"},
		{"helohost", "mx.example.org " + secret, `found "mx.example.org" and more behind it`},
		{"me", "mx.exämple.org " + secret, `found "mx.exämple.org" and more behind it`},
		{"ipme", "192.0.2.1 " + secret, `found "192.0.2.1" and more behind it`},
		{"protocols", "smtp " + secret, `found "smtp" and more behind it`},
		{"protocols", "smtp:25:0:N:Y: " + secret, `found " " first`},
		{"timeoutremote", "1200;" + secret, `found "1200" and more behind it`},
		{"tlsstrictness", "2 " + secret, `found "2" and more behind it`},
		{"tlsclient", " " + secret, `found " " first`},
		{"smtpavoid", "mx.example.org:PASSWORD " + secret, `found "PASSWORD" and more behind it`},
		{"trace", "/tmp/t a_b/c|" + secret, `found "a_b/c" and more behind it`},
		{"trace", "/tmp/t me:" + secret + "@x/y", "a word with an @"},
		{"sources", ":192.0.2.1 " + secret, `found "192.0.2.1" and more behind it`},
		{"families", ":ipv4 " + secret, `found "ipv4" and more behind it`},
		{"clientcerts", "::-----BEGIN " + secret, "found what should be in that file"},
		{"clientcerts", ":" + secret + "@:x", "a word with an @"},
		{"signingkeys", "shop.test:s:-----BEGIN " + secret, "found what should be in that file"},
		{"signingkeys", "shop.test:s " + secret + ":k", `found "s" and more behind it`},
		{"clientkey", "-----BEGIN " + secret, "found what should be in that file"},
		{"clientcert", "-----BEGIN " + secret, "found what should be in that file"},
		{"trustanchors", "-----BEGIN " + secret, "found what should be in that file"},
	} {
		f := files{"me": "me.example", "clientkey": "key", "clientcert": "cert"}
		f[test.file] = test.line + "\n"
		_, err := control.Read(home(t, f))
		refused(t, err, test.file, 1, test.found)
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", test.line, err)
		}
	}
}
