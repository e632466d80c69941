package check

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"nightmare.mail/mxf/control"
)

// canSearch reports whether files in the folder of control files can be looked at. If not, that
// is one error, and not one for each file.
func (l *look) canSearch() bool {
	info, err := os.Stat(filepath.Join(l.Home, "control", "."))
	if err == nil {
		_, err = os.Lstat(filepath.Join(l.Home, "control", "me"))
	}
	const do = "name the right home ($MXF_HOME), or give the user that delivers the right to read the folder: chmod 755 control"
	var failed *fs.PathError
	switch {
	case errors.As(err, &failed) && (info == nil || !errors.Is(err, fs.ErrNotExist)):
		l.fail("control", 0, do, "expected a folder that can be searched, in the home %q: %v", l.Home, failed.Err)
		return false
	case !info.IsDir():
		l.fail("control", 0, do, "expected a folder in the home %q, found something else", l.Home)
		return false
	}
	return true
}

// files says what each control file has, and all that is wrong with it.
func (l *look) files() {
	for _, f := range l.survey.Files {
		name := strings.TrimPrefix(f.Name, "control/")
		switch {
		case l.isBroken(name):
			for _, e := range l.survey.Mistakes {
				if e.File == f.Name {
					l.fail(e.File, e.Line, mend(e), "%s", e.What)
				}
			}
		case f.Info != nil:
			l.ok(f.Name, 0, "%s", l.summary(f))
		case l.Verbose:
			l.ok(f.Name, 0, "%s, the default: there is no such file", cmp.Or(l.byDefault(name), "nothing"))
		}
		if l.Verbose {
			l.entries(f)
		}
		for _, idle := range f.Idle {
			l.warn(f.Name, idle.Line, "remove one of the two lines", "this line never matches: line %d is for the same and decides", idle.By)
		}
	}
}

// defaults are what missing files stand for, where that is something.
var defaults = map[string]string{
	"helohost": "the name in control/me", "timeoutconnect": "60", "timeoutremote": "1200", "timeoutdns": "60", "clearafter": "0", "tlsstrictness": "0",
	"tlsclient": "the bundled one", "ucspitlsclient": "the bundled one", "ipme": "the addresses of the interfaces, and all of loopback",
	"protocols": "qmtps, qmtp, smtp", "delnumbytes": "1", "connectionlimits": ":20:100:100", "connectionidle": "5", "connectionwait": "30", "tlsresumption": "1",
}

// byDefault is what a missing file stands for, "" if that is nothing.
func (l *look) byDefault(name string) string {
	if name == "spawnlimit" {
		return strconv.Itoa(l.survey.Spawn.Limit)
	}
	return defaults[name]
}

// summary is what a file in order has.
func (l *look) summary(f *control.File) string {
	name := strings.TrimPrefix(f.Name, "control/")
	switch {
	case f.IsList && f.Count == 1:
		return "1 line"
	case f.IsList:
		return fmt.Sprintf("%d lines", f.Count)
	case f.Value != "":
		return shown(f.Value)
	case l.byDefault(name) != "" && name != "ipme": // without lines that is a list of none
		return l.byDefault(name) + ", the default: the file is empty"
	case f.Info.Size() == 0:
		return "empty"
	}
	return "nothing that counts"
}

// entries lists the lines of a file.
func (l *look) entries(f *control.File) {
	for _, e := range f.Entries {
		l.ok(f.Name, e.Line, "%s", shown(e.Text))
	}
	if more := f.Count - len(f.Entries); len(f.Entries) > 0 && more > 0 {
		l.ok(f.Name, 0, "and %d more lines", more)
	}
	if f.Name == "control/credentials" {
		for _, c := range l.survey.Credentials.Lines() {
			l.ok(f.Name, c.Credential.Line, "%q: %s", c.Relay, c.Credential.Kind)
		}
	}
}

// shown quotes a line up to its first blank: people put arguments behind the path of a program,
// and passwords among those.
func shown(text string) string {
	word, _, more := strings.Cut(text, " ")
	if more {
		return fmt.Sprintf("%q and more behind it", word)
	}
	return fmt.Sprintf("%q", word)
}

