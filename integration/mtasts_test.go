package integration

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/mtasts"
)

// MTA-STS, with policies by HTTPS on port 443, which a network of its own has.
//
//	mxf-remote ──► name server, SMTP
//	   └── mxf-policy ──► name server, HTTPS
//
// The scripts are like those of TestScripts. More commands:
//
//	httpsserver NAME ADDR FILE OPTION...  a server whose answer is FILE; see httpsServer
//	fetches N                    so many connections to those were made
//	age DOMAIN DURATION          what the cache has of DOMAIN becomes older: fetched, failed, last use
//	used DOMAIN MIN MAX          how long ago the cache has it that DOMAIN was used
//
// Each server of policies has an address that no other script uses: scripts run at the same
// time, and the port is the same for all.
func TestMTASTS(t *testing.T) {
	if apart(t, nil) {
		runScripts(t, programs(t), testscript.Params{Dir: "testdata/sts"})
	}
}

var mtastsCommands = map[string]command{
	"httpsserver": plain(3, (*rig).httpsServer),
	"fetches":     plain(1, (*rig).fetches),
	"age":         plain(2, (*rig).age),
	"used":        plain(3, (*rig).used),
}

// httpsServer starts a server of policies. Options: those of common; status=LINE, header=LINE,
// type=TYPE (none: without a media type), size=BYTES (so many bytes, with empty lines). The
// faults are those of lab.HTTPS.
func (r *rig) httpsServer(ts *testscript.TestScript, args []string) error {
	name, addr, err := r.begin(lab.ProtocolHTTPS, args)
	if err != nil {
		return err
	}
	config := lab.HTTPS{Name: name, Faults: make(lab.Faults), Body: ts.ReadFile(args[2])}
	cert, media := "good", "text/plain"
	for _, option := range args[3:] {
		key, value, _ := strings.Cut(option, "=")
		known, err := r.common(&config.TLS, config.Faults, &cert, key, value)
		switch key {
		case "status":
			config.Status = value
		case "header":
			config.Header = append(config.Header, value)
		case "type":
			media = value
		case "size":
			var size int
			if size, err = strconv.Atoi(value); err == nil {
				config.Body += strings.Repeat("\n", max(0, size-len(config.Body)))
			}
		default:
			if err == nil && !known {
				err = fmt.Errorf("unknown option %q", key)
			}
		}
		if err != nil {
			return err
		}
	}
	if media != "none" {
		config.Header = append(config.Header, "Content-Type: "+media)
	}
	if config.TLS.Certificate, err = r.certificate(cert, name, addr); err != nil {
		return err
	}
	s, err := r.HTTPS(addr, config)
	return r.started(lab.ProtocolHTTPS, name, s, err)
}

func (r *rig) fetches(_ *testscript.TestScript, args []string) error {
	return count("policies were asked for", args[0], func() (n int) {
		for _, s := range r.Inbox.Sessions() {
			if s.Protocol == lab.ProtocolHTTPS {
				n++
			}
		}
		return n
	})
}

// cacheFile is the file of a policy domain.
func (r *rig) cacheFile(domain string) string { return r.Home.Path("sts/" + domain) }

// cacheFile is the file of a policy domain.
func (w *stsWorld) cacheFile(domain string) string { return w.Home.Path("sts/" + domain) }

// cacheTime is a line of a cache file that has a time.
var cacheTime = regexp.MustCompile(`(?m)^(fetched|failed) (\d+)`)

func (r *rig) age(_ *testscript.TestScript, args []string) error {
	older, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	path := r.cacheFile(args[0])
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data = cacheTime.ReplaceAllFunc(data, func(line []byte) []byte {
		word, digits, _ := strings.Cut(string(line), " ")
		seconds, _ := strconv.ParseInt(digits, 10, 64)
		return fmt.Appendf(nil, "%s %d", word, seconds-int64(older/time.Second))
	})
	before := info.ModTime().Add(-older)
	return errors.Join(os.WriteFile(path, data, 0o644), os.Chtimes(path, before, before))
}

