package remote

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dial/dialtest"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/transport"
)

// A message that breaks off is not taken for a whole one, and nobody waits for its rest.
func TestProgram_messageBreaksOff(t *testing.T) {
	t.Parallel()
	// A pseudo-terminal whose other side is closed fails; it does not end.
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skip(err)
	}
	number, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skip(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	slave.Close() // reading the master is an input/output error from now on
	d, _ := newChain(t, `cat >/dev/null; printf 'r\0Kwhole\0'`, func(s *control.Settings) { s.TimeoutRemote = 0 })
	d.mail.Message = transport.NewMessage(master)
	_, addr := dialtest.Listen(t, "127.0.0.1:0")
	over := time.AfterFunc(time.Minute, func() { panic("it is waited for") })
	defer over.Stop()
	if got := shown(d.through(t.Context(), []route.Candidate{d.candidate(addr)})); got != "ZUnable to read message: input/output error. (#4.3.0)|" {
		t.Errorf("%q", got)
	}
}