// mend is what leads to the mend of a mistake in a control file.
func mend(e *control.Error) string {
	name := strings.TrimPrefix(e.File, "control/")
	switch {
	case strings.Contains(e.What, "chmod 640"):
		what := "that file"
		if e.Line == 0 {
			what = e.File
		}
		return "take it away from others: chown root:qmail and chmod 640 on " + what
	case strings.Contains(e.What, "logins belong in"):
		return "write user and password to control/credentials, and leave domain:relay:port here (INSTALL.md, section 10)"
	case errors.Is(e, fs.ErrPermission):
		return "let the user that delivers read it: chown root:qmail and chmod 640 for a secret, else chmod 644"
	case errors.Is(e, fs.ErrNotExist):
		return "make that file, or correct its path in the line"
	case strings.Contains(e.What, "symbolic link to nothing"):
		return "make what the link leads to, or remove the link"
	case name == "helohost" && e.Line == 0:
		return "write the full name of this host to control/me"
	case strings.HasSuffix(name, "routes") && strings.Contains(e.What, "and more behind it"):
		return "write domain:relay:port and nothing else, with colons; logins belong in control/credentials (INSTALL.md, section 10)"
	case strings.Contains(e.What, "missing or empty"), strings.Contains(e.What, "trust anchors"), strings.Contains(e.What, "trustanchors"):
		return "name what is missing in its own control file, or remove this demand; mxf-control(5) describes both"
	}
	return "correct it as mxf-control(5) describes " + cmp.Or(name, "it")
}

// A patch is a control file by which another qmail steers outgoing mail.
type patch struct {
	instead string // the file that does the same here; "": none does
	how     string
	stays   bool // others read it too
}

// patches has what other qmails' files are replaced by. A name that ends in a slash is a
// folder.
var patches = map[string]patch{
	"outgoingip":       {instead: "sources", how: "the line is :ADDRESS"},
	"outgoingip6":      {instead: "sources", how: "the line is :[ADDRESS]"},
	"helohostbyip":     {instead: "sources", how: "the third field is the name"},
	"tlsadomains":      {instead: "trustresolvers", how: "TLSA records are asked for everywhere then"},
	"outgoingips":      {instead: "sources", how: "a line is @domain:ADDRESS"},
	"bindroutes":       {instead: "sources", how: "which goes by the sender, not by the recipient"},
	"domainips":        {instead: "sources", how: "a line is @domain:ADDRESS:HELO"},
	"domainbindings":   {instead: "sources", how: "a line is @domain:ADDRESS"},
	"mailfromip":       {instead: "sources", how: "a line is SENDER:ADDRESS"},
	"helohosts":        {instead: "sources", how: "the third field is the name"},
	"domaincerts":      {instead: "clientcerts", how: "a line is :@domain:CERTIFICATE:KEY"},
	"servercert.pem":   {"clientcert", "with clientkey, where a server is to see our certificate; the file stays, because qmail-smtpd reads it", true},
	"clientcert.pem":   {instead: "clientcert", how: "with clientkey: two paths"},
	"tlsdestinations":  {instead: "tlspolicy", how: "a line is domain:must or domain:verify"},
	"tlshosts/":        {instead: "tlspolicy", how: "a line is @EXCHANGER:verify or @EXCHANGER:pin:DIGEST"},
	"notlshosts":       {instead: "tlspolicy", how: "a line is @EXCHANGER:none"},
	"notlshosts/":      {instead: "tlspolicy", how: "a line is @EXCHANGER:none"},
	"authsenders":      {instead: "senderroutes", how: "and control/credentials for the login"},
	"remote_auth":      {instead: "credentials", how: "a line is RELAY::USER:password:PASSWORD"},
	"remoteauth":       {instead: "credentials", how: "a line is RELAY::USER:password:PASSWORD"},
	"remotesecrets":    {instead: "credentials", how: "a line is RELAY::USER:password:PASSWORD"},
	"smtproutes.cdb":   {instead: "smtproutes", how: "in plain text; large ones are quick too"},
	"dkimkeys":         {instead: "signingkeys", how: "a line is DOMAIN:SELECTOR:KEY"},
	"domainkeys/":      {instead: "signingkeys", how: "a line is DOMAIN:SELECTOR:KEY"},
	"filterargs":       {instead: "signingkeys", how: "which signs; no other filter is run"},
	"tlsclientciphers": {},
	"tlsclientmethod":  {},
}

