package rspawn

import (
	"sync"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/remote/rspawn/dialect"
)

// maxUnread is how many bytes of answers may wait before no further command is read. The
// answers of all deliveries under way may come on top.
const maxUnread = 1 << 20

// An output writes answers, and knows the numbers that have none yet. Several goroutines
// may use it.
type output struct {
	fd    int
	width dialect.Width

	mu      sync.Mutex
	changed sync.Cond
	taken   []bool // by number
	pending []byte
	leaving []int // numbers of pending that are to be free
	letters map[byte]uint64
	closed  bool
	lost    bool // nobody reads
}

func newOutput(fd int, width dialect.Width, limit int) *output {
	o := &output{fd: fd, width: width, taken: make([]bool, limit), letters: make(map[byte]uint64)}
	o.changed.L = &o.mu
	return o
}

// inUse reports whether a number is taken.
func (o *output) inUse(number int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.taken[number]
}

// take marks a number as in use, until its answer is written.
func (o *output) take(number int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken[number] = true
}

// release frees a number that gets no answer.
func (o *output) release(number int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken[number] = false
}

// refuse answers a command that did not take its number.
func (o *output) refuse(number int, a dialect.Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.put(number, a)
	o.changed.Broadcast()
}

// answer answers the command that took number. It is written after flush.
func (o *output) answer(number int, a dialect.Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.put(number, a)
	o.leaving = append(o.leaving, number)
}

func (o *output) put(number int, a dialect.Answer) {
	o.pending = a.Append(o.pending, o.width, number)
	o.letters[a.Letter]++
}

// flush has what is ready written, in one piece.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed.Broadcast()
}

// close has what is ready written, and nothing more.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.changed.Broadcast()
}

// room waits until there is room for another answer. It is false if nobody reads.
func (o *output) room() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) > maxUnread && !o.lost {
		o.changed.Wait()
	}
	return !o.lost
}

// answers returns how many answers there were with each letter.
func (o *output) answers(letter byte) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.letters[letter]
}

// run writes until everything is written after close. It is false if nobody reads.
func (o *output) run() bool {
	for {
		b, more := o.next()
		if !more {
			return true
		}
		if err := writeAll(o.fd, b); err != nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.lost = true
			o.changed.Broadcast()
			return false
		}
	}
}

// next returns what is to be written. Its numbers are free: nobody knows before the write.
func (o *output) next() (b []byte, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) == 0 {
		if o.closed {
			return nil, false
		}
		o.changed.Wait()
	}
	b, o.pending = o.pending, nil
	for _, number := range o.leaving {
		o.taken[number] = false
	}
	o.leaving = o.leaving[:0]
	o.changed.Broadcast()
	return b, true
}

// writeAll writes b to a descriptor of which it is not known whether it blocks.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		default:
			return err
		}
	}
	return nil
}

// awaitNobody waits until nobody can read what is written to fd.
func awaitNobody(fd int) {
	for {
		poll := []unix.PollFd{{Fd: int32(fd)}} // errors and hang-ups are reported in any case
		n, err := unix.Poll(poll, -1)
		if err != nil && err != unix.EINTR && err != unix.EAGAIN {
			return
		}
		if n > 0 && poll[0].Revents != 0 {
			return
		}
	}
}
