package chain

import (
	"io"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/integration/must"
)

// A pipe is enlarged when much data goes through it, and not before.
func TestPipesGrow(t *testing.T) {
	const ordinary = 64 << 10
	for _, test := range []struct{ bytes, want int }{
		{muchData / 2, ordinary},
		{muchData, largePipe},
	} {
		netR, netW := must.Pipe(t)
		progR, progW := must.Pipe(t)
		network := must.Get(Open(dup(t, int(netR.Fd())), dup(t, int(progW.Fd()))))(t)
		var both sync.WaitGroup
		both.Go(func() { _, _ = netW.Write(make([]byte, test.bytes)) })
		both.Go(func() { _, _ = io.CopyN(network, network, int64(test.bytes)) })
		must.Get(io.CopyN(io.Discard, progR, int64(test.bytes)))(t)
		both.Wait()
		for name, pipe := range map[string]*os.File{"read from": netR, "written to": progR} {
			size := must.Get(unix.FcntlInt(pipe.Fd(), unix.F_GETPIPE_SZ, 0))(t)
			if size != test.want && (test.want == ordinary || os.Getuid() == 0) {
				t.Errorf("after %d bytes the pipe that is %s holds %d, want %d", test.bytes, name, size, test.want)
			}
		}
		network.Close()
	}
}

// The kernel has kept the path of execve, and /proc names the same file.
func TestStartedAs(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	want := must.Get(os.Stat(self))(t)
	if got, err := os.Stat(startedAs()); err != nil || !os.SameFile(got, want) {
		t.Errorf("%q: %v, want %s", startedAs(), err, self)
	}
}

// The kernel keeps 15 bytes of a name.
func TestRename(t *testing.T) {
	before := must.Get(os.ReadFile("/proc/self/comm"))(t)
	Rename("mxf-rspawn-worker")
	if got := must.Get(os.ReadFile("/proc/self/comm"))(t); string(got) != "mxf-rspawn-work\n" {
		t.Errorf("%q", got)
	}
	Rename(string(before[:len(before)-1]))
}
