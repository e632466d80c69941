package tlsc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Local is the plaintext end of a tunnel: the program.
type Local interface {
	io.Reader                             // what the program writes
	io.Writer                             // what the program reads; an error is taken to mean that it does not read any more
	CloseWrite() error                    // the program sees end of file
	Close() error                         // both; Read, Write and ReaderGone return
	ReaderGone(ctx context.Context) error // returns nil when the program has closed its reading end, an error when ctx ends before
}

// RelayOptions say how a tunnel ends.
type RelayOptions struct {
	CloseNotify        bool // the program's end of file: close_notify, and an end to both directions soon; else half-close, and go on reading
	EnforceCloseNotify bool // the server's end without close_notify is an error

	// Announce is called with what is wrong with the server's data before the program
	// sees their end: a program that is told the reason finds it there. nil: nobody.
	// Relay returns the same error.
	Announce func(error)
}

const (
	// relayBuffer is what the tunnel reads at a time, from the program and from the
	// network: sixteen records of TLS. Fewer, larger turns of the tunnel are what makes
	// it fast; beyond this there is nothing more to be had.
	relayBuffer = 256 << 10
	// queueBatch is how much is sent at once if it comes at once.
	queueBatch = 256 << 10
	// queueMark is how much may wait to be sent, in either direction, before the tunnel
	// reads no more on the other end.
	queueMark = 256 << 10
	// queueLimit is what a queue may hold at most: the mark, one more read of the
	// tunnel with what TLS adds to it, and room for what crypto/tls sends on its own,
	// which are answers of some 30 bytes. A server that asks for more of them while it
	// reads nothing is no server to talk to.
	queueLimit = queueMark + 2*relayBuffer
	// recordBuffer is what crypto/tls returns at most from a Read (RFC 8446
	// section 5.1).
	recordBuffer = 16 << 10
	// closeWait is how long the server is waited for once there is nothing more to
	// say to it: for its close_notify, or for its end when nobody listens any more.
	// The time that the program takes to read what the server has sent does not count.
	closeWait = 4 * time.Second
	// alertWait is how long the sending of a last alert may take.
	alertWait = time.Second
	// stallLimit ends the sending of what a program left behind when it died, to a
	// server that does not take one byte of it meanwhile.
	stallLimit = 10 * time.Minute
	// lostWait is how long the program may take, after the connection was lost for
	// writing, to read what had come before.
	lostWait = time.Minute
)

// Relay carries data between the server and the program until both directions are
// through, and closes both ends. c must not be used by anybody else from then on.
//
// It holds a bounded amount of memory, whatever the two ends do. It delivers all
// that the server sent before the program sees end of file, and sends all that the
// program wrote, after the program's death too. While the program does not read
// any more, what the server sends is dropped.
//
// It returns nil when all went well, else *Error of KindRunning (TLS failed, the
// connection was lost with something left to send, no close_notify where it is
// enforced), another error when ctx ended or the program's end failed.
func Relay(ctx context.Context, c *Conn, local Local, o RelayOptions) error {
	return newRelay(c, local, o).run(ctx)
}

type relay struct {
	conn      *Conn
	local     Local
	options   RelayOptions
	toServer  *queue
	toProgram *queue
	patience  time.Duration // closeWait
	all       sync.WaitGroup

	mu      sync.Mutex
	silent  bool          // the program has ended its output
	ended   bool          // and all of it was sent, and its end
	deaf    bool          // the program does not read any more
	limited bool          // the server is waited for no longer than budget
	budget  time.Duration // what is left of patience
	since   time.Time     // when the present wait began, or the last one ended
	closing bool          // both ends are being closed: what fails now does not count
}

func newRelay(c *Conn, local Local, o RelayOptions) *relay {
	r := &relay{conn: c, local: local, options: o, patience: closeWait}
	r.toServer = newQueue(c.wire.Conn, queueLimit)
	r.toProgram = newQueue(local, queueLimit)
	c.wire.SetDeadline(time.Time{})
	c.wire.queue = r.toServer
	c.wire.pull, c.wire.space = r.pull, make([]byte, relayBuffer)
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

// start runs f in a goroutine of its own. A panic becomes an error. There is room
// for the result in done.
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

// wait returns when both directions are through, or something has failed.
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
				return err // it says best why the connection was lost for writing too
			}
			incoming = nil
		case err := <-outgoing:
			result = cmp.Or(result, err)
			outgoing = nil
		case <-lost:
			// The other direction may hold something still, but not for long.
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
	defer r.becameDeaf() // by then there is nothing left to read
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
				r.conn.wire.shut() // the program may take its time over the rest
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
	return r.conn.wire.Conn.Read(p)
}

// deliver hands over what was read. The queue's end is the program's: it does not
// read any more.
func (r *relay) deliver() error {
	r.toProgram.run()
	r.becameDeaf()
	return nil
}

// serverEnd tells which ends of the server's data are errors.
func (r *relay) serverEnd(err error) error {
	switch {
	case err == io.EOF && r.conn.Truncated() && r.options.EnforceCloseNotify:
		return &Error{Kind: KindRunning, What: "server ended the connection without close_notify"}
	case err == io.EOF, isTimeout(err):
		return nil
	case r.objectsToHalfClose(err):
		return nil
	case r.conn.wire.broken.Load() && r.isOver() && !r.options.EnforceCloseNotify:
		// It has no patience with a connection that both have done with.
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

// pump returns the error that ended reading, and that which ended writing.
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
				r.limitReads() // an alert was sent: the server will end this
				return nil, err
			}
		}
		if readErr != nil {
			return readErr, nil
		}
	}
}

// end tells the server that the program has nothing more to say.
func (r *relay) end() {
	r.mu.Lock()
	r.ended = true
	patient := !r.options.CloseNotify && !r.deaf
	r.mu.Unlock()
	if r.options.CloseNotify || !r.conn.wire.canHalfClose() {
		r.conn.CloseWrite()
	}
	r.toServer.finish() // answers to requests for new keys have no place after this
	if r.toServer.await(0) == nil {
		r.conn.wire.halfClose()
	}
	if !patient {
		r.limitReads()
	}
}

// objectsToHalfClose tells of an alert that answers our end without close_notify:
// OpenSSL 3 takes that for a truncation, and says so when it has nothing more to say.
func (r *relay) objectsToHalfClose(err error) bool {
	_, alerted := remoteAlert(err)
	return alerted && r.hasEnded() && !r.options.CloseNotify && !r.options.EnforceCloseNotify
}

// lost is the error for what could not be sent.
func (r *relay) lost() error {
	err := r.toServer.error()
	if own := new(Error); errors.As(err, &own) {
		return own
	}
	return &Error{Kind: KindRunning, What: "connection lost while sending: " + innermost(err).Error(), Err: err}
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

// isOver tells that the server's end is waited for out of courtesy only.
func (r *relay) isOver() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended && (r.options.CloseNotify || r.deaf)
}

// limitReads has the server waited for closeWait, all in all, from now on.
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
	if r.deaf { // it is not the program that takes the time between two reads
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

// close closes both ends, after a last attempt to send what is to be sent: an alert.
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
	r.conn.wire.shut()
	r.toServer.stop(net.ErrClosed)
	r.toProgram.stop(net.ErrClosed)
	r.local.Close()
}
