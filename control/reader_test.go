package control_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

// everyFile has another value than the default for each file that a Reader reads.
var everyFile = files{
	"helohost": "out.example.org\n", "protocols": "qmtp:209:1:N:N:p\nsmtp:25:0:N:Y:p\nlmtp:24:2:N:N:p\n", "lmtproutes": ":relay\n",
	"smtproutes": ":relay\n", "qmtproutes": "example.com:relay\n", "submissionsroutes": "example.com:relay\n", "senderroutes": "@a:b\n",
	"tlsclient": "c\n", "ucspitlsclient": "c\n", "trustanchors": "/etc/ssl/cert.pem\n", "tlsstrictness": "1\n",
	"sources": ":192.0.2.1\n", "families": ":ipv4\n", "clientcerts": "::cert\n", "signingkeys": "a:s:k\n", "ipme": "", "smtpavoid": ":SIZE\n",
	"timeoutconnect": "30\n", "timeoutremote": "600\n", "timeoutdns": "30\n", "trace": "t\n", "mtasts": "/sts\n", "trustresolvers": "127.0.0.1\n",
	"tlspolicy": ":may\n", "clearafter": "1\n", "tlsrptsocket": "/s\n",
	"connectionlimits": ":5\n", "connectionidle": "0\n", "connectionwait": "0\n", "tlsresumption": "0\n", "queuelifetime": "5\n", "statusfile": "/s\n",
	"credentials": "relay::joe:password:hunter2\n",
}

// isFresh wants a Set to have what is in the home now.
func isFresh(t *testing.T, set *control.Set, home, when string) {
	t.Helper()
	settings, sharing := must.Get(control.Read(home))(t), must.Get(control.ReadSharing(home))(t)
	if !reflect.DeepEqual(set.Settings, settings) || !reflect.DeepEqual(set.Sharing, sharing) {
		t.Errorf("%s: got  %+v %+v\nwant %+v %+v", when, set.Settings, set.Sharing, settings, sharing)
	}
}

// TestReaderNoticesEveryFile makes, changes and removes each file.
func TestReaderNoticesEveryFile(t *testing.T) {
	for name, text := range everyFile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := files{}
			if name == "lmtproutes" {
				f["protocols"] = everyFile["protocols"]
			}
			h := home(t, f)
			path := filepath.Join(h, "control", name)
			r := control.NewReader(h)
			read := func(when string) *control.Set {
				set := must.Get(r.Read())(t)
				isFresh(t, set, h, when)
				if again := must.Get(r.Read())(t); again != set {
					t.Errorf("%s: two sets of the same files", when)
				}
				return set
			}
			before := read("at first")
			must.Write(t, path, text)
			must.OK(t, os.Chmod(path, 0o640)) // credentials are not for others
			with := read("made")
			must.Write(t, path, "# x\n"+text)
			if name == "credentials" || strings.HasSuffix(name, "routes") { // in others that is malformed, or another value
				read("changed")
			}
			must.Write(t, path, text)
			must.OK(t, os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)))
			if name != "credentials" && !strings.HasSuffix(name, "routes") && read("as it was") != with {
				t.Error("the same content is another set")
			}
			must.OK(t, os.Remove(path))
			without := read("removed")
			if with == before || without == with {
				t.Error("a change is not noticed")
			}
		})
	}
}

// TestReaderSeesQuickChanges: a change is seen whenever it comes, however young the stamps are.
func TestReaderSeesQuickChanges(t *testing.T) {
	h := home(t, files{"timeoutdns": "1000\n"})
	path := filepath.Join(h, "control", "timeoutdns")
	f := must.Get(os.OpenFile(path, os.O_WRONLY, 0))(t)
	defer f.Close()
	r := control.NewReader(h)
	for i := range 500 {
		text := fmt.Sprintf("%d\n", 1000+i)
		if i%2 == 0 {
			must.Get(f.WriteAt([]byte(text), 0))(t) // the same inode and size
		} else {
			must.OK(t, f.Close(), os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path))
			f = must.Get(os.OpenFile(path, os.O_WRONLY, 0))(t)
		}
		if set := must.Get(r.Read())(t); set.TimeoutDNS != time.Duration(1000+i)*time.Second {
			t.Fatalf("%v after %d changes", set.TimeoutDNS, i)
		}
		if i%100 == 0 {
			time.Sleep(150 * time.Millisecond) // the stamps settle
			must.Get(r.Read())(t)
		}
	}
}

// TestReaderAtOnce: nobody gets what was changed before the call.
func TestReaderAtOnce(t *testing.T) {
	h := home(t, files{"timeoutdns": "1000\n"})
	path := filepath.Join(h, "control", "timeoutdns")
	r := control.NewReader(h)
	var written atomic.Int64
	written.Store(1000)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := written.Load()
				set, err := r.Read()
				if err != nil || int64(set.TimeoutDNS/time.Second) < least {
					t.Errorf("got %v, %v, and %d was written before", set, err, least)
					return
				}
			}
		})
	}
	for i := int64(1001); i < 1300; i++ {
		must.OK(t, os.WriteFile(path+".new", fmt.Appendf(nil, "%d\n", i), 0o644), os.Rename(path+".new", path))
		written.Store(i)
		if i%100 == 0 {
			time.Sleep(150 * time.Millisecond)
		}
	}
	close(stop)
	readers.Wait()
}

