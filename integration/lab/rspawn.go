package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Delivery is one run of a qmail-remote as qmail-rspawn makes it.
type Delivery struct {
	Program    string   // path of mxf-remote
	Environ    []string // the whole environment
	Dir        string   // working folder; qmail-rspawn's is the queue
	Message    *os.File // descriptor 0, an open file at offset 0 (or a pipe)
	Host       string
	Sender     string
	Recipients []string
	Arguments  []string // in place of host, sender and recipients, when not nil
	Limit      time.Duration
}

// An Outcome is what came of a delivery.
type Outcome struct {
	Letter  byte   // qmail-rspawn's verdict: K, Z or D
	Text    string // what qmail-rspawn tells qmail-send after the letter
	Raw     []byte // all that came out of descriptors 1 and 2
	Exit    int    // exit status, -1 after a signal
	Elapsed time.Duration
	Left    bool // processes of the delivery outlived it by more than leftGrace
}

// leftGrace is the time in which the children of a router that has ended must be
// gone: they notice the end of their descriptors and leave.
const leftGrace = 10 * time.Second

// DefaultLimit ends a delivery that does not end by itself.
const DefaultLimit = 2 * time.Minute

// ErrHung says that a delivery was killed because its time was over.
var ErrHung = errors.New("the delivery did not end in time")

// Rspawn runs a delivery: the message on descriptor 0, one pipe on descriptors 1
// and 2, which is read to its end, whoever holds it. The errors are those of
// starting the program, and ErrHung. Every process of the delivery is known by a
// variable LAB_DELIVERY in its environment.
func Rspawn(ctx context.Context, d Delivery) (*Outcome, error) {
	limit := d.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	mark := fmt.Sprintf("LAB_DELIVERY=%d.%d", os.Getpid(), time.Now().UnixNano())
	cmd := command(d, mark, w)
	begin := time.Now()
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	over := make(chan struct{})
	defer close(over)
	stop := context.AfterFunc(ctx, func() { killUntil(over, mark) })
	defer stop()
	raw, err := io.ReadAll(r)
	cmd.Wait()
	if err != nil {
		return nil, err
	}
	o := &Outcome{Raw: raw, Exit: cmd.ProcessState.ExitCode(), Elapsed: time.Since(begin)}
	o.Letter, o.Text = Verdict(raw, o.Exit)
	if ctx.Err() != nil {
		return o, ErrHung
	}
	o.Left = !allGone(mark)
	return o, nil
}

func command(d Delivery, mark string, out *os.File) *exec.Cmd {
	args := d.Arguments
	if args == nil {
		args = append([]string{d.Host, d.Sender}, d.Recipients...)
	}
	cmd := exec.Command(d.Program, args...)
	cmd.Env = append(slices.Clone(d.Environ), mark)
	cmd.Dir = d.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.Message, out, out
	return cmd
}

// marked returns the processes that inherited an assignment. Process groups would
// not do: a router may put its children into groups of their own.
func marked(assignment string) (pids []int) {
	list, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range list {
		environ, _ := os.ReadFile(path)
		if bytes.Contains(environ, []byte(assignment)) {
			if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func killAll(mark string) {
	for _, pid := range marked(mark) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// killUntil kills all processes of a delivery, again and again until it is over: one that
// is just starting another program cannot be found for a moment.
func killUntil(over <-chan struct{}, mark string) {
	for {
		killAll(mark)
		select {
		case <-over:
			return
		case <-time.After(look):
		}
	}
}

// look is the time between two looks at the processes of a delivery.
const look = 10 * time.Millisecond

// allGone waits for all processes of a delivery to be gone. What is left is killed.
func allGone(mark string) bool {
	for end := time.Now().Add(leftGrace); time.Now().Before(end); time.Sleep(look) {
		if len(marked(mark)) == 0 {
			return true
		}
	}
	killAll(mark)
	return false
}

// Verdict reads reports and exit status as qmail-rspawn(8) does: status 111 is
// temporary, any other than 0 permanent, a crash and silence temporary. Otherwise
// the message report decides, and a first recipient report that is worse wins
// over it; the text is the first report's, followed by the second's when that is
// the message's and the recipient was not refused more gravely.
func Verdict(raw []byte, exit int) (letter byte, text string) {
	switch {
	case exit < 0:
		return 'Z', "qmail-remote crashed.\n"
	case exit == 111:
		return 'Z', "Unable to run qmail-remote.\n"
	case exit != 0:
		return 'D', "Unable to run qmail-remote.\n"
	case len(raw) == 0:
		return 'Z', "qmail-remote produced no output.\n"
	}
	message := messageLetter(raw)
	letter = message
	switch raw[0] {
	case 's':
		letter = 'Z'
	case 'h':
		letter = 'D'
	}
	first, rest, complete := bytes.Cut(raw[1:], []byte{0})
	if !complete {
		return letter, ""
	}
	text = string(first)
	if rank[message] <= rank[letter] && len(rest) > 0 && bytes.IndexByte([]byte("KZD"), rest[0]) >= 0 {
		second, _, _ := bytes.Cut(rest[1:], []byte{0})
		text += string(second)
	}
	return letter, text
}

var rank = map[byte]int{'D': -1, 'Z': 0, 'K': 1}

// messageLetter returns the first K, Z or D that begins a complete report; with
// none of them the message is lost for good.
func messageLetter(raw []byte) byte {
	for len(raw) > 0 {
		report, rest, complete := bytes.Cut(raw, []byte{0})
		if !complete {
			break
		}
		if len(report) > 0 && bytes.IndexByte([]byte("KZD"), report[0]) >= 0 {
			return report[0]
		}
		raw = rest
	}
	return 'D'
}

// Reports splits what came out of descriptors 1 and 2 into reports, without the
// newline at the end of their texts. The error says why it is not exactly one
// complete stream for n recipients.
func Reports(raw []byte, n int) ([]string, error) {
	body, complete := bytes.CutSuffix(raw, []byte{0})
	if !complete {
		return nil, fmt.Errorf("reports do not end in a zero byte: %q", raw)
	}
	list := strings.Split(string(body), "\x00")
	last := len(list) - 1
	for i, one := range list {
		letters := "rhs"
		if i == last {
			letters = "KZD"
		}
		if one == "" || !strings.Contains(letters, one[:1]) {
			return list, fmt.Errorf("report %d of %d is %q", i+1, len(list), one)
		}
		if list[i], complete = strings.CutSuffix(one, "\n"); !complete && len(one) > 1 {
			return list, fmt.Errorf("report %d of %d does not end in a newline: %q", i+1, len(list), one)
		}
	}
	if last > n || last < n && list[last][0] == 'K' {
		return list, fmt.Errorf("%d recipient reports for %d recipients", last, n)
	}
	return list, nil
}
