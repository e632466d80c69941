package tunnel

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// program is the program inside a tunnel. It reads from in and writes to out. The tunnel
// has the other ends of the two pipes.
type program struct {
	in, out *os.File
	end     *pipeEnd
}

// pipeEnd has the ends that belong to the tunnel.
type pipeEnd struct {
	in, out *os.File
	gone    chan struct{} // closed when the program has closed its reading end
	once    sync.Once
	panics  atomic.Bool
}

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.in.Read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.out.Write(b) }
func (p *pipeEnd) CloseWrite() error           { return p.out.Close() }
func (p *pipeEnd) Close() error                { p.out.Close(); return p.in.Close() }
func (p *pipeEnd) ReaderGone(ctx context.Context) error {
	select {
	case <-p.gone:
		if p.panics.Load() {
			panic("oops")
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newProgram(t testing.TB) *program {
	t.Helper()
	in, toProgram := must.Pipe(t)
	fromProgram, out := must.Pipe(t)
	p := &program{in: in, out: out, end: &pipeEnd{in: fromProgram, out: toProgram, gone: make(chan struct{})}}
	t.Cleanup(func() { in.Close(); out.Close(); p.end.Close() })
	return p
}

func (p *program) stopReading() {
	p.in.Close()
	p.end.once.Do(func() { close(p.end.gone) })
}

func (p *program) exit() {
	p.out.Close()
	p.stopReading()
}

// tunnel is a running relay, with a program at one end and a server at the other.
type tunnel struct {
	*program
	server *tls.Conn
	raw    *net.TCPConn // the server's connection
	result chan error
	cancel context.CancelCauseFunc
}

// serverParty is made once, because these tests do not look at it.
var serverParty = sync.OnceValue(func() *tlstest.Party { return tlstest.SelfSigned(nil) })

const patience = 2 * time.Minute // a test that takes longer has failed, on the slowest machine too

func newTunnel(t testing.TB, o Options, config *tls.Config) *tunnel {
	t.Helper()
	return newTunnelWaiting(t, o, config, patience/2)
}

// newTunnelWaiting is newTunnel with another closeWait.
func newTunnelWaiting(t testing.TB, o Options, config *tls.Config, wait time.Duration) *tunnel {
	t.Helper()
	if config == nil {
		config = &tls.Config{}
	}
	config.Certificates = []tls.Certificate{serverParty().Pair()}
	clientRaw, serverRaw := tlstest.TCP(t)
	x := &tunnel{program: newProgram(t), raw: serverRaw, server: tls.Server(serverRaw, config), result: make(chan error, 1)}
	shaken := make(chan error, 1)
	go func() { shaken <- x.server.Handshake() }()
	line := NewLine(clientRaw)
	c := must.Get(new(tlsc.Client).Handshake(t.Context(), line, &tlsc.Demand{}))(t)
	must.OK(t, <-shaken)
	before := time.Now()
	deadline := before.Add(2 * patience)
	serverRaw.SetDeadline(deadline)
	ctx, cancel := context.WithCancelCause(context.Background())
	x.cancel = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := newRelay(c, line, x.end, o)
		r.patience = wait
		x.result <- r.run(ctx)
	}()
	t.Cleanup(func() {
		cancel(nil)
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("the relay does not end")
		}
	})
	return x
}

// finish wants the relay to end soon, with an error of this text, or none.
func (x *tunnel) finish(t testing.TB, want string) {
	t.Helper()
	var err error
	must.Within(t, "the end of the relay", func() { err = <-x.result })
	if got := fmt.Sprint(err); err == nil && want != "" || err != nil && (want == "" || !strings.Contains(got, want)) {
		t.Errorf("relay returns %q, want %q", got, want)
	}
}

// noise is n bytes without a pattern.
func noise(n int, seed uint64) []byte {
	data := make([]byte, n)
	var b [32]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	rand.NewChaCha8(b).Read(data)
	return data
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes arrived of %d, or others", what, len(got), len(want))
	}
}

// sameAll wants all that is left in r to be want.
func sameAll(t testing.TB, what string, r io.Reader, want []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	must.Check(t, err)
	same(t, what, got, want)
}

