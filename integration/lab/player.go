package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A Part says how a [Player] starts a qmail-rspawn.
type Part struct {
	Program   string   // path of mxf-rspawn, or of another qmail-rspawn
	Arguments []string // behind the program's name; qmail-start gives none
	Environ   []string // the whole environment, such as that of [Lab.Environ]
	Dir       string   // working folder; qmail-start's is /
	Bytes     int      // of a number, 1 or 2; 0 is 1
	Slots     int      // deliveries at a time, as concurrencyremote of qmail-send; 0: as many as the limit allows
	Overhear  bool     // descriptor 2 is a pipe (see Said), in place of being closed as qmail-start leaves it
	Shell     string   // commands that a shell carries out before it becomes the program, such as "ulimit -n 200"
}

// A Player plays qmail-send's part towards a qmail-rspawn: it writes commands to its
// descriptor 0, reads the answers from its descriptor 1, and gives out the numbers. It may
// be used by many goroutines.
//
//	limit      N                                      the number of bytes of Part, the low one first
//	command    number messid\0 sender\0 recipient\0
//	answer     number letter text\0
//
// What a qmail-rspawn must never do is an error of Close: two answers to one command or
// none, an unknown letter, half an answer, a word on descriptor 2, an exit status,
// and processes that outlive it.
type Player struct {
	part     Part
	mark     string
	process  *os.Process
	began    time.Time
	commands *os.File
	answers  *os.File
	said     chan string // what came on 2, at its end; nil: nobody listens

	writing sync.Mutex // one command at a time

	limit   int
	limited chan struct{} // closed when the limit is known
	latency time.Duration // until the limit
	deaf    chan struct{} // closed when nothing more comes on 1
	stray   chan Answer   // answers that no call waits for
	ended   chan struct{} // closed when the process was waited for
	state   *os.ProcessState

	mu      sync.Mutex
	calls   map[int]*Call // by number
	freed   *sync.Cond    // a number is free, or nothing more comes
	wrong   []error
	excused bool // commands may stay without an answer
	total   int  // answers
}

// An Answer is what became of a command.
type Answer struct {
	Number int
	Letter byte // K, Z or D
	Text   string
}

func (a Answer) String() string { return fmt.Sprintf("%d %c %.1000q", a.Number, a.Letter, a.Text) }

const (
	// strays is how many answers that no call waits for are kept for Stray.
	strays = 4096
	// maxAnswer is what a text may have; qmail-send keeps a little more.
	maxAnswer = 9000
	// patience is how long a Player waits for what should take no time, on a slow machine too.
	patience = 20 * time.Second
)

// ErrDeaf says that nothing more comes on descriptor 1, so that there will be no answer.
var ErrDeaf = errors.New("the answers have ended")

// Play starts a qmail-rspawn. It does not wait for the limit.
func Play(part Part) (*Player, error) {
	part.Bytes = max(part.Bytes, 1)
	p := &Player{
		part: part, mark: fmt.Sprintf("LAB_PLAYER=%d.%d", os.Getpid(), time.Now().UnixNano()),
		limited: make(chan struct{}), deaf: make(chan struct{}), ended: make(chan struct{}),
		stray: make(chan Answer, strays), calls: make(map[int]*Call),
	}
	p.freed = sync.NewCond(&p.mu)
	if err := p.start(); err != nil {
		return nil, err
	}
	return p, nil
}

// start starts the process as qmail-start does.
func (p *Player) start() error {
	var files []*os.File // the process's
	defer func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}()
	r, commands, err := os.Pipe()
	if err != nil {
		return err
	}
	files = append(files, r)
	answers, w, err := os.Pipe()
	if err != nil {
		commands.Close()
		return err
	}
	files = append(files, w, nil)
	p.commands, p.answers = commands, answers
	if p.part.Overhear {
		overheard, errs, err := os.Pipe()
		if err != nil {
			return errors.Join(err, commands.Close(), answers.Close())
		}
		files[2] = errs
		p.said = make(chan string, 1)
		go func() {
			defer overheard.Close()
			text, _ := io.ReadAll(overheard)
			p.said <- string(text)
		}()
	}
	return p.run(files)
}

