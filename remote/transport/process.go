package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"nightmare.mail/mxf/remote/report"
)

const (
	// fuseGrace is what a program gets after timeoutremote to print its report
	// and exit 124 before it is killed. The fuse is to be kept within a second.
	fuseGrace = 500 * time.Millisecond
	// closingGrace is how long a program whose reports are complete may take to
	// end. They are final, so nothing is gained by waiting longer.
	closingGrace = 2 * time.Second
	// killGrace is how long a program that was killed may take to end. It ends at once,
	// unless it waits in the kernel for a disk or a file server that does not answer.
	killGrace = 2 * time.Second
	// drainGrace bounds the reading of a pipe that somebody still holds open
	// after the program has ended.
	drainGrace = 100 * time.Millisecond

	// maxReport bounds what is kept of each report of a program, in bytes:
	// qmail-send keeps 10,000 (REPORTMAX). Cut, it is still a report, and a
	// message that was delivered stays so.
	maxReport = 64 << 10
	// maxReports bounds what is kept of all of them, in bytes; of those that come when it
	// is used up the beginning is kept, fewReport bytes: a server can have much to say
	// about each of thousands of recipients.
	maxReports = 16 << 20
	fewReport  = 512
	// maxQuoted bounds what is quoted of reports that are none, in bytes.
	maxQuoted = 200
	// maxPipe is the most that a pipe holds (/proc/sys/fs/pipe-max-size).
	maxPipe = 1 << 20
	// maxStderr bounds what is kept of a program's diagnostics; the beginning
	// and the end tell more than the middle, so both are kept.
	maxStderr = 8 << 10
)

// blockingCopy returns a descriptor of conn in blocking mode, which is what
// programs expect of descriptors that they inherit.
func blockingCopy(conn *net.TCPConn) (*os.File, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var inner error
	err = raw.Control(func(orig uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, inner = syscall.Dup(int(orig)); inner == nil {
			syscall.CloseOnExec(fd)
			inner = syscall.SetNonblock(fd, false)
		}
	})
	if err = errors.Join(err, inner); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "network"), nil
}

// A process is a chain that was started.
type process struct {
	*os.Process
	stdout   *os.File
	stderr   *os.File
	complete chan struct{} // closed when a complete report stream was read
	ended    chan struct{} // closed when nobody waits for the chain any more

	printed printed
	said    said
	reading sync.WaitGroup
}

// spawn starts a chain that does not outlive this process, should a signal end that:
// the chain might deliver the message, and nobody would know. stop is called when the
// chain has ended.
func (c *Carrier) spawn(args, environ []string, stdin, network *os.File, recipients int) (p *process, stop func(), err error) {
	stop = func() {}
	var starting sync.Mutex // a signal waits until it is known what there is to end
	starting.Lock()
	defer starting.Unlock()
	if c.OnEnd != nil {
		stop = c.OnEnd(func() {
			starting.Lock()
			defer starting.Unlock()
			if p != nil {
				p.signal()
			}
		})
	}
	p, err = spawn(args, environ, stdin, network, recipients)
	if err != nil {
		stop()
	}
	return p, stop, err
}

// spawn starts the chain in a process group of its own, so that a script's
// children can be ended with it, with descriptors 0, 1, 2, 6 and 7 and no others.
func spawn(args, environ []string, stdin, network *os.File, recipients int) (*process, error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer outW.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		return nil, err
	}
	defer errW.Close()
	ended := make(chan struct{})
	proc, err := start(args, &os.ProcAttr{
		Env:   environ,
		Files: []*os.File{stdin, outW, errW, nil, nil, nil, network, network},
	}, ended)
	if err != nil {
		outR.Close()
		errR.Close()
		return nil, err
	}
	p := &process{Process: proc, printed: printed{reports: report.Parser{Recipients: recipients}},
		stdout: outR, stderr: errR, complete: make(chan struct{}), ended: ended}
	p.reading.Add(2)
	go p.readReports()
	go p.readDiagnostics()
	return p, nil
}

func (p *process) readReports() {
	defer p.reading.Done()
	defer func() { _ = recover() }()
	buf := make([]byte, maxReport)
	for done := false; ; {
		n, err := p.stdout.Read(buf)
		if p.printed.add(buf[:n]); !done && p.printed.complete() {
			done = true
			close(p.complete)
		}
		if err != nil {
			return
		}
	}
}

func (p *process) readDiagnostics() {
	defer p.reading.Done()
	defer func() { _ = recover() }()
	buf := make([]byte, maxStderr)
	for {
		n, err := p.stderr.Read(buf)
		p.said.add(buf[:n])
		if err != nil {
			return
		}
	}
}

