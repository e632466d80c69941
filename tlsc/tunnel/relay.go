// Package tunnel carries data between a program that speaks clear text and a server that
// speaks TLS. It is what mxf-tlsc and mxf-ucspitlsc do after the handshake.
package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"nightmare.mail/mxf/tlsc"
)

// Local is the clear-text end of a tunnel: the program.
type Local interface {
	io.Reader          // what the program writes
	io.Writer          // what the program reads; an error means that the program has stopped reading
	CloseWrite() error // the program sees end of file
	Close() error      // closes both ends; Read, Write and ReaderGone return

	// ReaderGone returns nil when the program has closed its reading end, and an error
	// when ctx ends first.
	ReaderGone(ctx context.Context) error
}

// Options say how a tunnel ends.
type Options struct {
	// CloseNotify: at the program's end of file, send close_notify and end both
	// directions soon. Otherwise end our direction of the connection without it, and go
	// on reading.
	CloseNotify bool

	// EnforceCloseNotify: it is an error if the server's data end without close_notify.
	EnforceCloseNotify bool

	// Announce, if it is not nil, is called with what is wrong with the server's data
	// before the program sees their end, so that the program can find the reason there.
	// Relay returns the same error.
	Announce func(error)
}

const (
	// relayBuffer is how much the tunnel reads at a time, from the program and from the
	// network: sixteen records of TLS. Fewer and larger steps make the tunnel fast;
	// steps larger than this make it no faster.
	relayBuffer = 256 << 10
	// queueBatch is how much is sent at once if it comes at once.
	queueBatch = 256 << 10
	// queueMark is how much may wait to be sent, in either direction, before the tunnel
	// stops reading at the other end.
	queueMark = 256 << 10
	// queueLimit is what a queue may hold at most: the mark, one more read of the tunnel
	// with what TLS adds to it, and room for what crypto/tls sends by itself, which are
	// answers of about 30 bytes. A server that asks for more answers than that while it
	// reads nothing is not worth talking to.
	queueLimit = queueMark + 2*relayBuffer
	// recordBuffer is what crypto/tls returns at most from a Read (RFC 8446 section 5.1).
	recordBuffer = 16 << 10
	// closeWait is how long the tunnel waits for the server when there is nothing more
	// to say to it: for its close_notify, or for its end when nobody listens any more.
	// The time that the program takes to read what the server has sent does not count.
	closeWait = 4 * time.Second
	// alertWait is how long sending a last alert may take.
	alertWait = time.Second
	// stallLimit ends the sending of what a program left behind when it died, if the
	// server does not take a single byte for this long.
	stallLimit = 10 * time.Minute
	// lostWait is how long the program may take, after the connection was lost for
	// writing, to read what had come before.
	lostWait = time.Minute
)

// Relay carries data between the server and the program until both directions have
// ended, and closes both ends. c is the connection inside TLS that was made over line.
// Nobody else may use the two from then on.
//
// Relay holds a bounded amount of memory, whatever the two ends do. It delivers all that
// the server sent before the program sees end of file. It sends all that the program
// wrote, also after the program has died. When the program has stopped reading, it drops
// what the server sends.
//
// Relay returns nil when all went well. It returns a *tlsc.Error of KindRunning when TLS
// failed, when the connection was lost with something left to send, or when a
// close_notify that is enforced did not come. It returns another error when ctx ended or
// the program's end failed.
func Relay(ctx context.Context, c *tlsc.Conn, line *Line, local Local, o Options) error {
	return newRelay(c, line, local, o).run(ctx)
}

type relay struct {
	conn      *tlsc.Conn
	line      *Line
	local     Local
	options   Options
	toServer  *queue
	toProgram *queue
	patience  time.Duration // closeWait
	all       sync.WaitGroup

	mu      sync.Mutex
	silent  bool          // the program has ended its output
	ended   bool          // and all of it, with its end, was sent
	deaf    bool          // the program has stopped reading
	limited bool          // do not wait for the server longer than budget
	budget  time.Duration // what is left of patience
	since   time.Time     // when the present wait began, or the last one ended
	closing bool          // both ends are being closed: what fails now does not count
}

