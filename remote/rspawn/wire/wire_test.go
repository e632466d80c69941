package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/integration/must"
)

// ends returns a connected pair.
func ends(t testing.TB) (*Parent, *Worker) {
	t.Helper()
	conn, file, err := Pair()
	must.OK(t, err)
	p := NewParent(conn)
	w := must.Get(NewWorker(must.Get(unixConn(file))(t)))(t)
	t.Cleanup(func() { p.Close(); w.Close() })
	return p, w
}

// raw returns a connected pair of which the parent's end can say anything.
func raw(t testing.TB) (*net.UnixConn, *Worker) {
	t.Helper()
	conn, file, err := Pair()
	must.OK(t, err)
	w := must.Get(NewWorker(must.Get(unixConn(file))(t)))(t)
	t.Cleanup(func() { conn.Close(); w.Close() })
	return conn, w
}

func full() *Counters {
	c := new(Counters)
	for i, n := range c.numbers() {
		*n = uint64(i + 1)
	}
	for i := range MaxExchangers {
		c.Exchangers = append(c.Exchangers, Exchanger{fmt.Sprintf("mx%d.example", i), "192.0.2.1", 1, 5, 2, 1 << 60})
	}
	return c
}

var messages = []Message{
	Hello(Version), Alive{}, Answer{1, 'K', ""}, Answer{1<<64 - 1, 'Z', "text\n"}, Answer{2, 'D', strings.Repeat("x", MaxText)},
	LastByte{[]uint64{1, 2, 3}}, NotSent{[]uint64{4}}, Dropped{5}, full(), &Counters{},
}

func TestMessages(t *testing.T) {
	p, w := ends(t)
	sent := make(chan error, 1)
	go func() { sent <- w.Send(messages...) }()
	var got []Message
	for len(got) < len(messages) {
		got = append(got, must.Get(p.Read())(t)...)
	}
	must.OK(t, <-sent)
	if !reflect.DeepEqual(got, messages) {
		t.Errorf("got %v", got)
	}
	w.Close()
	if _, err := p.Read(); err != io.EOF {
		t.Error(err)
	}
}

// Every number of the counters is sent.
func TestCountersAreComplete(t *testing.T) {
	for _, v := range []any{*full(), full().Exchangers[0]} {
		for i := range reflect.ValueOf(v).NumField() {
			if reflect.ValueOf(v).Field(i).IsZero() {
				t.Errorf("%T has a field %s that numbers does not list", v, reflect.TypeOf(v).Field(i).Name)
			}
		}
	}
}

// What is too long is cut or divided.
func TestMessagesAreBounded(t *testing.T) {
	p, w := ends(t)
	big := full()
	big.Exchangers = append(big.Exchangers, big.Exchangers...)
	big.Exchangers[0].Name = strings.Repeat("n", 1000)
	go func() {
		_ = w.Send(LastByte{}, Answer{1, 'K', strings.Repeat("y", MaxText+1)}, big, LastByte{make([]uint64, MaxIDs+1)})
		_ = w.Send()
	}()
	var got []Message
	for len(got) < 4 {
		got = append(got, must.Get(p.Read())(t)...)
	}
	if a := got[0].(Answer); len(a.Text) != MaxText {
		t.Error(len(a.Text))
	}
	if c := got[1].(*Counters); len(c.Exchangers) != MaxExchangers || len(c.Exchangers[0].Name) != maxName {
		t.Error(len(c.Exchangers))
	}
	if n, m := len(got[2].(LastByte).IDs), len(got[3].(LastByte).IDs); n != MaxIDs || m != 1 {
		t.Error(n, m)
	}
}

// What many goroutines send comes whole, and each goroutine's in order.
func TestManySend(t *testing.T) {
	const senders, each = 50, 100
	p, w := ends(t)
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				must.Check(t, w.Send(LastByte{[]uint64{uint64(s), uint64(i)}}))
			}
		})
	}
	next := make([]uint64, senders)
	for got := 0; got < senders*each; {
		for _, m := range must.Get(p.Read())(t) {
			ids := m.(LastByte).IDs
			if next[ids[0]] != ids[1] {
				t.Fatalf("%v, want %d", ids, next[ids[0]])
			}
			next[ids[0]]++
			got++
		}
	}
	all.Wait()
	p.Close()
	must.Until(t, "an error for who sends to nobody", func() bool { return w.Send(Alive{}) != nil })
}

