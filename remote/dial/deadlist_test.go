package dial_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dial"
)

func TestDeadHostsAll(t *testing.T) {
	folder := t.TempDir()
	must.OK(t, os.WriteFile(filepath.Join(folder, "tcpto"), make([]byte, 1024), 0o644))
	d := &dial.DeadHosts{Folder: folder, Now: func() time.Time { return time.Unix(1e9, 0) }}
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	if all := d.All(t.Context()); len(all) != 0 {
		t.Errorf("got %v", all)
	}
	d.TimedOut(t.Context(), six)
	d.TimedOut(t.Context(), four)
	if all := d.All(t.Context()); !slices.Equal(all, []netip.Addr{four, six}) {
		t.Errorf("got %v", all)
	}
	d.Answered(t.Context(), four)
	if all := d.All(t.Context()); !slices.Equal(all, []netip.Addr{six}) {
		t.Errorf("got %v", all)
	}
}