// An error stays, and goes with the change that mends it.
func TestReaderErrors(t *testing.T) {
	h := home(t, files{"connectionidle": "x\n"})
	path := filepath.Join(h, "control", "connectionidle")
	r := control.NewReader(h)
	for range 2 {
		set, err := r.Read()
		refused(t, err, "connectionidle", 1, "from 0 to 300")
		if set != nil {
			t.Errorf("%v comes with an error", set)
		}
	}
	must.Write(t, path, "7\n")
	good := must.Get(r.Read())(t)
	must.Write(t, filepath.Join(h, "control", "smtproutes"), "x\n")
	_, err := r.Read()
	refused(t, err, "smtproutes", 1, "domain:relay")
	must.OK(t, os.Remove(filepath.Join(h, "control", "smtproutes")))
	if again := must.Get(r.Read())(t); again != good {
		t.Error("the same content is another set after an error")
	}
	must.OK(t, os.Remove(path), os.Symlink(h+"/elsewhere", path))
	_, err = r.Read()
	refused(t, err, "connectionidle", 0, "link to nothing")
	must.Write(t, h+"/elsewhere", "8\n") // the folder does not change
	if set := must.Get(r.Read())(t); set.Idle != 8*time.Second {
		t.Errorf("got %v", set.Idle)
	}
	must.OK(t, os.Rename(h+"/control", h+"/away"))
	_, err = r.Read()
	refused(t, err, "helohost", 0, "control/me")
	must.OK(t, os.Rename(h+"/away", h+"/control"))
	isFresh(t, must.Get(r.Read())(t), h, "back")
}

// Nobody else's mistakes stop mail that needs no login.
func TestReaderCredentials(t *testing.T) {
	h := home(t, files{"credentials": "two words\n"})
	path := filepath.Join(h, "control", "credentials")
	r := control.NewReader(h)
	must.OK(t, os.Chmod(path, 0o640))
	set := must.Get(r.Read())(t)
	must.Write(t, path, "relay::joe:password:hunter2\n")
	if must.Get(r.Read())(t) == set {
		t.Error("another login is the same set")
	}
}

// Links can be changed at every step of the way.
func TestReaderLinks(t *testing.T) {
	h := home(t, nil)
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	for _, version := range []string{"1", "2"} {
		must.OK(t, os.MkdirAll(at(version), 0o755))
		must.Write(t, at(version)+"/timeoutdns", version+"\n")
	}
	relink := func(target, link string) {
		must.OK(t, os.Symlink(target, link+".new"), os.Rename(link+".new", link))
	}
	relink("1", at("current"))
	relink(at("current")+"/timeoutdns", h+"/control/timeoutdns")
	r := control.NewReader(h)
	check := func(want time.Duration) {
		t.Helper()
		time.Sleep(150 * time.Millisecond) // the stamps before settle
		for range 2 {
			if set := must.Get(r.Read())(t); set.TimeoutDNS != want*time.Second {
				t.Errorf("got %v, want %d s", set.TimeoutDNS, want)
			}
		}
	}
	check(1)
	relink("2", at("current")) // a folder on the way
	check(2)
	relink(at("1")+"/timeoutdns", h+"/control/timeoutdns") // the file itself
	check(1)
	must.OK(t, os.Rename(h+"/control", h+"/old"), os.MkdirAll(h+"/new", 0o755))
	must.Write(t, h+"/new/me", "mx.example.org\n")
	must.Write(t, h+"/new/timeoutdns", "3\n")
	relink("old", h+"/control")
	check(1)
	relink("new", h+"/control") // the folder of control files
	check(3)
}

// A table that is not kept in memory counts by its stamp.
func TestReaderLongTable(t *testing.T) {
	lines := strings.Repeat("domain.example:relay.example.net\n", control.MaxFile/30)
	h := home(t, files{"smtproutes": lines})
	path := filepath.Join(h, "control", "smtproutes")
	r := control.NewReader(h)
	r.Now = func() time.Time { return time.Now().Add(time.Hour) } // all is settled
	set := must.Get(r.Read())(t)
	if must.Get(r.Read())(t) != set {
		t.Error("a table that has not changed is another set")
	}
	must.Write(t, path, lines+"other.example:relay\n")
	changed := must.Get(r.Read())(t)
	if relay, err := changed.Service("smtp").Routes.Lookup("other.example"); changed == set || err != nil || relay == nil {
		t.Errorf("got %v, %v", relay, err)
	}
	must.Write(t, path, lines+"other.example:relay:x\n")
	_, err := r.Read()
	refused(t, err, "smtproutes", strings.Count(lines, "\n")+1, "a port")
}

// BenchmarkReader measures what a delivery pays while nothing changes: in a home of 12 files, and in
// one that has all.
func BenchmarkReader(b *testing.B) {
	twelve := files{}
	for _, name := range []string{"helohost", "smtproutes", "submissionsroutes", "trustanchors", "tlsstrictness", "ipme", "trustresolvers", "mtasts", "tlspolicy", "connectionlimits", "credentials"} {
		twelve[name] = everyFile[name]
	}
	for name, f := range map[string]files{"12 files": twelve, "all files": everyFile} {
		b.Run(name, func(b *testing.B) {
			r := control.NewReader(home(b, f))
			r.Now = func() time.Time { return time.Now().Add(time.Hour) }
			set := must.Get(r.Read())(b)
			b.ReportAllocs()
			for b.Loop() {
				if must.Get(r.Read())(b) != set {
					b.Fatal("another set")
				}
			}
		})
	}
}