// What was sent is read though the worker has ended.
func TestSentIsInTheKernel(t *testing.T) {
	p, w := ends(t)
	must.OK(t, w.Send(LastByte{[]uint64{7}}), w.Send(Answer{7, 'K', "yes\n"}))
	w.Close()
	got, err := p.Read()
	if !reflect.DeepEqual(got, []Message{LastByte{[]uint64{7}}, Answer{7, 'K', "yes\n"}}) || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestCommands(t *testing.T) {
	p, w := ends(t)
	folder := t.TempDir()
	const n = 300
	go func() {
		for i := range n {
			name := filepath.Join(folder, fmt.Sprint(i))
			if os.WriteFile(name, []byte(name), 0o600) != nil {
				return
			}
			f, err := os.Open(name)
			if err != nil || p.Deliver(&Delivery{uint64(i), "h", "", "r@h", name, f}) != nil || f.Close() != nil {
				return
			}
			for _, o := range []Order{Forget, Report, Stop, Cut} {
				_ = p.Order(o)
			}
		}
		p.Close()
	}()
	for i := range n {
		d := must.Get(w.Read())(t).(*Delivery)
		if d.ID != uint64(i) || d.Host != "h" || d.Sender != "" || d.Recipient != "r@h" {
			t.Fatalf("%+v", d)
		}
		if got := string(must.Get(io.ReadAll(d.Message))(t)); got != d.MessageID {
			t.Fatalf("the message is %q, want %q", got, d.MessageID)
		}
		if flags := must.Get(unix.FcntlInt(d.Message.Fd(), unix.F_GETFD, 0))(t); flags&unix.FD_CLOEXEC == 0 {
			t.Fatal("programs would inherit the message")
		}
		d.Message.Close()
		for _, o := range []Order{Forget, Report, Stop, Cut} {
			if got := must.Get(w.Read())(t); got != o {
				t.Fatalf("%v, want %v", got, o)
			}
		}
	}
	if _, err := w.Read(); err != io.EOF {
		t.Error(err)
	}
}

// The largest delivery goes through, and a slow reader gets it whole.
func TestLargestDelivery(t *testing.T) {
	p, w := ends(t)
	long := strings.Repeat("x", maxString)
	file := must.Open(t, os.DevNull)
	go func() { _ = p.Deliver(&Delivery{1, long, long, long, "1", file}) }()
	d := must.Get(w.Read())(t).(*Delivery)
	if d.Host != long || d.Sender != long || d.Recipient != long || d.MessageID != "1" {
		t.Error("not the same")
	}
	d.Message.Close()
}

var garbled = []string{
	"\x00\x00\x00\x00", "\x00\x04\x00\x01", "\xff\xff\xff\xffx", "\x00\x00\x00\x01?", "\x00\x00\x00\x02ox", "\x00\x00\x00\x01o", "\x00\x00\x00\x03oss",
	"\x00\x00\x00\x01d", "\x00\x00\x00\x02vx", "\x00\x00\x00\x08l1234567", "\x00\x00\x00\x05h\x00\x00\x00\x09",
	string(sized(append(frame(nil, kindAnswer), "12345678X\x00\x00\x00\x00"...), 0)),
	string(sized(append(frame(nil, kindAnswer), "12345678K\x00\x00\xff\xff"...), 0)),
	string(sized(append(frame(nil, kindCounters), "12345678"...), 0)),
	string((&Delivery{ID: 1, Host: "h", Recipient: "r@h", MessageID: "1"}).append(nil)), // without its descriptor
}

func TestGarbage(t *testing.T) {
	for _, in := range garbled {
		conn, w := raw(t)
		must.Get(conn.Write([]byte(in)))(t)
		if _, err := w.Read(); !errors.Is(err, errGarbage) {
			t.Errorf("worker, %q: %v", in, err)
		}
		p, w := ends(t)
		must.Get(w.out.conn.Write([]byte(in)))(t)
		if _, err := p.Read(); !errors.Is(err, errGarbage) {
			t.Errorf("parent, %q: %v", in, err)
		}
	}
	conn, w := raw(t)
	must.Get(conn.Write([]byte("\x00\x00\x00\x02o")))(t)
	conn.Close()
	if _, err := w.Read(); err != io.ErrUnexpectedEOF {
		t.Errorf("a frame that is cut: %v", err)
	}
}

// Descriptors that nobody asked for are refused and closed.
func TestSurplusOfDescriptors(t *testing.T) {
	r, writing := must.Pipe(t)
	for _, n := range []int{1, rightsAtOnce, 253} {
		conn, w := raw(t)
		fds := make([]int, n)
		for i := range fds {
			fds[i] = int(writing.Fd())
		}
		_, _, err := conn.WriteMsgUnix([]byte("\x00\x00\x00\x01?"), unix.UnixRights(fds...), nil)
		must.OK(t, err)
		if _, err := w.Read(); err == nil {
			t.Errorf("%d: no error", n)
		}
		conn.Close()
		w.Close()
	}
	writing.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a descriptor is still open: %d, %v", n, err)
	}
}

func FuzzParent(f *testing.F) {
	for _, m := range messages {
		f.Add(appendMessage(nil, m))
	}
	for _, in := range garbled {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p := &Parent{in: bufio.NewReader(bytes.NewReader(in))}
		for {
			got, err := p.Read()
			for _, m := range got {
				again, other := (&Parent{in: bufio.NewReader(bytes.NewReader(appendMessage(nil, m)))}).Read()
				if len(again) == 1 && !reflect.DeepEqual(again[0], m) || len(again) > 1 || other != nil && other != io.EOF {
					t.Fatalf("%v becomes %v, %v", m, again, other)
				}
			}
			if err != nil {
				return
			}
		}
	})
}

func FuzzWorker(f *testing.F) {
	f.Add((&Delivery{ID: 1, Host: "h", Recipient: "r@h", MessageID: "1"}).append(nil))
	f.Add(Stop.append(nil))
	for _, in := range garbled {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		for {
			kind, content, err := readFrame(r)
			if err != nil {
				return
			}
			c, err := parseCommand(kind, content)
			if err != nil {
				return
			}
			var again []byte
			switch c := c.(type) {
			case *Delivery:
				again = c.append(nil)
			case Order:
				again = c.append(nil)
			}
			if !bytes.Equal(again[5:], content) || again[4] != kind {
				t.Fatalf("%q becomes %q", content, again)
			}
		}
	})
}