func (r *rig) used(_ *testscript.TestScript, args []string) error {
	least, err := time.ParseDuration(args[1])
	most, err2 := time.ParseDuration(args[2])
	info, err3 := os.Stat(r.cacheFile(args[0]))
	if err = errors.Join(err, err2, err3); err != nil {
		return err
	}
	if ago := time.Since(info.ModTime()); ago < least || ago > most {
		return fmt.Errorf("it was used %v ago", ago)
	}
	return nil
}

// A stsWorld has one domain, example.org, with a policy that is enforced, and its exchanger.
type stsWorld struct {
	*lab.Lab
	dir, message, program string
}

// stsAddr is where policies are, in a network of its own.
var stsAddr = netip.MustParseAddr("127.0.1.1")

const stsPolicy = "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 604800\n"

// newSTS starts it, without a server of policies.
func newSTS(t *testing.T) *stsWorld {
	t.Helper()
	dir := t.TempDir()
	w := &stsWorld{must.Get(lab.Open(filepath.Join(dir, "home")))(t), dir, filepath.Join(dir, "message"), filepath.Join(programs(t), "mxf-remote")}
	t.Cleanup(func() {
		w.Close()
		must.Check(t, w.Inbox.Wrong())
	})
	put(t, w.message, []byte("Subject: hello\n\nHello.\n"))
	must.OK(t, os.Mkdir(w.Home.Path("sts"), 0o755), w.Home.Set("mtasts", "sts"), w.Home.Trust(w.Authority))
	must.OK(t, w.Zone(fmt.Sprintf("example.org MX 10 mx.example.org\nmx.example.org A 127.0.0.2\nmta-sts.example.org A %s\n_mta-sts.example.org TXT \"v=STSv1; id=1\"", stsAddr)))
	must.Get(w.SMTP(netip.MustParseAddr("127.0.0.2"), lab.SMTP{Name: "mx.example.org", TLS: lab.TLS{Certificate: w.Certificate("mx.example.org")}}))(t)
	return w
}

// serve starts the server of policies, which has these faults.
func (w *stsWorld) serve(t *testing.T, faults lab.Faults) {
	t.Helper()
	must.Get(w.HTTPS(stsAddr, lab.HTTPS{Name: "mta-sts.example.org", TLS: lab.TLS{Certificate: w.Certificate("mta-sts.example.org")},
		Header: []string{"Content-Type: text/plain"}, Body: stsPolicy, Faults: faults}))(t)
}

// deliver delivers the message, with more in the environment.
func (w *stsWorld) deliver(t *testing.T, environ ...string) (*lab.Outcome, error) {
	message, err := os.Open(w.message)
	if err != nil {
		return nil, err
	}
	defer message.Close()
	return lab.Rspawn(t.Context(), lab.Delivery{Program: w.program, Environ: append(append(w.Environ(), environ...), "GOCOVERDIR="+coverageIfAny(t)), Dir: w.dir,
		Message: message, Host: "example.org", Sender: "a@example.net", Recipients: []string{"b@example.org"}})
}

// asked returns the connections to the server of policies.
func (w *stsWorld) asked() (all []*lab.Session) {
	for _, s := range w.Inbox.Sessions() {
		if s.Protocol == lab.ProtocolHTTPS {
			all = append(all, s)
		}
	}
	return all
}