func newRelay(c *tlsc.Conn, line *Line, local Local, o Options) *relay {
	r := &relay{conn: c, line: line, local: local, options: o, patience: closeWait}
	r.toServer = newQueue(line.Conn, queueLimit)
	r.toProgram = newQueue(local, queueLimit)
	line.begin(r.toServer, r.pull)
	return r
}

func (r *relay) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	incoming, outgoing, aside := make(chan error, 1), make(chan error, 1), make(chan error, 3)
	r.start(incoming, r.incoming)
	r.start(outgoing, r.outgoing)
	r.start(aside, r.toServer.run)
	r.start(aside, r.deliver)
	r.start(aside, func() error { return r.watch(ctx) })
	err := r.wait(ctx, incoming, outgoing, aside)
	r.close(ctx)
	cancel()
	r.all.Wait()
	return err
}

// start runs f in its own goroutine. A panic becomes an error. done has room for the
// result.
func (r *relay) start(done chan<- error, f func() error) {
	r.all.Add(1)
	go func() {
		defer r.all.Done()
		defer func() {
			if p := recover(); p != nil {
				done <- panicError{p}
			}
		}()
		done <- f()
	}()
}

type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("internal error: %v", e.value) }

// wait returns when both directions have ended, or something has failed.
func (r *relay) wait(ctx context.Context, incoming, outgoing, aside <-chan error) error {
	var result error
	lost := (<-chan struct{})(r.toServer.failed)
	var late <-chan time.Time
	for incoming != nil || outgoing != nil && late == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("tunnel stopped: %w", context.Cause(ctx))
		case err := <-incoming:
			if err != nil {
				return err // it also says best why the connection was lost for writing
			}
			incoming = nil
		case err := <-outgoing:
			result = cmp.Or(result, err)
			outgoing = nil
		case <-lost:
			// The other direction may still hold something, but not for long.
			lost = nil
			if !r.hasEnded() {
				result = cmp.Or(result, r.lost())
				timer := time.NewTimer(lostWait)
				defer timer.Stop()
				late = timer.C
			}
			r.limitReads()
		case <-late:
			return result
		case err := <-aside:
			if broken := (panicError{}); errors.As(err, &broken) {
				return err
			}
		}
	}
	return result
}

// incoming delivers what the server sends, then its end.
func (r *relay) incoming() error {
	defer r.becameDeaf() // there is nothing left to read
	defer r.local.CloseWrite()
	buf := make([]byte, recordBuffer)
	for {
		n, err := r.conn.Read(buf)
		if n > 0 && r.toProgram.await(queueMark) == nil {
			r.toProgram.Write(buf[:n])
		}
		if err != nil {
			r.toProgram.release()
			if isTimeout(err) {
				r.line.shut() // the program may take its time to read the rest
			}
			r.toProgram.await(0)
			end := r.serverEnd(err)
			if end != nil && r.options.Announce != nil && !r.isClosing() {
				r.options.Announce(end)
			}
			return end
		}
	}
}

// pull reads from the connection when crypto/tls has used up what was read before.
func (r *relay) pull(p []byte) (int, error) {
	r.toProgram.release()
	defer r.toProgram.hold()
	r.beforeRead()
	defer r.afterRead()
	return r.line.Conn.Read(p)
}

// deliver hands over what was read. When the queue ends, the program has stopped reading.
func (r *relay) deliver() error {
	r.toProgram.run()
	r.becameDeaf()
	return nil
}

// serverEnd decides which ends of the server's data are errors.
func (r *relay) serverEnd(err error) error {
	switch {
	case err == io.EOF && r.conn.Truncated() && r.options.EnforceCloseNotify:
		return &tlsc.Error{Kind: tlsc.KindRunning, What: "server ended the connection without close_notify"}
	case err == io.EOF, isTimeout(err):
		return nil
	case r.objectsToHalfClose(err):
		return nil
	case r.line.broken.Load() && r.isOver() && !r.options.EnforceCloseNotify:
		// The server has reset a connection that neither side needs any more.
		return nil
	}
	return err
}

// outgoing sends what the program writes, then its end.
func (r *relay) outgoing() error {
	readErr, err := r.pump()
	if err != nil {
		return err
	}
	r.becameSilent()
	if err := r.toServer.await(0); err != nil {
		return r.lost()
	}
	r.end()
	if readErr != io.EOF {
		return fmt.Errorf("cannot read from the program: %w", readErr)
	}
	return nil
}

