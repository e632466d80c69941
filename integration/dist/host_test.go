package main

import (
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
)

// inRoot returns a command that runs a program with a folder for its whole file system.
func inRoot(t *testing.T, root string, args ...string) *exec.Cmd {
	t.Helper()
	command := []string{"chroot", root}
	if os.Geteuid() != 0 {
		command = []string{"unshare", "--map-root-user", "chroot", root}
		if err := exec.Command("unshare", "--map-root-user", "true").Run(); err != nil {
			peers.Missing(t, "root", "no folder can be the root: %v", err)
		}
	}
	return exec.Command(command[0], append(command[1:], args...)...)
}

// alone unpacks an archive into a folder that has nothing else, and makes the folder the
// root: no C library, no shell, no /dev, no /proc, no resolv.conf. mxf-remote says its
// version, and delivers to a server with STARTTLS.
func alone(t *testing.T, m *made) {
	root := t.TempDir()
	unpack(t, m.path("-"+host+".tar.gz"), root)
	folder := "/" + m.name + "-" + host
	m.saysVersion(t, "mxf-remote", inRoot(t, root, folder+"/bin/mxf-remote", "--version"))

	l := must.Get(lab.Open(filepath.Join(root, "home")))(t)
	defer l.Close()
	must.OK(t, l.Home.Trust(l.Authority), l.Home.Set("tlsstrictness", "2"), l.Zone("example.org MX 10 mx.example.org\nmx.example.org A 127.0.0.2"))
	server := lab.SMTP{Name: "mx.example.org"}
	server.TLS.Certificate = l.Certificate("mx.example.org")
	must.Get(l.SMTP(netip.MustParseAddr("127.0.0.2"), server))(t)
	message := filepath.Join(t.TempDir(), "message")
	must.Write(t, message, "Subject: alone\n\nNobody else is here.\n")
	must.OK(t, l.Home.Set("protocols", l.Protocols()[2]))
	cmd := inRoot(t, root, folder+"/bin/mxf-remote", "example.org", "a@example.net", "b@example.org")
	o := must.Get(lab.Rspawn(t.Context(), lab.Delivery{Program: must.Get(exec.LookPath(cmd.Args[0]))(t), Arguments: cmd.Args[1:], Dir: root,
		Environ: []string{"MXF_HOME=/home", "DNSCACHEIP=" + l.DNS.Addr()}, Message: must.Open(t, message)}))(t)
	if o.Letter != 'K' || !strings.Contains(o.Text, " verified mx.example.org") || len(l.Inbox.Messages()) != 1 {
		t.Errorf("%c %q, %d messages", o.Letter, o.Text, len(l.Inbox.Messages()))
	}
}

// A chroot is a Debian in a folder.
type chroot struct {
	t   *testing.T
	dir string
}

// newDebian installs the least Debian that there is, from where this host gets its packages.
func newDebian(t *testing.T) *chroot {
	t.Helper()
	if os.Geteuid() != 0 {
		peers.Missing(t, "root", "debootstrap wants root")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		peers.Missing(t, "debootstrap", "%v", err)
	}
	said, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages", "Component: main").Output()
	if err != nil || len(said) == 0 {
		t.Skipf("apt does not say where packages come from: %v", err)
	}
	words := strings.Fields(string(said))
	c := &chroot{t, filepath.Join(t.TempDir(), "debian")}
	must.Get(output(exec.Command("debootstrap", "--variant=minbase", words[1], c.dir, words[0])))(t)
	return c
}

func (c *chroot) path(name string) string { return filepath.Join(c.dir, name) }