// qmailFiles are control files of qmail and of programs around it that mxf does not read, and
// that may be near to the name of one that it does.
var qmailFiles = []string{
	"badmailfrom", "badmailto", "badhelo", "badrcptto", "bouncefrom", "bouncehost", "bouncemaxbytes", "concurrencylocal", "concurrencyremote", "databytes",
	"defaultdelivery", "defaultdomain", "defaulthost", "doublebouncehost", "doublebounceto", "envnoathost", "idhost", "localiphost", "locals", "me",
	"morercpthosts", "percenthack", "plusdomain", "qmqpservers", "queuelifetime", "rcpthosts", "smtpgreeting", "timeoutsmtpd", "timeoutqmtpd",
	"virtualdomains", "spfbehavior", "tlsserverciphers", "tlsclients", "clientca.pem", "clientcrl.pem", "dh1024.pem", "dh2048.pem", "rsa512.pem",
}

// otherFiles looks for files that nobody reads.
func (l *look) otherFiles() {
	entries, err := os.ReadDir(filepath.Join(l.Home, "control"))
	if err != nil {
		l.note("control", 0, "the folder cannot be listed, so files that nobody reads are not found")
		return
	}
	for _, e := range entries {
		name := e.Name()
		if info, err := os.Stat(filepath.Join(l.Home, "control", name)); err == nil && info.IsDir() {
			name += "/"
		}
		l.otherFile(name)
	}
}

func (l *look) otherFile(name string) {
	file := "control/" + name
	if l.survey.File(strings.TrimSuffix(name, "/")) != nil || slices.Contains(qmailFiles, name) || isBackup(name) {
		return
	}
	if p, known := patches[name]; known {
		l.patch(file, name, p)
		return
	}
	if service, ok := strings.CutSuffix(name, "routes"); ok && service != "" && !l.isBroken("protocols") {
		l.warn(file, 0, "add a protocol of this name, or move the lines to the table of another one and remove the file",
			"no protocol is named %q, so nobody reads this table%s", service, l.meant(name))
		return
	}
	if near := l.near(strings.TrimSuffix(name, "/")); near != "" {
		l.warn(file, 0, fmt.Sprintf("rename it to %s if that is what it is for, else remove it", near), "nobody reads this file%s", l.meant(name))
	}
}

// meant asks for the file whose name is one letter off, if there is one.
func (l *look) meant(name string) string {
	if near := l.near(strings.TrimSuffix(name, "/")); near != "" {
		return "; is it meant to be " + near + "?"
	}
	return ""
}

func (l *look) patch(file, name string, p patch) {
	switch {
	case p.instead == "":
		l.warn(file, 0, "remove the file", "a patch of qmail has this file; mxf does not read it, and no file does the same: versions and ciphers are not chosen by hand")
	case name == "servercert.pem" && l.settings.ClientCert != "":
	default:
		do := fmt.Sprintf("write control/%s (mxf-control(5), doc/MIGRATE.md): %s", p.instead, p.how)
		if !p.stays {
			do += "; then remove this file"
		}
		l.warn(file, 0, do,
			"a patch of qmail has this file; mxf does not read it, and control/%s does the same", p.instead)
	}
}

// isBackup reports whether a name is that of an older or unfinished copy.
func isBackup(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~") {
		return true
	}
	return slices.Contains([]string{".bak", ".old", ".orig", ".new", ".save", ".rpmnew", ".rpmsave", ".dpkg-old", ".dpkg-dist", ".lock"}, filepath.Ext(name))
}

// near returns a control file whose name is one letter off name, "" if there is none.
func (l *look) near(name string) string {
	const least = 4 // of letters: two short names are near to one another by chance
	if len(name) < least {
		return ""
	}
	folded := strings.ToLower(name)
	for _, f := range l.survey.Files {
		if known := strings.TrimPrefix(f.Name, "control/"); len(known) >= least && isNear(folded, known) {
			return f.Name
		}
	}
	return ""
}

// isNear reports whether one letter more, less, other or exchanged with its neighbour, or none,
// makes b of a.
func isNear(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 {
		return false
	}
	same := 0
	for same < len(a) && a[same] == b[same] {
		same++
	}
	rest, other := a[same:], b[same:]
	switch {
	case len(a) < len(b):
		return rest == other[1:]
	case len(rest) <= 1:
		return true
	}
	return rest[1:] == other[1:] || rest[0] == other[1] && rest[1] == other[0] && rest[2:] == other[2:]
}