// A hundred deliveries at once to one domain make one HTTPS connection.
func TestMTASTS_hundred(t *testing.T) {
	if !apart(t, nil) {
		return
	}
	const deliveries = 100
	// The first one keeps the others waiting.
	w := newSTS(t)
	w.serve(t, lab.Faults{lab.End: {Delay: time.Second}})
	var all sync.WaitGroup
	for range deliveries {
		all.Go(func() {
			if o, err := w.deliver(t); err != nil || o.Letter != 'K' || !strings.HasSuffix(o.Text, " verified mx.example.org sts\n") {
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
	all.Wait()
	if n, arrived := len(w.asked()), len(w.Inbox.Messages()); n != 1 || arrived != deliveries {
		t.Errorf("%d HTTPS connections, %d messages", n, arrived)
	}
}

// What mxf-policy gets of a delivery: neither the message nor the pipe to qmail-rspawn nor
// anything else that is open, and an environment in which the home is named. When it is killed,
// the fetch has failed, which is kept.
func TestMTASTS_inherited(t *testing.T) {
	if !apart(t, nil) {
		return
	}
	w := newSTS(t)
	w.serve(t, lab.Faults{lab.End: {Stall: true}})
	const mark = "MXF_STALLED=1"
	trace := filepath.Join(w.dir, "trace")
	ended := make(chan *lab.Outcome, 1)
	go func() {
		o, err := w.deliver(t, mark, "MXF_TRACE="+trace)
		if err != nil {
			t.Error(err)
		}
		ended <- o
	}()
	until(t, "the request for the policy", func() bool { return len(w.asked()) == 1 && len(w.asked()[0].Commands()) > 0 })
	policy, router := "", ""
	for _, pid := range processesWith(mark) {
		switch exe, _ := os.Readlink("/proc/" + pid + "/exe"); filepath.Base(exe) {
		case "mxf-policy":
			policy = pid
		case "mxf-remote":
			router = pid
		}
	}
	if policy == "" || router == "" {
		t.Fatalf("mxf-policy is %q, mxf-remote %q", policy, router)
	}
	theirs := descriptorsOf(t, router)
	for fd, target := range descriptorsOf(t, policy) {
		kind, _, _ := strings.Cut(target, ":")
		inherited := slices.Contains(slices.Collect(maps.Values(theirs)), target)
		switch {
		case fd == "0":
			if target != "/dev/null" {
				t.Errorf("descriptor 0 is %s", target)
			}
		case fd == "1", fd == "2":
			if kind != "pipe" || target == theirs["1"] {
				t.Errorf("descriptor %s is %s", fd, target)
			}
		case kind == "anon_inode", strings.HasPrefix(target, "/sys/fs/cgroup/"): // the Go runtime's own
		case kind != "socket" || inherited:
			t.Errorf("descriptor %s is %s", fd, target)
		}
	}
	arguments := must.Get(os.ReadFile("/proc/" + policy + "/cmdline"))(t)
	if want := filepath.Join(programs(t), "mxf-policy") + "\x00fetch\x00example.org\x001\x00"; string(arguments) != want {
		t.Errorf("arguments %q", arguments)
	}
	environ := string(must.Get(os.ReadFile("/proc/" + policy + "/environ"))(t))
	if strings.Count("\x00"+environ, "\x00MXF_HOME=") != 1 || !strings.Contains(environ, "MXF_HOME="+w.Home.Dir+"\x00") {
		t.Errorf("environment %q", environ)
	}
	must.OK(t, syscall.Kill(must.Get(strconv.Atoi(policy))(t), syscall.SIGKILL))
	if o := <-ended; o == nil || o.Letter != 'K' || strings.Contains(o.Text, " sts") {
		t.Errorf("%+v", o)
	}
	const failed = "sts-policy-fetch-error mxf-policy ended with signal: killed\n"
	if text := string(must.Get(os.ReadFile(trace))(t)); !strings.Contains(text, " sts example.org: none: "+failed) {
		t.Errorf("%s", text)
	}
	if text := string(must.Get(os.ReadFile(w.Home.Path("sts/example.org")))(t)); !strings.HasSuffix(text, failed+"\n") {
		t.Errorf("%s", text)
	}
}

// descriptorsOf returns what the descriptors of a process are.
func descriptorsOf(t *testing.T, pid string) map[string]string {
	t.Helper()
	folder := "/proc/" + pid + "/fd"
	all := make(map[string]string)
	for _, entry := range must.Get(os.ReadDir(folder))(t) {
		if target, err := os.Readlink(filepath.Join(folder, entry.Name())); err == nil {
			all[entry.Name()] = target
		}
	}
	return all
}

// Mxf-remote with another mxf-policy beside it, or none.
func TestMTASTS_program(t *testing.T) {
	cached := fmt.Sprintf("mxf-sts 1\ndomain example.org\nid 1\nfetched %d\nbytes %d\n\n%s", time.Now().Unix(), len(stsPolicy), stsPolicy)
	const failed, text = "none: sts-policy-fetch-error ", "#!/bin/sh\n"
	for _, c := range []struct {
		name, program string // empty: there is none
		mode          os.FileMode
		letter        byte
		said          string // in the reports, or of the policy in the trace
	}{
		{"missing", "", 0, 'Z', "mxf-policy"},
		{"not executable", text, 0o644, 'Z', "it may not be executed"},
		{"no interpreter", "#!/nowhere/sh\n", 0o755, 'Z', "which is missing"},
		{"it cannot", text + "exit 111\n", 0o755, 'Z', "exit status 111"},
		{"it prints nothing", text, 0o755, 'K', failed},
		{"it prints rubbish", text + "echo rubbish\n", 0o755, 'K', failed},
		{"somebody holds its pipe", text + "sleep 3 &\nexit 75\n", 0o755, 'K', failed},
		{"a policy", text + "cat <<'END'\n" + cached + "END\n", 0o755, 'K', "enforce fetched 1: not cached"},
		{"it hangs", text + "exec sleep 100\n", 0o755, 'K', failed + "mxf-policy was killed, since it took too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "it hangs" && !long() {
				t.Skip("35 s; with MXF_LONG=1 alone")
			}
			t.Parallel()
			w := newSTS(t)
			w.program = filepath.Join(w.dir, "mxf-remote")
			must.OK(t, os.Link(filepath.Join(programs(t), "mxf-remote"), w.program))
			if path := filepath.Join(w.dir, "mxf-policy"); c.program != "" {
				must.OK(t, os.WriteFile(path, []byte(c.program), c.mode))
			}
			trace := filepath.Join(w.dir, "trace")
			o := must.Get(w.deliver(t, "MXF_TRACE="+trace))(t)
			said := o.Text
			if c.letter == 'K' {
				said = string(must.Get(os.ReadFile(trace))(t))
			}
			if o.Letter != c.letter || !strings.Contains(said, c.said) || c.letter == 'Z' && !strings.Contains(said, " (#4.3.0)\n") {
				t.Errorf("%c %q\n%s", o.Letter, o.Text, said)
			}
		})
	}
}

// Somebody else has the lock: a policy that is due to be fetched again holds meanwhile, and who
// needs one waits for 35 s and then goes without.
func TestMTASTS_busy(t *testing.T) {
	w := newSTS(t)
	const domain = "example.org"
	old := time.Now().Add(-25 * time.Hour)
	store := &mtasts.Store{Folder: w.Home.Path("sts")}
	entry := fmt.Sprintf("mxf-sts 1\ndomain %s\nid 1\nfetched %d\nbytes %d\n\n%s", domain, old.Unix(), len(stsPolicy), stsPolicy)
	put(t, w.cacheFile(domain), []byte(entry))
	lock := must.Get(store.TryLock(domain))(t)
	defer lock.Unlock()
	if o := must.Get(w.deliver(t))(t); o.Letter != 'K' || !strings.HasSuffix(o.Text, " sts\n") {
		t.Errorf("%+v", o)
	}
	if text := string(must.Get(os.ReadFile(w.cacheFile(domain)))(t)); text != entry {
		t.Errorf("the cache has %s", text)
	}
	if !long() {
		return
	}
	must.OK(t, os.Remove(w.cacheFile(domain)))
	trace := filepath.Join(w.dir, "trace")
	if o := must.Get(w.deliver(t, "MXF_TRACE="+trace))(t); o.Letter != 'K' || strings.HasSuffix(o.Text, " sts\n") || o.Elapsed < mtasts.LockWait {
		t.Errorf("%+v", o)
	}
	if text := string(must.Get(os.ReadFile(trace))(t)); !strings.Contains(text, " sts example.org: none: not cached, somebody else is fetching\n") {
		t.Errorf("%s", text)
	}
}

// A server of policies that does not answer costs 30 s, once: who waited does not try again.
func TestMTASTS_stalled(t *testing.T) {
	if !long() {
		t.Skip("30 s; with MXF_LONG=1 alone")
	}
	if !apart(t, nil) {
		return
	}
	w := newSTS(t)
	w.serve(t, lab.Faults{lab.Handshake: {Stall: true}})
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if o, err := w.deliver(t); err != nil || o.Letter != 'K' || strings.HasSuffix(o.Text, " sts\n") {
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
	all.Wait()
	const failed = " sts-policy-fetch-error mta-sts.example.org: the policy was not fetched in time\n\n"
	if text := string(must.Get(os.ReadFile(w.cacheFile("example.org")))(t)); len(w.asked()) != 1 || !strings.HasSuffix(text, failed) {
		t.Errorf("%d connections\n%s", len(w.asked()), text)
	}
}