// pump returns the error that ended reading, or the error that ended writing.
func (r *relay) pump() (readErr, writeErr error) {
	buf := make([]byte, relayBuffer)
	for {
		n, readErr := r.local.Read(buf)
		if n > 0 {
			if r.toServer.await(queueMark) != nil {
				return nil, r.lost()
			}
			r.toServer.hold()
			_, err := r.conn.Write(buf[:n])
			r.toServer.release()
			if err != nil {
				r.limitReads() // an alert was sent, and the server will end the connection
				return nil, err
			}
		}
		if readErr != nil {
			return readErr, nil
		}
	}
}

// end says to the server that the program has nothing more to say.
func (r *relay) end() {
	r.mu.Lock()
	r.ended = true
	patient := !r.options.CloseNotify && !r.deaf
	r.mu.Unlock()
	if r.options.CloseNotify || !r.line.canHalfClose() {
		r.conn.CloseWrite()
	}
	r.toServer.finish() // no answer to a request for new keys may follow this
	if r.toServer.await(0) == nil {
		r.line.halfClose()
	}
	if !patient {
		r.limitReads()
	}
}

// objectsToHalfClose reports whether an alert answers our end without close_notify.
// OpenSSL 3 takes that for a truncation, and says so when it has nothing more to say.
func (r *relay) objectsToHalfClose(err error) bool {
	own := new(tlsc.Error)
	return errors.As(err, &own) && own.Alert != 0 && r.hasEnded() && !r.options.CloseNotify && !r.options.EnforceCloseNotify
}

// lost is the error for what could not be sent.
func (r *relay) lost() error {
	err := r.toServer.error()
	if own := new(tlsc.Error); errors.As(err, &own) {
		return own
	}
	return &tlsc.Error{Kind: tlsc.KindRunning, What: "connection lost while sending: " + innermost(err).Error(), Err: err}
}

var errDeaf = errors.New("program does not read any more")

// watch notices when the program stops reading while there is nothing to deliver.
func (r *relay) watch(ctx context.Context) error {
	if r.local.ReaderGone(ctx) == nil {
		r.becameDeaf()
	}
	return nil
}

func (r *relay) becameSilent() {
	r.mu.Lock()
	r.silent = true
	gone := r.deaf
	r.mu.Unlock()
	if gone {
		r.toServer.limitStall(stallLimit)
	}
}

func (r *relay) becameDeaf() {
	r.mu.Lock()
	r.deaf, r.since = true, time.Now()
	r.toProgram.stop(errDeaf)
	silent, ended := r.silent, r.ended
	r.mu.Unlock()
	if silent {
		r.toServer.limitStall(stallLimit)
	}
	if ended {
		r.limitReads()
	}
}

func (r *relay) hasEnded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

func (r *relay) isClosing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closing
}

// isOver reports whether nothing depends on the server's end any more.
func (r *relay) isOver() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended && (r.options.CloseNotify || r.deaf)
}

// limitReads has the tunnel wait for the server no longer than closeWait, all in all, from
// now on.
func (r *relay) limitReads() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limited {
		return
	}
	r.limited, r.budget, r.since = true, r.patience, time.Now()
	r.conn.SetReadDeadline(r.since.Add(r.budget))
}

func (r *relay) beforeRead() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.limited {
		return
	}
	now := time.Now()
	if r.deaf { // the program does not take the time between two reads
		r.budget -= now.Sub(r.since)
	}
	r.since = now
	r.conn.SetReadDeadline(now.Add(r.budget))
}

func (r *relay) afterRead() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limited {
		now := time.Now()
		r.budget -= now.Sub(r.since)
		r.since = now
	}
}

// close closes both ends, after a last attempt to send what is left: an alert.
func (r *relay) close(ctx context.Context) {
	r.mu.Lock()
	r.closing = true
	r.mu.Unlock()
	r.toServer.finish()
	if ctx.Err() == nil {
		timer := time.AfterFunc(alertWait, func() { r.toServer.stop(net.ErrClosed) })
		r.toServer.await(0)
		timer.Stop()
	}
	r.line.shut()
	r.toServer.stop(net.ErrClosed)
	r.toProgram.stop(net.ErrClosed)
	r.local.Close()
}