// programReads wants the program to read this, and then the end.
func (x *tunnel) programReads(t testing.TB, want string) {
	t.Helper()
	if got, err := io.ReadAll(x.in); string(got) != want || err != nil {
		t.Errorf("program reads %q, %v", got, err)
	}
}

// background runs f and returns a channel that is closed when it is done.
func background(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return done
}

// together runs all of them at the same time, and waits for them.
func together(all ...func()) {
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(f)
	}
	running.Wait()
}

// shortly stands for closeWait where a test waits for it to be over.
const shortly = 300 * time.Millisecond

const bulk = 3 << 20 // more than all buffers on the way together

// Either end closes first, or both, while data travel both ways.
func TestHalfClose(t *testing.T) {
	up, down := noise(bulk, 1), noise(bulk, 2)
	for _, o := range []Options{{}, {CloseNotify: true}, {EnforceCloseNotify: true}, {CloseNotify: true, EnforceCloseNotify: true}} {
		for _, first := range []string{"program", "server", "both"} {
			t.Run(fmt.Sprintf("%+v/%s first", o, first), func(t *testing.T) {
				t.Parallel()
				x := newTunnel(t, o, nil)
				send := func() { x.out.Write(up); x.out.Close() }
				serve := func() { x.server.Write(down); x.server.CloseWrite() }
				switch first {
				case "program": // the server says nothing until it has read all
					sent := background(send)
					sameAll(t, "up", x.server, up)
					served := background(func() { serve(); x.raw.CloseWrite() })
					sameAll(t, "down", x.in, down)
					<-sent
					<-served
				case "server":
					served := background(serve)
					sameAll(t, "down", x.in, down)
					sent := background(send)
					sameAll(t, "up", x.server, up)
					<-sent
					<-served
				case "both":
					together(send, serve, func() { sameAll(t, "up", x.server, up) }, func() { sameAll(t, "down", x.in, down) })
				}
				x.finish(t, "")
			})
		}
	}
}

// With -S the server sees close_notify when the program has ended, and otherwise only the
// end of the connection.
func TestWhatTheServerSees(t *testing.T) {
	for _, notify := range []bool{false, true} {
		x := newTunnel(t, Options{CloseNotify: notify}, nil)
		x.out.Close()
		last := must.Get(io.ReadAll(x.raw))(t)
		if (len(last) > 0) != notify {
			t.Errorf("CloseNotify %v: %d bytes on the wire at the end", notify, len(last))
		}
		x.server.CloseWrite()
		x.raw.CloseWrite()
		x.finish(t, "")
	}
}

func TestEnforceCloseNotify(t *testing.T) {
	down := noise(300000, 3)
	for _, enforce := range []bool{false, true} {
		for _, cut := range []bool{false, true} {
			x := newTunnel(t, Options{EnforceCloseNotify: enforce}, nil)
			served := background(func() {
				x.server.Write(down)
				if !cut {
					x.server.CloseWrite()
				}
				x.raw.CloseWrite()
			})
			sameAll(t, "down", x.in, down)
			<-served
			if enforce && cut {
				x.finish(t, "server ended the connection without close_notify")
				continue
			}
			// The other direction is still open.
			io.WriteString(x.out, "more")
			x.out.Close()
			if got, err := io.ReadAll(x.server); string(got) != "more" || err != nil {
				t.Errorf("server reads %q, %v", got, err)
			}
			x.finish(t, "")
		}
	}
}

func TestEndInTheMiddleOfARecord(t *testing.T) {
	x := newTunnel(t, Options{}, nil)
	x.server.Write([]byte("complete"))
	x.raw.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3})
	x.raw.CloseWrite()
	if got, _ := io.ReadAll(x.in); string(got) != "complete" {
		t.Errorf("program reads %q", got)
	}
	x.finish(t, "connection closed in the middle of a record")
}

