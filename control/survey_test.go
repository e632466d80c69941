package control_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

func survey(t testing.TB, f files) *control.Survey {
	t.Helper()
	return must.Get(control.ReadAll(home(t, f)))(t)
}

// places are the files and lines of mistakes.
func places(all []*control.Error) []string {
	var list []string
	for _, e := range all {
		list = append(list, fmt.Sprintf("%s:%d", strings.TrimPrefix(e.File, "control/"), e.Line))
	}
	return list
}

func TestReadAllFindsEveryMistake(t *testing.T) {
	long := strings.Repeat("x", control.MaxLine+1)
	for _, test := range []struct {
		name string
		f    files
		want []string
	}{
		{"none", files{"smtproutes": ":relay\n"}, nil},
		{"every file", files{
			"helohost": "two words\n", "timeoutremote": "x\n", "timeoutconnect": "x\n", "timeoutdns": "x\n", "tlsstrictness": "3\n",
			"ipme": "x\n192.0.2.1\ny\n", "trustresolvers": "x\n127.0.0.1\n", "clearafter": "-1\n", "clientcert": "c\n",
			"smtpavoid": "mx\nmx:EHLO\n", "trace": "t two..dots\n", "tlspolicy": "a:must:x\nb:must\nc\n",
		}, []string{"helohost:1", "timeoutremote:1", "timeoutconnect:1", "clientkey:0", "tlsstrictness:1", "ipme:1", "ipme:3",
			"smtpavoid:1", "timeoutdns:1", "trace:1", "trustresolvers:1", "tlspolicy:1", "tlspolicy:3", "clearafter:1"}},
		{"every table", files{
			"smtproutes": "a:b:x\na:b\n\n# c\nnone\n", "qmtproutes": "x\n", "submissionsroutes": ":[x]\n",
			"senderroutes": "x\n@a:b\n@a:c\n", "sources": ":x\n:192.0.2.1\n:192.0.2.2\n", "families": "a:b\n", "clientcerts": "a\n",
			"signingkeys": "a:b\n", "credentials": "a:b\n",
		}, []string{"qmtproutes:1", "submissionsroutes:1", "smtproutes:1", "smtproutes:5", "senderroutes:1", "senderroutes:3",
			"sources:1", "sources:3", "families:1", "clientcerts:1", "signingkeys:1", "credentials:0", "credentials:1"}},
		{"every file of mxf-rspawn", files{
			"delnumbytes": "x\n", "spawnlimit": "256\n", "connectionlimits": "mx\n:5\n:x\n", "connectionidle": "301\n", "connectionwait": "x\n", "tlsresumption": "2\n",
			"statusfile": "status\n", "concurrencyremote": "x\n", "queuelifetime": "x\n",
		}, []string{"delnumbytes:1", "spawnlimit:1", "connectionlimits:1", "connectionlimits:3", "connectionidle:1", "connectionwait:1", "tlsresumption:1", "statusfile:1"}},
		{"what follows from a mistake is not another one", files{"trustresolvers": "x\n", "protocols": "smtp:x\n", "senderroutes": ":relay\n", "clientcert": " c\n", "clientkey": "k\n"},
			[]string{"protocols:1", "clientcert:1", "trustresolvers:1"}},
		{"one mistake a line", files{"smtproutes": "a\x00b\n" + long + "\n\x00\n:relay\n"}, []string{"smtproutes:1", "smtproutes:2", "smtproutes:3"}},
		{"too large", files{"ipme": strings.Repeat("192.0.2.1\n", control.MaxFile/10+1)}, []string{"ipme:0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := survey(t, test.f)
			if got := places(all.Mistakes); !slices.Equal(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
			for _, e := range all.Mistakes {
				if !strings.HasPrefix(e.What, "expected ") {
					t.Errorf("%v does not begin with what was expected", e)
				}
			}
		})
	}
}

// TestReadAllAgrees: what Read refuses is the first of the mistakes of that file.
func TestReadAllAgrees(t *testing.T) {
	for _, f := range []files{
		{"smtproutes": "a:b\nb:c:d\ne\n"}, {"timeoutdns": "x\n"}, {"helohost": "a b\n"}, {"ipme": "x\ny\n"}, {"tlspolicy": "x\n"},
		{"signingkeys": "a\n"}, {"clientkey": "x\n"}, {"protocols": "\n"}, {"trustresolvers": "#\n"}, {"me": "\n"}, {"smtpavoid": "a:b\n"},
	} {
		h := home(t, f)
		_, err := control.Read(h)
		all := must.Get(control.ReadAll(h))(t)
		if err == nil || len(all.Mistakes) == 0 || all.Mistakes[0].Error() != err.Error() {
			t.Errorf("%v: Read says %v, ReadAll %v", f, err, all.Mistakes)
		}
	}
}

func TestReadAllBoundsTheMistakesOfAFile(t *testing.T) {
	for _, n := range []int{100, 200_000} { // the second is read in pieces
		all := survey(t, files{"smtproutes": ":relay\n" + strings.Repeat("malformed\n", n), "timeoutdns": "x\n"})
		if got := places(all.Mistakes); len(got) != 52 || got[49] != "smtproutes:51" || got[50] != "smtproutes:52" || got[51] != "timeoutdns:1" {
			t.Errorf("%d: got %v", n, got)
		}
		if what := all.Mistakes[50].What; !strings.Contains(what, "not shown") {
			t.Errorf("got %q", what)
		}
	}
}

// A table that is read in pieces goes on behind a line that is too long for them.
func TestReadAllLongTable(t *testing.T) {
	lines := strings.Repeat("domain.example:relay.example.net\n", control.MaxFile/30)
	text := lines + strings.Repeat("x", 600<<10) + "\nmalformed\n" + lines
	all := survey(t, files{"smtproutes": text})
	at := strings.Count(lines, "\n")
	want := []string{fmt.Sprintf("smtproutes:%d", at+1), fmt.Sprintf("smtproutes:%d", at+2)}
	if got := places(all.Mistakes); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	n, last := 0, 0
	must.OK(t, all.Settings.Service("smtp").Routes.Lines(func(r control.Route) { n, last = n+1, r.Relay.Line }))
	if n != 2*at || last != 2*at+2 {
		t.Errorf("%d routes, the last in line %d", n, last)
	}
	if f := all.File("smtproutes"); f.Count != 2*at || len(f.Entries) != 50 {
		t.Errorf("%d entries, %d kept", f.Count, len(f.Entries))
	}
}

func TestReadAllLeavesGoodValues(t *testing.T) {
	all := survey(t, files{
		"smtproutes": "bad\nexample.com:relay:26\n", "timeoutdns": "x\n", "timeoutconnect": "7\n", "tlspolicy": "bad\nexample.com:must\n",
		"smtpavoid": "a:EHLO\na:SIZE\n",
	})
	s := all.Settings
	relay, err := s.Service("smtp").Routes.Lookup("example.com")
	if err != nil || relay == nil || relay.Line != 2 || relay.Port != 26 {
		t.Errorf("got %+v, %v", relay, err)
	}
	if s.TimeoutDNS != control.DefaultTimeoutDNS || s.TimeoutConnect.Seconds() != 7 || s.TLSPolicy.ForHost("example.com") == nil {
		t.Errorf("got %+v", s)
	}
	if f := all.File("timeoutconnect"); f == nil || f.Value != "7" || f.Info == nil || f.IsList {
		t.Errorf("got %+v", f)
	}
	if f := all.File("trustanchors"); f == nil || f.Info != nil {
		t.Errorf("got %+v", f)
	}
	if f := all.File("smtpavoid"); !slices.Equal(f.Idle, []control.Idle{{Line: 2, By: 1}}) {
		t.Errorf("got %+v", f.Idle)
	}
	if all.File("me") == nil || all.File("elsewhere") != nil || !all.HasMistakes("timeoutdns") || all.HasMistakes("me") {
		t.Error("files are not those that are read")
	}
}

// Values of a survey report their mistakes when they are used, and keep no secret in the open.
func TestReadAllSecrets(t *testing.T) {
	h := home(t, files{"signingkeys": "a:s:missing\n", "clientcerts": ":" + ":missing\n"})
	path := filepath.Join(h, "control", "credentials")
	must.OK(t, os.WriteFile(path, []byte("relay::joe:password:hunter2\nrelay:joe:x:passwordfile:missing\n"), 0o640), os.Chmod(path, 0o640))
	all := must.Get(control.ReadAll(h))(t)
	if len(all.Mistakes) > 0 {
		t.Fatal(all.Mistakes)
	}
	lines := all.Credentials.Lines()
	if len(lines) != 2 || lines[0].Relay != "relay" || lines[1].Sender != "joe" {
		t.Fatalf("got %v", lines)
	}
	if _, err := lines[1].Credential.Read(); err == nil {
		t.Error("a missing file is no error")
	}
	if _, err := all.Settings.SigningKeys.Lines()[0].Read(); err == nil {
		t.Error("a missing key is no error")
	}
	cert := all.Settings.ClientCerts.Lines()[0].ClientCert
	if cert.CheckKey() == nil {
		t.Error("a missing certificate is no error")
	}
	f := all.File("credentials")
	if f.Count != 2 || f.Entries != nil {
		t.Errorf("got %+v", f)
	}
	if text := fmt.Sprintf("%+v %#v", all, lines); strings.Contains(text, "hunter2") {
		t.Error("the password is printed")
	}
}

func TestLines(t *testing.T) {
	s := read(t, files{
		"senderroutes": "<>:\n@Shop.example:relay:465\n", "sources": ":192.0.2.1\n:[2001:db8::1]:helo\njoe@x.example:ipv4\n",
		"families": "b:ipv4\na:ipv6\n", "clientcerts": "b::\n:@a.example:cert\n", "signingkeys": "b.example:s:k\na.example:s:k\nb.example:t:k\n",
		"tlspolicy": "b.example:must\n@a:may\n:none\n", "smtproutes": ".Example.com.:relay\n:\n[192.0.2.1]:[::1]:26\n",
	})
	var routes []control.Route
	must.OK(t, s.Service("smtp").Routes.Lines(func(r control.Route) { routes = append(routes, r) }))
	for _, test := range []struct{ got, want any }{
		{fmt.Sprint(s.SenderRoutes.Lines()), "[{<> { invalid IP 0 1 false}} {@shop.example {relay invalid IP 465 2 false}}]"},
		{fmt.Sprint(s.Sources.Lines()), "[{ ipv4 {1 192.0.2.1 }} { ipv6 {2 2001:db8::1 helo}} {joe@x.example ipv4 {3 invalid IP }}]"},
		{fmt.Sprint(s.Families.Lines()), "[{1 b ipv4} {2 a ipv6}]"},
		{fmt.Sprint(routes), "[{.example.com {relay invalid IP 0 1 false}} { { invalid IP 0 2 true}} {[192.0.2.1] { ::1 26 3 false}}]"},
	} {
		if test.got != test.want {
			t.Errorf("got  %v\nwant %v", test.got, test.want)
		}
	}
	if c := s.ClientCerts.Lines(); len(c) != 2 || c[0].Exchanger != "b" || c[1].Sender != "@a.example" || c[1].ClientCert.Line != 2 {
		t.Errorf("got %+v", c)
	}
	if k := s.SigningKeys.Lines(); len(k) != 3 || k[1].Domain != "a.example" || k[2].Selector != "t" {
		t.Errorf("got %+v", k)
	}
	if p := s.TLSPolicy.Lines(); len(p) != 3 || p[0].IsExchanger || !p[1].IsExchanger || p[1].Key != "a" || p[2].Key != "" {
		t.Errorf("got %+v", p)
	}
}

// readEach returns the first error of the readers of all files but credentials.
func readEach(home string) error {
	if _, err := control.Read(home); err != nil {
		return err
	}
	if _, err := control.ReadSharing(home); err != nil {
		return err
	}
	spawn, err := control.ReadSpawn(home)
	if err != nil {
		return err
	}
	return spawn.LimitFault
}

// FuzzReadAll: ReadAll finds nothing where the readers refuse nothing, and else what they say first
// of that file.
func FuzzReadAll(f *testing.F) {
	names := []string{"smtproutes", "senderroutes", "protocols", "sources", "families", "clientcerts", "signingkeys", "tlspolicy",
		"trustresolvers", "ipme", "smtpavoid", "timeoutdns", "helohost", "trace", "tlsclient",
		"delnumbytes", "spawnlimit", "connectionlimits", "connectionidle", "connectionwait", "tlsresumption", "statusfile"}
	for _, text := range []string{"a:b:x\na:b\n", "x\n@a:b\n@a:c\n", ":x\n:192.0.2.1\n:192.0.2.2\n", "a:must:x\nb:must\n", "two words\n", "\x00\n:relay\n",
		"smtp:25:0:N:Y:p\nsmtp:x\n", "127.0.0.1\n", "mx:SIZE\nmx\n", "17\n", "[\n", "mx:5:50:50\n:20\n", "2\n", "/run/status\n", strings.Repeat("x", control.MaxLine+1) + "\ny\n"} {
		for i := range names {
			f.Add(i, text)
		}
	}
	f.Fuzz(func(t *testing.T, i int, text string) {
		name := names[uint(i)%uint(len(names))]
		h := home(t, files{name: text})
		err := readEach(h)
		all := must.Get(control.ReadAll(h))(t)
		if (err == nil) != (len(all.Mistakes) == 0) {
			t.Fatalf("%s %q: the readers say %v, ReadAll %v", name, text, err, all.Mistakes)
		}
		if err != nil && !slices.ContainsFunc(all.Mistakes, func(e *control.Error) bool { return e.Error() == err.Error() }) {
			t.Errorf("%s %q: the readers say %v, ReadAll %v", name, text, err, all.Mistakes)
		}
	})
}
