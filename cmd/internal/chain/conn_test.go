package chain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/integration/must"
)

var _ net.Conn = (*Conn)(nil)

// A link is a Conn, the far end of it, and the descriptors it was made of.
type link struct {
	conn     *Conn
	far      io.ReadWriteCloser
	farWrite func() error // the far end sends end of file
	fds      []int
}

func dup(t testing.TB, fd int) int {
	return must.Get(unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3))(t)
}

// tcpPair returns a socket that blocks and its peer.
func tcpPair(t testing.TB) (fd int, far *net.TCPConn) {
	l := must.Get(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	far = must.Get(net.Dial("tcp", l.Addr().String()))(t).(*net.TCPConn)
	near := must.Get(l.Accept())(t).(*net.TCPConn)
	defer near.Close()
	f := must.Get(near.File())(t)
	defer f.Close()
	fd = dup(t, int(f.Fd())) // Fd has made it blocking
	return fd, far
}

type fileFar struct{ r, w *os.File }

func (f fileFar) Read(p []byte) (int, error)  { return f.r.Read(p) }
func (f fileFar) Write(p []byte) (int, error) { return f.w.Write(p) }
func (f fileFar) Close() error                { return errors.Join(f.r.Close(), f.w.Close()) }

func links(t *testing.T) map[string]func(*testing.T) link {
	return map[string]func(*testing.T) link{
		"one number of a socket": func(t *testing.T) link {
			fd, far := tcpPair(t)
			return link{must.Get(Open(fd, fd))(t), far, far.CloseWrite, []int{fd}}
		},
		"two numbers of a socket": func(t *testing.T) link {
			fd, far := tcpPair(t)
			other := dup(t, fd)
			return link{must.Get(Open(fd, other))(t), far, far.CloseWrite, []int{fd, other}}
		},
		"two pipes": twoPipes,
		"two pipes with poll alone": func(t *testing.T) link {
			l := twoPipes(t)
			l.conn.in.polls, l.conn.out.polls = true, true
			return l
		},
		"local sockets": func(t *testing.T) link {
			a, b, err := Socketpair()
			must.OK(t, err)
			f := os.NewFile(uintptr(b), "far")
			far := must.Get(net.FileConn(f))(t).(*net.UnixConn)
			f.Close()
			return link{must.Get(Open(a, a))(t), far, far.CloseWrite, []int{a}}
		},
	}
}

func onEach(t *testing.T, test func(*testing.T, link)) {
	for name, open := range links(t) {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			defer l.conn.Close()
			defer l.far.Close()
			before := modes(t, l.fds)
			test(t, l)
			if after := modes(t, l.fds); before != nil && after != nil && !slices.Equal(before, after) {
				t.Errorf("the descriptors' flags were %x and are %x", before, after)
			}
		})
	}
}

func twoPipes(t *testing.T) link {
	r, fw, err := Pipe()
	fr, w, err2 := Pipe()
	must.OK(t, err, err2)
	far := fileFar{must.Get(File(fr, "r"))(t), must.Get(File(fw, "w"))(t)}
	return link{must.Get(Open(r, w))(t), far, far.w.Close, []int{r, w}}
}

// modes returns the file status flags, nil when a descriptor is closed.
func modes(t *testing.T, fds []int) []int {
	var out []int
	for _, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return nil
		}
		if flags&unix.O_NONBLOCK != 0 {
			t.Errorf("descriptor %d does not block any more", fd)
		}
		out = append(out, flags)
	}
	return out
}

func TestConnCarriesBothWaysAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, l link) {
		data := bytes.Repeat([]byte("0123456789abcdef\r\n\x00\xff"), 200_000)
		var here, there [32]byte
		must.Within(t, "both ways", func() {
			var wg sync.WaitGroup
			wg.Go(func() {
				if n, err := l.conn.Write(data); n != len(data) || err != nil {
					t.Errorf("Write: %d, %v", n, err)
				}
				must.Check(t, l.conn.CloseWrite())
			})
			wg.Go(func() {
				_, err := l.far.Write(data)
				must.Check(t, err, l.farWrite())
			})
			wg.Go(func() { there = digest(t, l.far) })
			wg.Go(func() { here = digest(t, l.conn) })
			wg.Wait()
		})
		if want := sha256.Sum256(data); here != want || there != want {
			t.Error("bytes were lost, added or changed")
		}
		if n, err := l.conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read after end of file: %d, %v", n, err)
		}
	})
}