func (p *Player) run(files []*os.File) (err error) {
	program, args := p.part.Program, append([]string{p.part.Program}, p.part.Arguments...)
	if p.part.Shell != "" {
		program, args = "/bin/sh", append([]string{"sh", "-c", p.part.Shell + ` && exec "$0" "$@"`}, args...)
	}
	environ := append(append([]string(nil), p.part.Environ...), p.mark)
	p.began = time.Now()
	p.process, err = os.StartProcess(program, args, &os.ProcAttr{Dir: p.part.Dir, Env: environ, Files: files})
	if err != nil {
		return errors.Join(err, p.commands.Close(), p.answers.Close())
	}
	go p.listen()
	go p.reap()
	return nil
}

func (p *Player) reap() {
	defer close(p.ended)
	var err error
	if p.state, err = p.process.Wait(); err != nil {
		p.complain(err)
	}
}

// complain notes what is wrong, for Close.
func (p *Player) complain(err error) {
	const few = 20
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wrong) < few {
		p.wrong = append(p.wrong, err)
	}
}

// excuse has commands that stay without an answer be no error.
func (p *Player) excuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.excused = true
}

// Pid returns the process that was started.
func (p *Player) Pid() int { return p.process.Pid }

// Limit returns the limit that the process has announced. It waits for it; the error is
// that none came.
func (p *Player) Limit(ctx context.Context) (int, error) {
	select {
	case <-p.limited:
		return p.limit, nil
	case <-p.deaf:
		select {
		case <-p.limited:
			return p.limit, nil
		default:
			return 0, ErrDeaf
		}
	case <-ctx.Done():
		return 0, fmt.Errorf("no limit: %w", ctx.Err())
	}
}

// Latency is how long the limit took from the start of the process, once Limit has returned.
func (p *Player) Latency() time.Duration { return p.latency }

// number renders a number as a command has it.
func (p *Player) number(n int) []byte {
	if p.part.Bytes == 2 {
		return []byte{byte(n), byte(n >> 8)}
	}
	return []byte{byte(n)}
}

// Command returns a command's bytes.
func (p *Player) Command(number int, messid, sender, recipient string) []byte {
	return append(p.number(number), messid+"\x00"+sender+"\x00"+recipient+"\x00"...)
}

// Write writes to descriptor 0 what may be no command. Answers that come of it are those of
// Stray.
func (p *Player) Write(b []byte) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.commands.SetWriteDeadline(time.Now().Add(patience))
	_, err := p.commands.Write(b)
	return err
}

// Stray returns the next answer that no call waits for. Answers that nobody takes are an
// error of Close.
func (p *Player) Stray(ctx context.Context) (Answer, error) {
	select {
	case a := <-p.stray:
		return a, nil
	default:
	}
	select {
	case a := <-p.stray:
		return a, nil
	case <-p.deaf:
		select {
		case a := <-p.stray:
			return a, nil
		default:
			return Answer{}, ErrDeaf
		}
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// A Call is a command that was written.
type Call struct {
	player *Player
	number int
	answer chan Answer // has room for the answer
}

// Number returns the number of the command.
func (c *Call) Number() int { return c.number }

// Answer waits for the answer.
func (c *Call) Answer(ctx context.Context) (Answer, error) {
	select {
	case a := <-c.answer:
		return a, nil
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("no answer to number %d: %w", c.number, ctx.Err())
	case <-c.player.deaf:
		select {
		case a := <-c.answer:
			return a, nil
		default:
			return Answer{}, ErrDeaf
		}
	}
}

// Answered reports whether the answer has come.
func (c *Call) Answered() bool { return len(c.answer) > 0 }

// Begin writes a command with the lowest number that is free, and waits for that first.
func (p *Player) Begin(ctx context.Context, messid, sender, recipient string) (*Call, error) {
	limit, err := p.Limit(ctx)
	if err != nil {
		return nil, err
	}
	if p.part.Slots > 0 {
		limit = min(limit, p.part.Slots)
	}
	c, err := p.take(ctx, limit)
	if err != nil {
		return nil, err
	}
	return c, p.Write(p.Command(c.number, messid, sender, recipient))
}

// take takes a number below limit.
func (p *Player) take(ctx context.Context, limit int) (*Call, error) {
	stop := context.AfterFunc(ctx, p.wake)
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		select {
		case <-p.deaf:
			return nil, ErrDeaf
		default:
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no number is free: %w", ctx.Err())
		}
		for n := range limit {
			if len(p.calls) < limit && p.calls[n] == nil {
				c := &Call{p, n, make(chan Answer, 1)}
				p.calls[n] = c
				return c, nil
			}
		}
		p.freed.Wait()
	}
}

func (p *Player) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freed.Broadcast()
}