// printed is what a program has printed: of each report as much as is kept, of
// reports no more than there can be.
type printed struct {
	reports report.Parser
	bytes   []byte // of the report that has not ended
	kept    int    // bytes in all
	some    bool   // there was one that has
	last    bool   // nothing that comes now counts
}

func (p *printed) add(b []byte) {
	for len(b) > 0 && !p.last {
		text, rest, end := bytes.Cut(b, []byte{0})
		room := maxReport
		if p.kept >= maxReports {
			room = fewReport
		}
		text = text[:min(len(text), max(room-len(p.bytes), 0))]
		p.bytes, p.kept, b = append(p.bytes, text...), p.kept+len(text), rest
		if !end {
			return
		}
		p.last, p.some = p.reports.Add(p.bytes), true
		p.bytes = p.bytes[:0]
	}
}

// complete reports whether a complete stream is among it.
func (p *printed) complete() bool {
	_, err := p.reports.Stream()
	return err == nil
}

// nothing reports whether not a byte was printed.
func (p *printed) nothing() bool { return !p.some && len(p.bytes) == 0 }

// stream returns the stream, or why there is none.
func (p *printed) stream() (report.Stream, error) {
	stream, err := p.reports.Stream()
	if errors.Is(err, report.ErrIncomplete) && len(p.bytes) > 0 {
		err = fmt.Errorf("%w: no zero byte ends %q", err, p.bytes[:min(len(p.bytes), maxQuoted)])
	}
	return stream, err
}

// said is what is kept of a program's diagnostics.
type said []byte

func (s *said) add(b []byte) {
	*s = append(*s, b...)
	if over := len(*s) - maxStderr; over > 0 {
		*s = append((*s)[:maxStderr/2], (*s)[maxStderr/2+over:]...)
	}
}

// rest hands on what a pipe holds at this moment. A deadline that has passed keeps
// Read from looking, and on a busy machine it passes before there was a Read.
func rest(pipe *os.File, add func([]byte)) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, maxStderr)
	_ = raw.Control(func(fd uintptr) {
		for left := maxPipe; left > 0; {
			n, err := syscall.Read(int(fd), buf)
			if err == syscall.EINTR {
				continue
			}
			if n <= 0 {
				return
			}
			add(buf[:n])
			left -= n
		}
	})
}

// signal sends SIGKILL to the chain's process group, and to the program itself, which may
// have left that.
func (p *process) signal() {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	_ = p.Process.Kill()
}

// An exitError is how a chain ended that did not print a complete stream.
type exitError struct {
	state *os.ProcessState
	cause error // why we killed it: errFuse, or that of the context; nil if we did not
	parse error
}

// errFuse is the cause of the end of a chain that ran for too long.
var errFuse = errors.New("killed after timeoutremote")

func (e *exitError) Error() string {
	switch {
	case e.cause != nil:
		return e.cause.Error()
	case e.state == nil:
		return "no exit status: it does not end"
	}
	return e.state.String()
}

// result waits for the chain and returns its reports. A complete stream is final,
// whatever happens next. Otherwise the error is an *exitError.
func (p *process) result(ctx context.Context, patience time.Duration) (report.Stream, error) {
	defer close(p.ended)
	ended := make(chan *os.ProcessState, 1)
	go func() {
		state, _ := p.Wait()
		ended <- state
	}()
	var blown <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		blown = timer.C
	}
	var state *os.ProcessState
	var cause error
	select {
	case state = <-ended:
	case <-p.complete:
		select {
		case state = <-ended:
		case <-time.After(closingGrace):
			state = p.kill(ended)
		}
	case <-blown:
		cause = errFuse
		state = p.kill(ended)
	case <-ctx.Done():
		cause = context.Cause(ctx)
		state = p.kill(ended)
	}
	// Whoever holds the pipes now is not the program that was to report.
	deadline := time.Now().Add(drainGrace)
	_ = p.stdout.SetReadDeadline(deadline)
	_ = p.stderr.SetReadDeadline(deadline)
	p.reading.Wait()
	rest(p.stdout, p.printed.add)
	rest(p.stderr, p.said.add)
	p.stdout.Close()
	p.stderr.Close()
	stream, err := p.printed.stream()
	if err == nil {
		return stream, nil
	}
	return report.Stream{}, &exitError{state: state, cause: cause, parse: err}
}

// kill ends the chain, with all that it started in its process group. The state is nil if
// it does not end even so.
func (p *process) kill(ended <-chan *os.ProcessState) *os.ProcessState {
	p.signal()
	select {
	case state := <-ended:
		return state
	case <-time.After(killGrace):
		return nil
	}
}