func digest(t *testing.T, r io.Reader) (sum [32]byte) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	must.Check(t, err)
	h.Sum(sum[:0])
	return sum
}

func TestConnDeadlines(t *testing.T) {
	onEach(t, func(t *testing.T, l link) {
		must.Within(t, "a deadline that has passed", func() {
			l.conn.SetReadDeadline(time.Now().Add(-time.Second))
			wantTimeout(t, readOne(l.conn))
		})
		must.Within(t, "a deadline to come", func() {
			start := time.Now()
			l.conn.SetReadDeadline(start.Add(30 * time.Millisecond))
			wantTimeout(t, readOne(l.conn))
			if early := time.Until(start.Add(30 * time.Millisecond)); early > 0 {
				t.Errorf("%v too early", early)
			}
		})
		must.Within(t, "a deadline set during Read", func() {
			l.conn.SetReadDeadline(time.Time{})
			result := make(chan error)
			go func() { result <- readOne(l.conn) }()
			awaitPoll(&l.conn.in.descriptor)
			l.conn.SetDeadline(time.Now())
			wantTimeout(t, <-result)
		})
		must.Within(t, "a full channel", func() {
			data := make([]byte, 64<<20)
			l.conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
			n, err := l.conn.Write(data)
			wantTimeout(t, err)
			if n == 0 || n == len(data) {
				t.Errorf("%d bytes were written", n)
			}
		})
		l.conn.SetDeadline(time.Time{})
		must.Get(l.far.Write([]byte("x")))(t)
		must.Within(t, "no deadline any more", func() { must.Check(t, readOne(l.conn)) })
	})
}

func readOne(r io.Reader) error {
	_, err := r.Read(make([]byte, 1))
	return err
}

func wantTimeout(t *testing.T, err error) {
	t.Helper()
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, want a time-out", err)
	}
}

// awaitPoll returns when somebody waits for the descriptor.
func awaitPoll(d *descriptor) {
	for {
		d.mu.Lock()
		waiting := d.waiting
		d.mu.Unlock()
		if waiting {
			return
		}
		runtime.Gosched()
	}
}

func TestConnCloseWakes(t *testing.T) {
	onEach(t, func(t *testing.T, l link) {
		read, write := make(chan error, 1), make(chan error, 1)
		go func() { read <- readOne(l.conn) }()
		go func() { _, err := l.conn.Write(make([]byte, 64<<20)); write <- err }()
		awaitPoll(&l.conn.in.descriptor)
		awaitPoll(&l.conn.out.descriptor)
		must.Within(t, "Close", func() {
			must.Check(t, l.conn.Close())
			for _, err := range []error{<-read, <-write, readOne(l.conn), l.conn.Close(), l.conn.SetDeadline(time.Time{})} {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("got %v, want net.ErrClosed", err)
				}
			}
		})
		if fds := modes(t, l.fds); fds != nil {
			t.Error("the descriptors are still open")
		}
	})
}

func TestConnHalfClosed(t *testing.T) {
	onEach(t, func(t *testing.T, l link) {
		must.OK(t, l.conn.CloseWrite())
		if _, err := l.conn.Write([]byte("x")); err == nil {
			t.Error("a Write after CloseWrite succeeds")
		}
		must.Within(t, "reading on", func() {
			_, err := l.far.Write([]byte("late"))
			must.Check(t, err, l.farWrite())
			got, err := io.ReadAll(l.conn)
			if string(got) != "late" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
		must.Check(t, l.conn.Close())
	})
}

func TestConnPeerGone(t *testing.T) {
	onEach(t, func(t *testing.T, l link) {
		l.far.Close()
		must.Within(t, "writing to nobody", func() {
			_, err := l.conn.Write(make([]byte, 64<<20))
			if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("got %v, want EPIPE or ECONNRESET", err)
			}
		})
	})
}

func TestConnShutdownReachesAnotherHolder(t *testing.T) {
	fd, far := tcpPair(t)
	defer far.Close()
	copied := dup(t, fd)
	defer unix.Close(copied)
	c := must.Get(Open(fd, dup(t, fd)))(t)
	must.Check(t, c.Shutdown(), c.Close())
	must.Within(t, "end of file", func() {
		if err := readOne(far); err != io.EOF {
			t.Errorf("got %v, want end of file", err)
		}
		if n, err := unix.Read(copied, make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("the copy reads %d, %v", n, err)
		}
	})
}

func TestConnFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	must.OK(t, os.WriteFile(name, []byte("text"), 0o600))
	r := must.Get(unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0))(t)
	w := must.Get(unix.Open(name+"2", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600))(t)
	c := must.Get(Open(r, w))(t)
	must.Within(t, "files", func() {
		if n, err := io.Copy(c, c); n != 4 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	})
	must.Check(t, c.Shutdown(), c.Close())
	if got, _ := os.ReadFile(name + "2"); string(got) != "text" {
		t.Errorf("wrote %q", got)
	}
}

