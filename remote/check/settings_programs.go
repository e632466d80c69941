package check

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/transport"
)

// suite has our programs, and what is lost without them; "": nothing that a setting of this home
// wants.
var suite = []struct{ name, lost string }{
	{"mxf-remote", "no mail goes out"},
	{control.SMTPProgram, ""}, {control.QMTPProgram, ""}, {"mxf-tlsc", ""}, {"mxf-ucspitlsc", ""},
	{"mxf-policy", ""}, {"mxf-rspawn", ""}, {"mxf-remote-safe", ""}, {"qmail-remote-io", ""},
}

// programs looks at the programs of control/protocols and at ours.
func (l *look) programs(ctx context.Context) {
	for i := range l.settings.Protocols {
		l.program(&l.settings.Protocols[i])
	}
	for _, p := range suite {
		l.ours(ctx, p.name, p.lost)
	}
}

// program looks at the program of one protocol.
func (l *look) program(p *control.Protocol) {
	if p.Service == control.Submissions && p.Line == 0 && len(l.relays) == 0 {
		return // nothing leads to it
	}
	path, err := l.carrier.ProgramPath(p)
	const do = "install it beside mxf-remote, mode 755, or correct the last field of the line; it takes no arguments"
	switch word := shown(cmp.Or(path, p.Program)); {
	case err != nil:
		l.fail("control/protocols", p.Line, do, "the program of %s cannot be run: %v", p.Service, err)
	case transport.FormOf(path) == transport.BareScript:
		l.fail("control/protocols", p.Line, "begin the script with a line #!/bin/sh", "the program of %s cannot be run: %s is text without a first line #! and an interpreter", p.Service, word)
	case l.Verbose || filepath.Dir(path) != filepath.Clean(l.Programs):
		l.ok("control/protocols", p.Line, "%s is spoken by %s", p.Service, word)
	}
}

// ours looks at one of our programs. Those that are scripts, or that stand in for ours, are not
// run.
func (l *look) ours(ctx context.Context, name, lost string) {
	path := filepath.Join(l.Programs, name)
	const do = "install all programs of one version together (INSTALL.md, section 3)"
	_, err := l.carrier.ClientPath(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if name == "mxf-policy" && l.settings.MTASTS != "" {
		lost = "no policy can be fetched, and mail waits"
	}
	switch form := transport.FormOf(path); {
	case missing && lost == "":
		l.note("", 0, "%s is not installed in %q", name, l.Programs)
	case missing:
		l.fail("", 0, do, "%s is not installed in %q: %s", name, l.Programs, lost)
	case err != nil:
		l.fail("", 0, "chmod 755 "+path, "%s cannot be run: %v", name, err)
	case form == transport.BareScript:
		l.fail("", 0, do, "%s is neither a program nor a script that begins with #!", name)
	case form == transport.Script:
		if name != "mxf-remote-safe" {
			l.note("", 0, "%s is a script in the place of ours; it was not run", name)
		}
	case l.RunVersion != nil:
		l.version(ctx, name, path)
	}
}

func (l *look) version(ctx context.Context, name, path string) {
	l.waitFor("%s --version", name)
	ctx, cancel := context.WithTimeout(ctx, l.Patience)
	defer cancel()
	const do = "install all programs of one version together (INSTALL.md, section 3)"
	text, err := l.RunVersion(ctx, path)
	words := strings.Fields(text)
	switch {
	case err != nil:
		l.fail("", 0, do, "%s --version does not work: %v", name, dial.Reason(err))
	case len(words) < 2 || words[0] != name:
		l.warn("", 0, do, "%s is another program: it does not print its name and version", name)
	case words[1] != l.Version:
		l.warn("", 0, do, "%s has version %q, and mxf-check has %q", name, words[1], l.Version)
	case l.Verbose:
		l.ok("", 0, "%s %s", name, words[1])
	}
}

// withoutPath is what the system said of a file that the finding names already.
func withoutPath(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
