package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// listen reads descriptor 1 to its end: the limit, and then answers.
func (p *Player) listen() {
	defer func() {
		p.answers.Close()
		close(p.deaf)
		p.wake()
	}()
	r := bufio.NewReader(p.answers)
	limit, err := p.readNumber(r)
	if err != nil {
		p.note(err)
		return
	}
	p.limit, p.latency = limit, time.Since(p.began)
	close(p.limited)
	if limit == 0 {
		p.complain(errors.New("the limit is 0"))
	}
	for {
		a, err := p.readAnswer(r)
		if err != nil {
			p.note(err)
			return
		}
		p.hand(a)
	}
}

// note complains of what is no end of the answers.
func (p *Player) note(err error) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
		p.complain(err)
	}
}

// readNumber reads a number; io.EOF says that there is none.
func (p *Player) readNumber(r io.Reader) (int, error) {
	var b [2]byte
	if n, err := io.ReadFull(r, b[:p.part.Bytes]); err != nil {
		if n > 0 {
			return 0, errors.New("half a number")
		}
		return 0, err
	}
	return int(binary.LittleEndian.Uint16(b[:])), nil
}

func (p *Player) readAnswer(r *bufio.Reader) (a Answer, err error) {
	if a.Number, err = p.readNumber(r); err != nil {
		return a, err
	}
	text, err := r.ReadString(0)
	switch {
	case err != nil:
		return a, fmt.Errorf("half an answer: number %d, %.200q: %v", a.Number, text, err)
	case strings.IndexByte("KZD", text[0]) < 0:
		return a, fmt.Errorf("answer %d has the letter %.200q", a.Number, text)
	case len(text)-len("K\x00") > maxAnswer:
		p.complain(fmt.Errorf("answer %d has %d bytes", a.Number, len(text)))
	}
	a.Letter, a.Text = text[0], text[1:len(text)-1]
	return a, nil
}

// hand gives an answer to the call that waits for it. Its number is free then.
func (p *Player) hand(a Answer) {
	p.mu.Lock()
	c := p.calls[a.Number]
	delete(p.calls, a.Number)
	p.total++
	p.freed.Broadcast()
	p.mu.Unlock()
	if c != nil {
		c.answer <- a
		return
	}
	select {
	case p.stray <- a:
	default:
		p.complain(fmt.Errorf("too many answers to no command: %v", a))
	}
}
