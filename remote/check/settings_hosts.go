package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/remote/dial"
)

// Sizes of the tables of dead hosts, in bytes: 64 records of 16 and of 28.
const (
	tableSize4 = 64 * 16
	tableSize6 = 64 * 28
)

// isOurs reports whether mail for an address is never delivered to it, as deliveries see it.
func (l *look) isOurs(addr netip.Addr) bool {
	if !l.settings.IPMeDefault {
		return slices.Contains(l.settings.IPMe, addr)
	}
	return addr.IsLoopback() || slices.Contains(l.interfaces, addr)
}

// addresses looks at ours, and at those that we bind to.
func (l *look) addresses(context.Context) {
	l.ipme()
	for _, s := range l.settings.Sources.Lines() {
		l.sender("sources", s.Source.Line, s.Sender)
		addr := s.Source.Addr
		if addr.IsValid() && l.interfaceErr == nil && !addr.IsLoopback() && !slices.Contains(l.interfaces, addr) {
			l.fail("control/sources", s.Source.Line, "give the address to an interface, or correct the line: ip address lists what there is",
				"%s is no address of this host, so mail of this sender waits", addr)
		}
	}
	for _, f := range l.settings.Families.Lines() {
		l.exchangerMatches("families", f.Line, f.Exchanger)
	}
	global := slices.IndexFunc(l.interfaces, isGlobal6)
	if global >= 0 && !l.outgoing(control.IPv6).IsValid() && l.uses(control.IPv6) {
		l.warn("", 0, "give this host a default route for IPv6, or write :ipv4 to control/families",
			"there is a global IPv6 address, %s, and no route for IPv6", l.interfaces[global])
	}
}

func isGlobal6(addr netip.Addr) bool {
	return addr.Is6() && addr.IsGlobalUnicast() && !addr.IsPrivate()
}

func (l *look) ipme() {
	own := slices.DeleteFunc(slices.Clone(l.interfaces), func(a netip.Addr) bool { return a.IsLoopback() || a.IsLinkLocalUnicast() })
	switch {
	case l.settings.IPMeDefault && l.interfaceErr != nil:
		l.fail("control/ipme", 0, "write the addresses of this machine to the file, one a line",
			"expected this file, since the addresses of the interfaces cannot be listed: %v", dial.Reason(l.interfaceErr))
	case l.settings.IPMeDefault:
		l.ok("", 0, "addresses of this host, by its interfaces: %s", listed(own))
	case l.isBroken("ipme"):
	case len(l.settings.IPMe) == 0:
		l.note("control/ipme", 0, "no address is ours, by this file: mail that the DNS leads back here loops")
	default:
		l.ok("control/ipme", 0, "addresses of this host: %s", listed(l.settings.IPMe))
		if left := slices.DeleteFunc(own, l.isOurs); len(left) > 0 {
			l.warn("control/ipme", 0, "add a line for each, or remove the file if they are all",
				"addresses of the interfaces are not in this file, and mail may loop: %s", listed(left))
		}
	}
}

// deadHosts looks at the tables of hosts that did not answer, and changes nothing there.
func (l *look) deadHosts(ctx context.Context) {
	if l.isCopy() {
		return
	}
	folder := filepath.Join(l.Home, "queue", "lock")
	l.table(folder, "tcpto", tableSize4)
	l.table(folder, "tcpto6", tableSize6)
	// The spread that deliveries have by their process id is not known: half of it is meant.
	const middle = 16
	dead := &dial.DeadHosts{Folder: folder, Number: middle, Now: l.Now}
	skipped := dead.Skipped(ctx, dead.All(ctx))
	for _, addr := range slices.SortedFunc(maps.Keys(skipped), netip.Addr.Compare) {
		l.note("queue/lock/"+tableOf(addr), 0, "%s is skipped, since it did not answer lately, for about %d minutes still", addr, int(skipped[addr].Round(time.Minute)/time.Minute))
	}
}

func tableOf(addr netip.Addr) string {
	if addr.Is4() {
		return "tcpto"
	}
	return "tcpto6"
}

func (l *look) table(folder, name string, size int64) {
	file, path := "queue/lock/"+name, filepath.Join(folder, name)
	do := "as root: install -o qmailr -g qmail -m 644 /dev/null " + path
	if name == "tcpto" {
		do = fmt.Sprintf("as root: truncate -s %[2]d %[1]s && chown qmailr:qmail %[1]s && chmod 644 %[1]s", path, size)
	}
	// Nothing is written: this finds out whether it could be.
	f, info, err := regular.Open(path, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && name == "tcpto6":
		l.note(file, 0, "there is no such table, so IPv6 addresses that do not answer may not be remembered; %s", do)
	case errors.Is(err, fs.ErrNotExist):
		l.warn(file, 0, do, "there is no such table, so addresses that do not answer are tried each time")
	case err != nil:
		l.warn(file, 0, "give it to the user that delivers: chown qmailr "+path, "the table cannot be read and written: %v", withoutPath(err))
	case info.Size() != size && (info.Size() != 0 || name == "tcpto"):
		l.warn(file, 0, fmt.Sprintf("empty it while no mail goes out: truncate -s 0 %[1]s && truncate -s %[2]d %[1]s", path, size),
			"the table has %d bytes, and should have %d", info.Size(), size)
	default:
		l.ok(file, 0, "there, and writable")
	}
}