// Deliver has a recipient of a message delivered to, and waits for the answer.
func (p *Player) Deliver(ctx context.Context, messid, sender, recipient string) (Answer, error) {
	c, err := p.Begin(ctx, messid, sender, recipient)
	if err != nil {
		return Answer{}, err
	}
	return c.Answer(ctx)
}

// Answers returns how many answers have come.
func (p *Player) Answers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// Signal sends the process a signal. After SIGTERM, SIGINT and SIGKILL commands may stay
// without an answer.
func (p *Player) Signal(s syscall.Signal) error {
	switch s {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL:
		p.excuse()
	}
	return p.process.Signal(s)
}

// Finish ends descriptor 0.
func (p *Player) Finish() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	err := p.commands.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Deafen has nobody read descriptor 1 any more. Commands may stay without an answer.
func (p *Player) Deafen() error {
	p.excuse()
	return p.answers.Close()
}

// Wait waits for the end of the process, and returns its exit status, -1 after a signal.
func (p *Player) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.ended:
		if p.state == nil {
			return -1, errors.New("nothing is known of the end")
		}
		return p.state.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("the process does not end: %w", ctx.Err())
	}
}

// Usage returns the processor time of the process and of all that it has waited for, user
// and system, once Wait has returned.
func (p *Player) Usage() time.Duration {
	if p.state == nil {
		return 0
	}
	return p.state.UserTime() + p.state.SystemTime()
}

// Said returns what came on descriptor 2, once that has ended. Without Overhear it is
// nothing.
func (p *Player) Said() string {
	if p.said == nil {
		return ""
	}
	text := <-p.said
	p.said <- text
	return text
}

// Close ends descriptor 0, waits for the answers and the end of the process and of all that
// it has started, and returns all that was wrong. What does not end within limit is
// killed.
func (p *Player) Close(limit time.Duration) error {
	p.Finish()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	status, err := p.Wait(ctx)
	switch {
	case err != nil:
		p.complain(err)
		p.Kill()
		<-p.ended
	case status != 0:
		p.complain(fmt.Errorf("%s ended with status %d", filepath.Base(p.part.Program), status))
	}
	return p.Verdict()
}

// Verdict is Close for a process that has ended, with whatever status.
func (p *Player) Verdict() error {
	if !allGone(p.mark) {
		p.complain(errors.New("processes were left behind"))
	}
	p.Finish()
	<-p.deaf
	if said := p.Said(); said != "" {
		p.complain(fmt.Errorf("on descriptor 2 it said %.2000q", said))
	}
	for len(p.stray) > 0 {
		p.complain(fmt.Errorf("an answer to no command: %v", <-p.stray))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.calls); n > 0 && !p.excused {
		p.wrong = append(p.wrong, fmt.Errorf("%d commands have no answer", n))
	}
	return errors.Join(p.wrong...)
}

// Kill kills the process and all that it has started.
func (p *Player) Kill() {
	p.excuse()
	p.process.Kill()
	killUntil(p.ended, p.mark)
}