func TestRunningErrors(t *testing.T) {
	t.Run("rubbish", func(t *testing.T) {
		x := newTunnel(t, Options{}, nil)
		x.server.Write([]byte("complete"))
		x.raw.Write(append([]byte{23, 3, 3, 0, 100}, make([]byte, 100)...))
		if got, _ := io.ReadAll(x.in); string(got) != "complete" {
			t.Errorf("program reads %q", got)
		}
		// The server is told.
		if _, err := x.server.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Errorf("server sees %v", err)
		}
		x.finish(t, "TLS failed: bad record MAC")
	})
	t.Run("reset", func(t *testing.T) {
		x := newTunnel(t, Options{}, nil)
		x.raw.SetLinger(0)
		x.raw.Close()
		x.programReads(t, "")
		x.finish(t, "connection lost: connection reset by peer")
	})
	t.Run("context", func(t *testing.T) {
		x := newTunnel(t, Options{}, nil)
		x.cancel(errors.New("enough"))
		x.programReads(t, "")
		x.finish(t, "tunnel stopped: enough")
	})
	t.Run("panic", func(t *testing.T) {
		x := newTunnel(t, Options{}, nil)
		x.end.panics.Store(true)
		x.end.once.Do(func() { close(x.end.gone) })
		x.finish(t, "internal error: oops")
	})
}

// An error in the server's data is announced before the program sees their end. A good end
// is not announced, and neither is an error that comes from closing both ends.
func TestAnnounce(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		end        func(*tunnel)
	}{
		{"reset", "connection lost: connection reset by peer", func(x *tunnel) { x.raw.SetLinger(0); x.raw.Close() }},
		{"no TLS", "TLS failed: ", func(x *tunnel) { io.WriteString(x.raw, "\x17\x03\x03\x00\x20"+strings.Repeat("x", 32)) }},
		{"good", "", func(x *tunnel) { x.server.Close(); x.out.Close() }},
		{"stopped", "", func(x *tunnel) { x.cancel(errors.New("enough")) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			announced := make(chan error, 2)
			x := newTunnel(t, Options{CloseNotify: true, Announce: func(err error) { announced <- err }}, nil)
			tt.end(x)
			x.programReads(t, "")
			var said error
			select {
			case said = <-announced:
			default:
			}
			if tt.want == "" && said != nil || tt.want != "" && (said == nil || !strings.Contains(said.Error(), tt.want)) {
				t.Errorf("announced is %v, want %q", said, tt.want)
			}
			result := <-x.result
			if said != nil && result != said {
				t.Errorf("the relay returns %v", result)
			}
			if len(announced) > 0 {
				t.Errorf("announced again: %v", <-announced)
			}
		})
	}
}

// If the server goes while the program writes, the program can read what had come, and then
// meets a broken pipe.
func TestServerGone(t *testing.T) {
	x := newTunnel(t, Options{}, nil)
	x.server.Write([]byte("last words"))
	x.raw.SetLinger(0)
	got := make([]byte, 10)
	if _, err := io.ReadFull(x.in, got); string(got) != "last words" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	x.raw.Close()
	chunk := make([]byte, 1<<16)
	for {
		if _, err := x.out.Write(chunk); err != nil {
			break
		}
	}
	x.finish(t, "connection lost")
}

// A program that writes and never reads has to wait, and so has a server. Nothing is lost
// when they go on.
func TestBackPressure(t *testing.T) {
	const stuck = 64 << 20 // more than Linux lets the buffers of two sockets grow to
	up, down := noise(stuck, 4), noise(stuck, 5)
	x := newTunnel(t, Options{}, nil)
	upDone := background(func() { x.out.Write(up); x.out.Close() })
	downDone := background(func() { x.server.Write(down); x.server.CloseWrite() })
	// Both wait: there is no room for all of it.
	for _, done := range []<-chan struct{}{upDone, downDone} {
		select {
		case <-done:
			t.Errorf("%d bytes went nowhere", stuck)
		case <-time.After(50 * time.Millisecond):
		}
	}
	// One direction goes on although the other waits.
	sameAll(t, "down", x.in, down)
	sameAll(t, "up", x.server, up)
	<-upDone
	<-downDone
	x.finish(t, "")
}