func TestOpenNotOpen(t *testing.T) {
	for _, fds := range [][2]int{{-1, -1}, {1 << 20, 1 << 20}, {0, 1<<20 + 1}} {
		if c, err := Open(fds[0], fds[1]); err == nil || ExitCode(err) != ExitTemporary {
			t.Errorf("Open(%v) = %v, %v", fds, c, err)
		}
	}
}

func TestConnLeavesNothingOpen(t *testing.T) {
	count := func() int { return len(must.Get(os.ReadDir("/proc/self/fd"))(t)) }
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc/self/fd")
	}
	onEach(t, func(*testing.T, link) {})
	before := count()
	onEach(t, func(t *testing.T, l link) {
		l.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		_ = readOne(l.conn)
		l.conn.Close()
		l.far.Close()
	})
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// localPair returns a Local and the program's two ends.
func localPair(t *testing.T) (l *Local, reads, writes int) {
	from, writes, err := Pipe()
	reads, to, err2 := Pipe()
	must.OK(t, err, err2)
	return must.Get(OpenLocal(from, to))(t), reads, writes
}

func TestLocalReaderGone(t *testing.T) {
	l, reads, writes := localPair(t)
	defer l.Close()
	defer unix.Close(writes)
	gone := make(chan error, 1)
	go func() { gone <- l.ReaderGone(context.Background()) }()
	awaitPoll(&l.reader)
	select {
	case err := <-gone:
		t.Fatalf("the reader is there, yet ReaderGone returned %v", err)
	default:
	}
	unix.Close(reads)
	must.Within(t, "ReaderGone", func() { must.Check(t, <-gone) })
	if _, err := l.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
}

func TestLocalReaderGoneEnds(t *testing.T) {
	l, reads, writes := localPair(t)
	defer unix.Close(reads)
	defer unix.Close(writes)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 2)
	go func() { gone <- l.ReaderGone(ctx) }()
	awaitPoll(&l.reader)
	must.Within(t, "CloseWrite and cancel", func() {
		must.Check(t, l.CloseWrite())
		if n, err := unix.Read(reads, make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("after CloseWrite the program reads %d, %v", n, err)
		}
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		must.Check(t, l.Close())
	})
}

func TestLocalGone(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(reads, writes int)
		want   bool
	}{
		{"both ends closed", func(r, w int) { Close(r, w) }, true},
		{"reading end open", func(_, w int) { Close(w) }, false},
		{"writing end open", func(r, _ int) { Close(r) }, false},
		{"bytes left to send", func(r, w int) { _, _ = unix.Write(w, []byte("x")); Close(r, w) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, reads, writes := localPair(t)
			defer l.Close()
			ctx, cancel := context.WithCancel(context.Background())
			c.before(reads, writes)
			gone := make(chan error, 1)
			go func() { gone <- l.Gone(ctx) }()
			if !c.want {
				cancel()
			}
			must.Within(t, "Gone", func() {
				if err := <-gone; (err == nil) != c.want {
					t.Errorf("got %v", err)
				}
			})
			cancel()
		})
	}
}

func BenchmarkConn(b *testing.B) {
	for name, wrap := range map[string]func(fd int) net.Conn{
		"descriptor": func(fd int) net.Conn { return must.Get(Open(fd, fd))(b) },
		"net": func(fd int) net.Conn {
			f := os.NewFile(uintptr(fd), "")
			defer f.Close()
			return must.Get(net.FileConn(f))(b)
		},
	} {
		b.Run(name, func(b *testing.B) {
			fd, far := tcpPair(b)
			defer far.Close()
			c := wrap(fd)
			defer c.Close()
			go io.Copy(io.Discard, far)
			buf := make([]byte, 16<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				must.Get(c.Write(buf))(b)
			}
		})
	}
}
