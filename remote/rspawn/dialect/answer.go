package dialect

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
)

// MaxText is the longest text of an answer, in bytes: qmail-send keeps 10,000 of it and
// its number.
const MaxText = 9000

// The letters of an answer.
const (
	Success   = 'K'
	Temporary = 'Z'
	Permanent = 'D'
)

// An Answer is what became of a delivery.
type Answer struct {
	Letter byte   // K, Z or D
	Text   string // with the newline at its end, if it is not empty
}

// Deferred returns the answer to a delivery that cannot be made now. Its text is that of
// err and a newline.
func Deferred(err error) Answer { return Answer{Temporary, err.Error() + "\n"} }

// Append appends the answer to delivery number. A text ends before its first zero byte,
// and at MaxText. Any other letter becomes Z.
func (a Answer) Append(b []byte, w Width, number int) []byte {
	b = w.append(b, number)
	if !isMessage(a.Letter) {
		a.Letter = Temporary
	}
	text, _, _ := strings.Cut(a.Text, "\x00")
	b = append(b, a.Letter)
	b = append(b, text[:min(len(text), MaxText)]...)
	return append(b, 0)
}

func isMessage(letter byte) bool {
	return letter == Success || letter == Temporary || letter == Permanent
}

// Verdict makes an answer of a stream of reports, as qmail-rspawn does. The first complete
// report that begins with K, Z or D is the message's; without one the letter is D. A first
// report that begins with s or h has the last word, Z or D. The text is the first report's,
// followed by the second's if that has a letter of a message and the message's letter is
// not better than the answer's.
//
// A stream that ends within a report, before the message's and with no word against the
// recipient, is no verdict but an accident: that is Z, where qmail-rspawn has D.
func Verdict(stream []byte) Answer {
	whole := stream[:bytes.LastIndexByte(stream, 0)+1]
	message, found := messageLetter(whole)
	if len(whole) == 0 || !found && len(whole) < len(stream) && whole[0] != 's' && whole[0] != 'h' {
		return incomplete()
	}
	first, rest, _ := bytes.Cut(whole, []byte{0})
	letter, text := message, ""
	if len(first) > 0 {
		text = string(first[1:])
		switch first[0] {
		case 's':
			letter = Temporary
		case 'h':
			letter = Permanent
		}
	}
	if second, _, complete := bytes.Cut(rest, []byte{0}); complete && len(second) > 0 &&
		isMessage(second[0]) && rank(message) <= rank(letter) {
		text += string(second[1:])
	}
	return Answer{letter, text}
}

func messageLetter(whole []byte) (letter byte, found bool) {
	for report := range bytes.SplitSeq(whole, []byte{0}) {
		if len(report) > 0 && isMessage(report[0]) {
			return report[0], true
		}
	}
	return Permanent, false
}

// rank orders the letters: D, Z, K.
func rank(letter byte) int {
	return strings.IndexByte("DZK", letter)
}

func incomplete() Answer {
	return Answer{Temporary, "qmail-remote produced an incomplete report. (#4.3.0)\n"}
}

// An Ending is how a process ended.
type Ending struct {
	Signal syscall.Signal // 0: none
	Status int            // exit status, when there was no signal
}

// String returns "signal killed", "exit status 2".
func (e Ending) String() string {
	if e.Signal != 0 {
		return "signal " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// Answer returns the answer of a delivery by a process of its own that wrote stream. No
// exit status is a reason to bounce a message.
func (e Ending) Answer(stream []byte) Answer {
	switch {
	case e.Signal != 0:
		return Answer{Temporary, "qmail-remote crashed.\n"}
	case e.Status != 0:
		return Answer{Temporary, "Unable to run qmail-remote.\n"}
	case len(stream) == 0:
		return Answer{Temporary, "qmail-remote produced no output.\n"}
	}
	return Verdict(stream)
}

// Crashed returns the answer of a delivery whose message's last byte may have been written
// by a worker that has ended so, with n deliveries in it.
func (e Ending) Crashed(n int) Answer {
	deliveries := "1 delivery"
	if n != 1 {
		deliveries = fmt.Sprintf("%d deliveries", n)
	}
	return Answer{Temporary, fmt.Sprintf(
		"qmail-remote crashed.\nThe worker ended by %v, with %s. Possible duplicate! (#4.3.0)\n", e, deliveries)}
}