func TestMemoryIsBounded(t *testing.T) {
	x := newTunnel(t, Options{}, nil)
	const total = 64 << 20
	fill := func(w io.Writer) {
		chunk := make([]byte, 1<<20)
		for range total >> 20 {
			w.Write(chunk)
		}
	}
	sent := background(func() { fill(x.out); x.out.Close() })
	served := background(func() { fill(x.server); x.server.CloseWrite() })
	read := background(func() { io.Copy(io.Discard, x.server) })
	var most uint64
	buf := make([]byte, 32<<10)
	for i := 0; ; i++ {
		if _, err := x.in.Read(buf); err != nil {
			break
		}
		if i%500 == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	<-sent
	<-served
	<-read
	x.finish(t, "")
	if most > 16<<20 {
		t.Errorf("%d bytes of heap", most)
	}
}

func TestOneByteAtATime(t *testing.T) {
	x := newTunnel(t, Options{CloseNotify: true}, nil)
	const text = "one byte at a time, with care"
	for i := range text {
		io.WriteString(x.out, text[i:i+1])
		b := make([]byte, 1)
		if _, err := x.server.Read(b); err != nil || b[0] != text[i] {
			t.Fatalf("server reads %q, %v", b, err)
		}
		x.server.Write(b)
		if _, err := x.in.Read(b); err != nil || b[0] != text[i] {
			t.Fatalf("program reads %q, %v", b, err)
		}
	}
	x.out.Close()
	x.server.Read(make([]byte, 1))
	x.server.Close()
	x.finish(t, "")
}

// Chunks of any size, in any order, in every version of TLS.
func TestRandomChunks(t *testing.T) {
	for version := uint16(tls.VersionTLS10); version <= tls.VersionTLS13; version++ {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			x := newTunnel(t, Options{CloseNotify: seed&1 == 0}, &tls.Config{MinVersion: version, MaxVersion: version})
			up, down := noise(1<<20, seed), noise(1<<20, seed+1)
			chunks := func(w io.Writer, data []byte, seed uint64) {
				random := rand.New(rand.NewPCG(seed, 0))
				for len(data) > 0 {
					n := min(len(data), 1+random.IntN(1<<random.IntN(18)))
					if _, err := w.Write(data[:n]); err != nil {
						t.Error(err)
						return
					}
					data = data[n:]
				}
			}
			together(
				func() { chunks(x.out, up, seed); x.out.Close() },
				func() { chunks(x.server, down, seed+2); x.server.CloseWrite() },
				func() { sameAll(t, "up", x.server, up) }, func() { sameAll(t, "down", x.in, down) })
			x.finish(t, "")
		})
	}
}

// If the program closes only its reading end, what it writes still arrives, and what the
// server sends is dropped.
func TestProgramDoesNotRead(t *testing.T) {
	x := newTunnel(t, Options{}, nil)
	x.stopReading()
	served := background(func() { x.server.Write(make([]byte, bulk)) })
	up := noise(bulk, 6)
	sent := background(func() { x.out.Write(up); x.out.Close() })
	<-served
	sameAll(t, "up", x.server, up)
	<-sent
	x.server.Close()
	x.finish(t, "")
}

// If the program dies, what it wrote is still sent, even to a slow reader. Then the
// connection is closed although the server does not close it.
func TestProgramDies(t *testing.T) {
	for _, o := range []Options{{}, {CloseNotify: true}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			t.Parallel()
			x := newTunnelWaiting(t, o, nil, shortly)
			x.raw.SetReadBuffer(64 << 10)
			up := noise(256<<10, 7)
			go x.server.Write(make([]byte, bulk)) // and the server talks all the while
			sent := background(func() { x.out.Write(up); x.exit() })
			var got []byte
			buf := make([]byte, 10<<10)
			for {
				time.Sleep(2 * time.Millisecond) // a slow reader
				n, err := x.server.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					if err != io.EOF {
						t.Error(err)
					}
					break
				}
			}
			same(t, "up", got, up)
			<-sent
			x.finish(t, "")
		})
	}
}

// The connection also ends if the program dies while neither side says anything.
func TestProgramDiesIdle(t *testing.T) {
	t.Parallel()
	x := newTunnelWaiting(t, Options{}, nil, shortly)
	x.exit()
	if _, err := x.server.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	x.finish(t, "")
	if _, err := x.raw.Write([]byte("x")); err == nil {
		// The first write after the end causes a reset, which the next one meets.
		for err == nil {
			_, err = x.raw.Write([]byte("x"))
		}
	}
}

