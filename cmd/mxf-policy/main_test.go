package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/cmd/internal/cmdtest"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns/dnstest"
	"nightmare.mail/mxf/remote/mtasts"
	"nightmare.mail/mxf/tlsc/tlstest"
)

func TestMain(m *testing.M) { cmdtest.Main(m, main) }

const policy = "version: STSv1\nmode: enforce\nmx: mail.example.test\nmax_age: 604800\n"

// A world is a home with a cache, a name server, and an HTTPS server at port 443 of an
// address of loopback that is probably nobody else's.
type world struct {
	home, cache string
	store       *mtasts.Store
	dns         *dnstest.Server
	requests    atomic.Int32
	answer      atomic.Value // string: the policy that is served
}

func newWorld(t *testing.T) *world {
	t.Helper()
	addr := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(250), rand.N(250), 1+rand.N(250))
	l, err := net.Listen("tcp", addr+":443")
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE) {
		t.Skip("port 443 is for root, and all of 127.0.0.0/8 is not everywhere loopback: ", err)
	}
	must.OK(t, err)
	w := new(world)
	w.answer.Store(policy)
	authority := tlstest.NewAuthority("authority")
	server := &http.Server{
		TLSConfig: authority.Leaf(nil, "*.example.test", "*.none.test", "*.gone.test").Config(),
		ErrorLog:  log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			w.requests.Add(1)
			out.Header().Set("Content-Type", "text/plain")
			_, _ = out.Write([]byte(w.answer.Load().(string)))
		}),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { server.Close(); <-done })
	w.dns = dnstest.New(t, strings.ReplaceAll(`
_mta-sts.example.test.       TXT  "v=STSv1; id=20160831085700Z;"
mta-sts.example.test.        A    ADDR
mta-sts.gone.test.           A    ADDR
mta-sts.none.test.           A    ADDR
_mta-sts.refused.test.       TXT  "v=STSv1; id=1;"
mta-sts.refused.test.        A    127.0.0.9
_mta-sts.malformed.test.     TXT  "v=STSv1; id=a b;"
`, "ADDR", addr), map[string]string{"_mta-sts.broken.test": "servfail"})
	w.home = must.Home(t, map[string]string{
		"mtasts": "sts\n", "trustresolvers": w.dns.Addr.String() + "\n",
		"trustanchors": tlstest.Bundle(t, authority) + "\n",
	})
	w.cache = filepath.Join(w.home, "sts")
	must.OK(t, os.Mkdir(w.cache, 0o755))
	w.store = &mtasts.Store{Folder: w.cache}
	return w
}

// run runs the program. trustresolvers is asked, and not what the environment names.
func (w *world) run(t *testing.T, args ...string) cmdtest.Result {
	t.Helper()
	return cmdtest.Run(t, cmdtest.Command(t, []string{"MXF_HOME=" + w.home, "DNSCACHEIP=127.0.0.1:1"}, args...))
}

func (w *world) file(t *testing.T, domain string) string {
	t.Helper()
	return string(must.Get(os.ReadFile(filepath.Join(w.cache, domain)))(t))
}

// put stores an entry: its policy was fetched, and used, so long ago.
func (w *world) put(t *testing.T, domain, mode string, fetched, used time.Duration) {
	t.Helper()
	text := strings.Replace(policy, "enforce", mode, 1)
	p := must.Get(mtasts.ParsePolicy([]byte(text)))(t)
	now := time.Now()
	must.OK(t, w.store.Save(&mtasts.Entry{Domain: domain, ID: "old", Fetched: now.Add(-fetched), Text: text, Policy: p, Used: now.Add(-used)}))
}

