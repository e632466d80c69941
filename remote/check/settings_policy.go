package check

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/mtasts"
)

// policies looks at what mxf-control(5) has about MTA-STS, TLSRPT and local policy.
func (l *look) policies(context.Context) {
	l.cache()
	l.socket()
	for _, p := range l.settings.TLSPolicy.Lines() {
		line := p.Policy.Line
		_, isRelay := l.relayNames[p.Key]
		switch {
		case p.IsExchanger:
			l.exchangerMatches("tlspolicy", line, p.Key)
		case isRelay:
			l.warn("control/tlspolicy", line, "write @ before the name of a relay",
				"this line never matches the relay %q: without an @ it is compared with the domains of recipients", p.Key)
		}
	}
}

// cache looks at the folder of policies, and at those that cannot be fetched.
func (l *look) cache() {
	const file = "control/mtasts"
	if l.settings.MTASTS == "" {
		return
	}
	store := &mtasts.Store{Folder: l.settings.MTASTS, Now: l.Now}
	if err := store.Check(); err != nil {
		l.fail(file, 1, "as root: install -d -o qmailr -g qmail -m 755 FOLDER (INSTALL.md, section 13)",
			"expected a folder that this process can read and write, and nobody else can write, found %q: %v", l.settings.MTASTS, err)
		return
	}
	entries, err := store.Entries()
	if err != nil {
		l.fail(file, 1, "give the folder to the user that delivers", "the folder %q cannot be listed: %v", l.settings.MTASTS, withoutPath(err))
		return
	}
	failing := 0
	for _, e := range entries {
		if e.Failed == nil {
			continue
		}
		if failing++; failing > maxOfAKind {
			continue
		}
		kept := "there is no policy in its place"
		if e.Policy != nil && l.Now().Before(e.Expires()) {
			kept = "the one before is good until " + e.Expires().UTC().Format(time.DateOnly)
		}
		l.warn(file, 1, "try it: mxf-policy fetch "+e.Domain+"; if their server is wrong, tell their postmaster",
			"the policy of %s could not be fetched on %s: %s %q; %s", e.Domain, e.Failed.At.UTC().Format(time.DateOnly), e.Failed.Kind, e.Failed.Reason, kept)
	}
	if failing > maxOfAKind {
		l.warn(file, 1, "mxf-policy list shows them", "%d more policies could not be fetched", failing-maxOfAKind)
	}
	l.ok(file, 1, "the cache has %s", plural(len(entries), "policy", "policies"))
}

// socket looks at the socket of TLSRPT. To connect to it sends nothing.
func (l *look) socket() {
	const file, do = "control/tlsrptsocket", "start tlsrpt-collectd, or correct the path (INSTALL.md, section 14)"
	path := l.settings.TLSRPTSocket
	if path == "" || l.isBroken("tlsrptsocket") {
		return
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.warn(file, 1, do, "there is no socket %q, so nothing is reported", path)
		return
	case err != nil:
		l.warn(file, 1, do, "the socket %q cannot be looked at: %v", path, withoutPath(err))
		return
	case info.Mode()&fs.ModeSocket == 0:
		l.warn(file, 1, do, "%q is no socket, so nothing is reported", path)
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		l.warn(file, 1, do, "nobody can be told anything at the socket %q: %s", path, strings.TrimSpace(dial.Reason(err).Error()))
		return
	}
	conn.Close()
	l.ok(file, 1, "somebody listens at %q", path)
}