// With -S the tunnel waits a little for a server that does not answer close_notify, and
// delivers what it sends meanwhile.
func TestServerDoesNotClose(t *testing.T) {
	t.Parallel()
	x := newTunnelWaiting(t, Options{CloseNotify: true}, nil, shortly)
	x.out.Close()
	if _, err := x.server.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	begin := time.Now()
	x.server.Write([]byte("more"))
	x.programReads(t, "more")
	x.finish(t, "")
	if took := time.Since(begin); took < shortly/2 {
		t.Errorf("it took %v", took)
	}
}

// With -S the tunnel ends although the server never stops sending.
func TestServerTalksOn(t *testing.T) {
	t.Parallel()
	x := newTunnelWaiting(t, Options{CloseNotify: true}, nil, shortly)
	talking := background(func() {
		for {
			if _, err := x.server.Write([]byte("blah")); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	x.out.Close()
	io.Copy(io.Discard, x.in)
	x.finish(t, "")
	<-talking
}

// With -s a program that has ended its output can read for as long as it likes.
func TestServerTakesItsTime(t *testing.T) {
	t.Parallel()
	x := newTunnelWaiting(t, Options{}, nil, shortly)
	x.out.Close()
	if _, err := x.server.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	select {
	case err := <-x.result:
		t.Fatalf("relay ends: %v", err)
	case <-time.After(2 * shortly):
	}
	x.server.Write([]byte("at last"))
	x.server.Close()
	x.programReads(t, "at last")
	x.finish(t, "")
}

// A server that asks for new keys and reads nothing can still send. crypto/tls has no
// function that asks for new keys, so the test makes the records.
func TestKeyUpdateDeadlock(t *testing.T) {
	var keys keyLog
	x := newTunnel(t, Options{}, &tls.Config{KeyLogWriter: &keys, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true})
	if x.server.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("another cipher suite was chosen")
	}
	up, down := noise(8<<20, 8), noise(bulk, 9)
	sent := background(func() { x.out.Write(up); x.out.Close() })
	select {
	case <-sent:
		t.Fatal("8 MB went nowhere")
	case <-time.After(50 * time.Millisecond):
	}
	sender := newRecordSender(t, x.raw, keys.secret(t, "SERVER_TRAFFIC_SECRET_0"))
	const applicationData, handshakeMessage = 23, 22
	served := background(func() {
		for _, part := range [][]byte{down[:bulk/2], down[bulk/2:]} {
			sender.send(handshakeMessage, []byte{24, 0, 0, 1, 1}) // KeyUpdate, update_requested
			sender.update()
			for len(part) > 0 {
				n := min(len(part), 16<<10)
				sender.send(applicationData, part[:n])
				part = part[n:]
			}
		}
	})
	got := make([]byte, bulk)
	must.Get(io.ReadFull(x.in, got))(t)
	same(t, "down", got, down)
	<-served
	sameAll(t, "up", x.server, up)
	<-sent
	sender.send(21, []byte{1, 0}) // close_notify
	x.finish(t, "")
}

// A server that asks for new keys for ever and reads nothing meets a limit.
func TestQueueLimit(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	q := newQueue(a, queueLimit)
	var n int
	for q.error() == nil {
		m, _ := q.Write(make([]byte, 1000))
		n += m
	}
	if n > queueLimit || n < queueLimit-1000 {
		t.Errorf("%d bytes were taken", n)
	}
	if err := q.await(0); err == nil || err.Error() != "server asks for more than it takes" {
		t.Error(err)
	}
	<-q.failed
}

// A queue gives up when it cannot send a single byte for the time of stall.
func TestQueueStalls(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	q := newQueue(a, queueLimit)
	q.Write([]byte("12345678"))
	done := make(chan error, 1)
	go func() { done <- q.run() }()
	b.Read(make([]byte, 3))
	q.limitStall(20 * time.Millisecond)
	select {
	case err := <-done:
		if !isTimeout(err) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the queue waits for ever")
	}
}

type keyLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (k *keyLog) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.text.Write(p)
}

func (k *keyLog) secret(t *testing.T, label string) []byte {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for line := range strings.Lines(k.text.String()) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == label {
			secret := must.Get(hex.DecodeString(fields[2]))(t)
			return secret
		}
	}
	t.Fatalf("no %s", label)
	return nil
}