// run runs a program there, and returns what it says.
func (c *chroot) run(args ...string) (said string, err error) {
	cmd := exec.Command("chroot", append([]string{c.dir}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *chroot) must(args ...string) string {
	c.t.Helper()
	said, err := c.run(args...)
	if err != nil {
		c.t.Fatalf("%q: %v\n%s", args, err, said)
	}
	return said
}

// debian installs the package on a host with qmail, and removes it: nothing of qmail changes,
// mail goes as before, and the package cannot be removed while mail goes by it.
func debian(t *testing.T, m *made) {
	t.Parallel()
	c := newDebian(t)
	must.Write(t, c.path("var/qmail/control/me"), "host.example.net\n")
	must.OK(t, os.MkdirAll(c.path("var/qmail/bin"), 0o755))
	must.Script(t, c.path("var/qmail/bin/qmail-remote"), "echo the old one")
	must.OK(t, os.WriteFile(c.path("mxf.deb"), must.Get(os.ReadFile(m.path("-"+host+".deb")))(t), 0o644))
	qmail, system := snapshot(t, c.path("var/qmail")), listedBeneath(t, c.path("usr/share"))

	c.must("dpkg", "-i", "/mxf.deb")
	var files []string
	for name := range strings.Lines(c.must("dpkg", "-L", "mxf")) {
		name = strings.TrimSpace(name)
		if info, err := os.Lstat(c.path(name)); err != nil {
			t.Error(err)
		} else if !info.IsDir() {
			files = append(files, strings.TrimPrefix(name, "/"))
		}
	}
	inPackages(t, files)
	after := snapshot(t, c.path("var/qmail"))
	maps.DeleteFunc(after, func(name, _ string) bool { return slices.Contains(files, "var/qmail"+name) })
	if !maps.Equal(qmail, after) {
		t.Errorf("qmail's folder had %q, and now %q", qmail, after)
	}
	if said := c.must("/var/qmail/bin/mxf-remote", "--version"); !strings.Contains(said, m.commit[:12]) {
		t.Errorf("%q", said)
	}
	if said := c.must("/var/qmail/bin/mxf-try"); !strings.Contains(said, "accepted message") {
		t.Errorf("mxf-try says\n%s", said)
	}

	// Switched over, as INSTALL.md has it.
	old := must.Get(os.ReadFile(c.path("var/qmail/bin/qmail-remote")))(t)
	for _, ours := range []string{"mxf-remote-safe", "mxf-remote"} {
		c.must("cp", "/var/qmail/bin/"+ours, "/var/qmail/bin/qmail-remote")
		if said, err := c.run("dpkg", "-r", "mxf"); err == nil || !strings.Contains(said, "mxf stays: /var/qmail/bin/qmail-remote is mxf-remote.") {
			t.Errorf("removed while qmail-remote is a copy of %s: %v\n%s", ours, err, said)
		}
		c.must("/var/qmail/bin/mxf-remote", "--version")
		c.must("dpkg", "-i", "/mxf.deb") // an upgrade
	}
	// Back again.
	must.OK(t, os.WriteFile(c.path("var/qmail/bin/qmail-remote"), old, 0o755))
	must.OK(t, os.Symlink("mxf-rspawn", c.path("var/qmail/bin/qmail-rspawn")))
	if said, err := c.run("dpkg", "-r", "mxf"); err == nil || !strings.Contains(said, "mxf stays: /var/qmail/bin/qmail-rspawn is mxf-rspawn.") {
		t.Errorf("removed while qmail-rspawn is a link to mxf-rspawn: %v\n%s", err, said)
	}
	must.OK(t, os.Remove(c.path("var/qmail/bin/qmail-rspawn")))
	c.must("dpkg", "-r", "mxf")
	after = snapshot(t, c.path("var/qmail"))
	for name, before := range qmail {
		if now := after[name]; now != before && name != "/bin/qmail-remote" {
			t.Errorf("var/qmail%s was %s, and now %s", name, before, now)
		}
	}
	if len(after) != len(qmail) {
		t.Errorf("it has left %q, there was %q", after, qmail)
	}
	if now := listedBeneath(t, c.path("usr/share")); !slices.Equal(now, system) {
		t.Error("it has left something in /usr/share")
	}
}

func listedBeneath(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	must.OK(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	}))
	return names
}

// The script of packages sees who sets QMAILREMOTE, and lets an upgrade be.
func TestBeforeRemoval(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip(err)
	}
	qmail := exec.Command("sleep", "1000")
	qmail.Env = []string{"QMAILREMOTE=/opt/qmail/bin/mxf-remote-safe"}
	qmail.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must.OK(t, qmail.Start())
	defer func() { qmail.Process.Kill(); _ = qmail.Wait() }()
	for _, test := range []struct {
		args  []string
		stays bool
	}{
		{[]string{"remove"}, true},               // dpkg
		{[]string{"upgrade", "1.2.3"}, false},    // dpkg
		{[]string{"deconfigure"}, true},          // dpkg
		{[]string{"0"}, true},                    // rpm
		{[]string{"1"}, false},                   // rpm, an upgrade
		{[]string{"1.2.3-r1"}, true},             // apk
		{[]string{"failed-upgrade", "1"}, false}, // dpkg
		{nil, true},
	} {
		said, err := exec.Command("/bin/sh", append([]string{"before-removal"}, test.args...)...).CombinedOutput()
		if (err != nil) != test.stays || test.stays != strings.HasPrefix(string(said), "mxf stays: QMAILREMOTE is set to mxf-remote") {
			t.Errorf("%q: %v, %q", test.args, err, said)
		}
	}
}