func TestFetch(t *testing.T) {
	w := newWorld(t)
	r := w.run(t, "fetch", "Example.TEST.", "abc")
	want := fmt.Sprintf("mxf-sts 1\ndomain example.test\nid abc\nfetched %s\nbytes %d\n\n%s", "TIME", len(policy), policy)
	e := must.Get(w.store.Load("example.test"))(t)
	if want = strings.Replace(want, "TIME", fmt.Sprint(e.Fetched.Unix()), 1); r != cmdtest.Want(want, "", 0) || w.file(t, "example.test") != want {
		t.Errorf("%+v, want\n%s", r, want)
	}
	if age := time.Since(e.Fetched); age < 0 || age > must.Patience {
		t.Errorf("fetched %v ago", age)
	}
	if asked := w.dns.Questions(); asked["TXT _mta-sts.example.test"] != 0 {
		t.Errorf("with an id: %v", asked)
	}
	if files := must.Get(filepath.Glob(filepath.Join(w.cache, ".*")))(t); files != nil {
		t.Errorf("with an id, the lock is the caller's: %q", files)
	}
	// Without an id TXT is asked.
	r = w.run(t, "fetch", "example.test")
	if r.Status != 0 || !strings.Contains(r.Out, "\nid 20160831085700Z\n") || w.file(t, "example.test") != r.Out {
		t.Errorf("%+v", r)
	}
	if files := must.Get(filepath.Glob(filepath.Join(w.cache, ".*")))(t); len(files) != 1 || !strings.HasPrefix(filepath.Base(files[0]), ".lock-") {
		t.Errorf("without an id: %q", files)
	}
	if n := w.requests.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// With -n nothing is stored, and nobody is kept waiting.
func TestFetch_look(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{{"fetch", "-n", "example.test", "abc"}, {"fetch", "-n", "example.test"}, {"fetch", "-n", "refused.test", "abc"}} {
		r := w.run(t, args...)
		if fails := strings.HasPrefix(args[2], "refused"); (r.Status == 75) != fails || strings.Contains(r.Out, policy) == fails || !strings.HasPrefix(r.Out, "mxf-sts 1\n") {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if files := must.Get(os.ReadDir(w.cache))(t); len(files) != 0 {
		t.Errorf("it has stored %v", files)
	}
}

// A policy that cannot be had leaves the one before it.
func TestFetch_fails(t *testing.T) {
	w := newWorld(t)
	const why = "sts-policy-fetch-error mta-sts.refused.test: connection refused"
	r := w.run(t, "fetch", "refused.test")
	e := must.Get(w.store.Load("refused.test"))(t)
	if r != cmdtest.Want(fmt.Sprintf("mxf-sts 1\ndomain refused.test\nfailed %d %s\n\n", e.Failed.At.Unix(), why), why+"\n", 75) || w.file(t, "refused.test") != r.Out {
		t.Errorf("%+v", r)
	}
	w.put(t, "refused.test", "enforce", time.Hour, 0)
	r = w.run(t, "fetch", "refused.test", "new")
	if e = must.Get(w.store.Load("refused.test"))(t); r.Status != 75 || e.ID != "old" || e.Text != policy || e.Failed == nil || r.Out != string(e.Encode()) {
		t.Errorf("%+v", r)
	}
	w.answer.Store("version: STSv1\n")
	r = w.run(t, "fetch", "example.test", "x")
	if e = must.Get(w.store.Load("example.test"))(t); r.Status != 75 || e.Failed.Kind != mtasts.PolicyInvalid || e.Failed.Reason != "mta-sts.example.test: no mode" {
		t.Errorf("%+v", r)
	}
	w.answer.Store(policy)
	r = w.run(t, "fetch", "example.test", "x")
	if e = must.Get(w.store.Load("example.test"))(t); r.Status != 0 || e.Failed != nil {
		t.Errorf("%+v", r)
	}
}

func TestFetch_noRecord(t *testing.T) {
	w := newWorld(t)
	for domain, want := range map[string]string{
		"gone.test":      "gone.test has no MTA-STS: there is no single good record at _mta-sts.gone.test\n",
		"malformed.test": "malformed.test has no MTA-STS: there is no single good record at _mta-sts.malformed.test\n",
		"broken.test":    "broken.test: cannot look up _mta-sts.broken.test: " + w.dns.Addr.String() + ": server failure\n",
	} {
		if r := w.run(t, "fetch", domain); r != cmdtest.Want("", want, 75) {
			t.Errorf("%s: %+v", domain, r)
		}
	}
	if n := w.requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// A policy that cannot be stored is used and not kept.
func TestFetch_notStored(t *testing.T) {
	w := newWorld(t)
	must.OK(t, os.Mkdir(filepath.Join(w.cache, "example.test"), 0o755))
	r := w.run(t, "fetch", "example.test")
	if r.Status != 0 || !strings.HasSuffix(r.Out, "\n\n"+policy) || !strings.HasPrefix(r.Err, "mxf-policy: warning: what is known of example.test cannot be stored: ") {
		t.Errorf("%+v", r)
	}
	if files := must.Get(filepath.Glob(filepath.Join(w.cache, ".new-*")))(t); files != nil {
		t.Errorf("%q", files)
	}
}

// Without an id the lock is waited for.
func TestFetch_lock(t *testing.T) {
	w := newWorld(t)
	lock := must.Get(w.store.Lock(t.Context(), "example.test"))(t)
	cmd := cmdtest.Command(t, []string{"MXF_HOME=" + w.home}, "fetch", "example.test")
	var out bytes.Buffer
	cmd.Stdout = &out
	must.OK(t, cmd.Start())
	must.Until(t, "the question for TXT", func() bool { return w.dns.Questions()["TXT _mta-sts.example.test"] > 0 })
	before := w.requests.Load()
	lock.Unlock()
	must.OK(t, cmd.Wait())
	if before != 0 || w.requests.Load() != 1 || !strings.HasSuffix(out.String(), policy) {
		t.Errorf("%d requests before, %d after\n%s", before, w.requests.Load(), &out)
	}
}

// What a delivery does with it: a hundred of them, one connection.
func TestFetch_deliveries(t *testing.T) {
	w := newWorld(t)
	results := make(chan mtasts.Finding)
	for range 100 {
		go func() {
			results <- w.store.Find(context.Background(), "example.test", "new", func(_ context.Context, domain, id string) (*mtasts.Entry, *mtasts.Failure) {
				r := w.run(t, "fetch", domain, id)
				e, err := mtasts.ParseEntry(domain, []byte(r.Out), time.Now())
				if err != nil || r.Status != 0 {
					t.Errorf("%+v, %v", r, err)
				}
				return e, nil
			})
		}()
	}
	for range 100 {
		if f := <-results; f.Policy() == nil || f.Holds.ID != "new" {
			t.Errorf("%s", f.String())
		}
	}
	if n := w.requests.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	const day, hour = 24 * time.Hour, time.Hour
	w.put(t, "example.test", "testing", 13*hour, 3*day)
	w.put(t, "gone.test", "testing", 30*day, day) // expired, and the record is gone
	w.put(t, "none.test", "none", 13*hour, day)
	w.put(t, "new.test", "testing", 11*hour, day)
	w.put(t, "refused.test", "testing", 13*hour, 2*day)
	w.put(t, "unused.test", "testing", 13*hour, 181*day)
	r := w.run(t, "refresh", "-j1", "-s", "0")
	if r != cmdtest.Want("refused.test: sts-policy-fetch-error mta-sts.refused.test: connection refused\n", "1 of 3 policies could not be fetched\n", 75) {
		t.Errorf("%+v", r)
	}
	for domain, want := range map[string]struct {
		mode mtasts.Mode
		id   string
		used time.Duration
	}{
		"example.test": {mtasts.Enforce, "20160831085700Z", 3 * day}, "gone.test": {mtasts.Enforce, "old", day}, "none.test": {mtasts.None, "old", day},
		"new.test": {mtasts.Testing, "old", day}, "refused.test": {mtasts.Testing, "old", 2 * day},
	} {
		e := must.Get(w.store.Load(domain))(t)
		if used := time.Since(e.Used); e.Policy.Mode != want.mode || e.ID != want.id || (e.Failed != nil) != (domain == "refused.test") || used < want.used || used > want.used+hour {
			t.Errorf("%s: %+v, used %v ago", domain, e, used)
		}
	}
	if _, err := w.store.Load("unused.test"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unused: %v", err)
	}
	if n := w.requests.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
	// What is fetched is not due.
	must.OK(t, os.Remove(filepath.Join(w.cache, "refused.test")))
	if r := w.run(t, "refresh", "-j", "64", "-s1"); r != cmdtest.Want("", "", 0) {
		t.Errorf("%+v", r)
	}
}

func TestList(t *testing.T) {
	w := newWorld(t)
	for i, mode := range []string{"none", "testing"} {
		text := strings.Replace(policy, "enforce", mode, 1)
		p := must.Get(mtasts.ParsePolicy([]byte(text)))(t)
		e := &mtasts.Entry{Domain: fmt.Sprintf("b%d.test", i), ID: "1a", Fetched: time.Unix(1764000000, 0), Text: text, Policy: p}
		if i == 1 {
			e.Failed = mtasts.NewFailure(mtasts.WebPKIInvalid, time.Now(), "x")
		}
		must.OK(t, w.store.Save(e))
	}
	must.OK(t, w.store.Save(&mtasts.Entry{Domain: "a.test", Failed: mtasts.NewFailure(mtasts.FetchError, time.Now(), "x")}))
	must.Write(t, filepath.Join(w.cache, "malformed.test"), "x")
	want := "a.test - - - - failed sts-policy-fetch-error\n" +
		"b0.test none 2025-11-24T16:00:00Z 2025-12-01T16:00:00Z 1a\n" +
		"b1.test testing 2025-11-24T16:00:00Z 2025-12-01T16:00:00Z 1a failed sts-webpki-invalid\n"
	if r := w.run(t, "list"); r != cmdtest.Want(want, "", 0) {
		t.Errorf("%+v", r)
	}
}

func TestUsage(t *testing.T) {
	environ := []string{"MXF_HOME=" + must.Home(t, nil)}
	for _, c := range []struct {
		args []string
		err  string
	}{
		{nil, usage}, {[]string{"fetch"}, usage}, {[]string{"fetch", "a.test", "1", "2"}, usage}, {[]string{"list", "x"}, usage}, {[]string{"refresh", "x"}, usage},
		{[]string{"bogus"}, usage}, {[]string{"-x"}, usage}, {[]string{"--help", "x"}, usage},
		{[]string{"fetch", "[192.0.2.1]"}, `"[192.0.2.1]" is not a domain that can have a policy`},
		{[]string{"fetch", "../x"}, `"../x" is not a domain that can have a policy`},
		{[]string{"fetch", "a.test", "1-2"}, `"1-2" is not an id: 1 to 32 letters and digits`},
		{[]string{"fetch", "a.test", ""}, `"" is not an id: 1 to 32 letters and digits`},
		{[]string{"refresh", "-j0"}, `option "-j": "0" is not a number from 1 to 64`},
		{[]string{"refresh", "-j", "65"}, `option "-j": "65" is not a number from 1 to 64`},
		{[]string{"refresh", "-s", "86401"}, `option "-s": "86401" is not a number from 0 to 86400`},
		{[]string{"refresh", "-x"}, `unknown option "-x"`},
	} {
		cmdtest.Run(t, cmdtest.Command(t, environ, c.args...)).Check(t, cmdtest.Want("", c.err+"\n", 100))
	}
}

// What is wrong with the control files is said as a delivery says it.
func TestControlFiles(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "sts")
	must.OK(t, os.Mkdir(folder, 0o755))
	open := filepath.Join(t.TempDir(), "open")
	must.OK(t, os.Mkdir(open, 0o755), os.Chmod(open, 0o775))
	anchors := tlstest.Bundle(t, tlstest.NewAuthority("authority"))
	for _, c := range []struct {
		name  string
		files map[string]string
		err   string
	}{
		{"nothing", nil, "control/mtasts:0: expected the folder"},
		{"no anchors", map[string]string{"mtasts": folder}, "control/mtasts:1: expected trust anchors"},
		{"no folder", map[string]string{"mtasts": folder + "x", "trustanchors": anchors}, "control/mtasts:1: expected a folder that this process can read and write, and nobody else can write, found \"" + folder + "x\": no such file or directory."},
		{"a file", map[string]string{"mtasts": anchors, "trustanchors": anchors}, "control/mtasts:1: expected a folder"},
		{"open to others", map[string]string{"mtasts": open, "trustanchors": anchors}, "its mode is 0775"},
		{"no anchor", map[string]string{"mtasts": folder, "trustanchors": "/dev/null"}, "control/trustanchors:1: "},
		{"malformed", map[string]string{"mtasts": folder, "trustanchors": anchors, "trustresolvers": "x"}, "control/trustresolvers:1: expected the IP address"},
	} {
		for _, command := range [][]string{{"fetch", "a.test", "1"}, {"refresh"}, {"list"}} {
			if c.name == "no anchor" && command[0] == "list" {
				continue // it has no use for them
			}
			r := cmdtest.Run(t, cmdtest.Command(t, []string{"MXF_HOME=" + must.Home(t, c.files)}, command...))
			if r.Status != 111 || r.Out != "" || !strings.HasPrefix(r.Err, "Unable to read control files: control/") || !strings.Contains(r.Err, c.err) || !strings.HasSuffix(r.Err, ". (#4.3.0)\n") {
				t.Errorf("%s %s: %+v", c.name, command[0], r)
			}
		}
	}
	if names := must.Get(os.ReadDir(folder))(t); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}