// recordSender seals records of TLS_AES_128_GCM_SHA256 (RFC 8446 section 5.2).
type recordSender struct {
	t      *testing.T
	conn   net.Conn
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	number uint64
}

func newRecordSender(t *testing.T, conn net.Conn, secret []byte) *recordSender {
	s := &recordSender{t: t, conn: conn, secret: secret}
	s.rekey()
	return s
}

func (s *recordSender) expand(label string, length int) []byte {
	info := []byte{0, byte(length), byte(len("tls13 " + label))}
	info = append(append(info, "tls13 "+label...), 0)
	out, err := hkdf.Expand(sha256.New, s.secret, string(info), length)
	must.Check(s.t, err)
	return out
}

func (s *recordSender) rekey() {
	block, err := aes.NewCipher(s.expand("key", 16))
	must.Check(s.t, err)
	if s.aead, err = cipher.NewGCM(block); err != nil {
		s.t.Error(err)
	}
	s.iv, s.number = s.expand("iv", 12), 0
}

func (s *recordSender) update() {
	s.secret = s.expand("traffic upd", sha256.Size)
	s.rekey()
}

func (s *recordSender) send(kind byte, data []byte) {
	inner := append(bytes.Clone(data), kind)
	length := len(inner) + s.aead.Overhead()
	header := []byte{23, 3, 3, byte(length >> 8), byte(length)}
	nonce := bytes.Clone(s.iv)
	for i := range 8 {
		nonce[11-i] ^= byte(s.number >> (8 * i))
	}
	s.number++
	if _, err := s.conn.Write(s.aead.Seal(header, nonce, inner, header)); err != nil {
		s.t.Error(err)
	}
}

// No goroutine outlives a relay, however it ends.
func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 5 {
		x := newTunnel(t, Options{}, nil)
		switch i {
		case 0:
			x.cancel(nil)
		case 1:
			x.raw.Close()
			x.exit()
		case 2:
			x.out.Close()
			x.server.Close()
		case 3:
			x.server.CloseWrite()
			x.out.Close()
		case 4:
			x.raw.Write([]byte("rubbish rubbish"))
		}
		<-x.result
	}
	must.NoneLeft(t, before)
}

// BenchmarkRelay is the tunnel's throughput, beside that of crypto/tls alone.
func BenchmarkRelay(b *testing.B) {
	const total = 64 << 20
	chunk := make([]byte, 64<<10)
	fill := func(w io.Writer) {
		for range total / len(chunk) {
			w.Write(chunk)
		}
	}
	b.Run("up", func(b *testing.B) {
		b.SetBytes(total)
		for b.Loop() {
			x := newTunnel(b, Options{}, nil)
			go func() { fill(x.out); x.out.Close() }()
			io.CopyBuffer(io.Discard, struct{ io.Reader }{x.server}, make([]byte, 64<<10))
			x.server.Close()
			x.finish(b, "")
		}
	})
	b.Run("down", func(b *testing.B) {
		b.SetBytes(total)
		for b.Loop() {
			x := newTunnel(b, Options{}, nil)
			go func() { fill(x.server); x.server.Close() }()
			io.CopyBuffer(io.Discard, struct{ io.Reader }{x.in}, make([]byte, 64<<10))
			x.out.Close()
			x.finish(b, "")
		}
	})
	b.Run("floor", func(b *testing.B) {
		b.SetBytes(total)
		for b.Loop() {
			clientRaw, serverRaw := tlstest.TCP(b)
			server := tls.Server(serverRaw, serverParty().Config())
			client := tls.Client(clientRaw, &tls.Config{InsecureSkipVerify: true})
			go func() { fill(client); client.Close() }()
			io.CopyBuffer(io.Discard, struct{ io.Reader }{server}, make([]byte, 64<<10))
			server.Close()
		}
	})
}
