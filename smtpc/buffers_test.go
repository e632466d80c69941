package smtpc

import (
	"net"
	"testing"
)

// What comes back is empty, is large enough, and is not too large to keep. The pool may forget at any time.
func TestBuffers(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	for _, b := range []*Buffers{nil, new(Buffers)} {
		for _, size := range []int64{100, 3500, 8 << 10, 100, 100 << 10, 3500} {
			m := &message{scanned: true, size: size}
			f := b.flight(m)
			if len(f.buf) != 0 || int64(f.room()) < flightRoom(m) {
				t.Errorf("%d bytes: a flight with %d bytes, and room for %d", size, len(f.buf), f.room())
			}
			f.buf = append(f.buf, "text of another delivery"...)
			b.takeFlight(f)
		}
		if f := b.flight(&message{}); f.room() != flightSize {
			t.Errorf("a message of unknown size: room for %d", f.room())
		}
		r := b.reader(ours)
		go theirs.Write([]byte("250 ok"))
		if _, err := r.Peek(1); err != nil {
			t.Fatal(err)
		}
		b.takeReader(r)
		b.takeReader(nil)
		if r := b.reader(ours); r.Buffered() != 0 || r.Size() != readerSize {
			t.Errorf("a reader with %d bytes of %d", r.Buffered(), r.Size())
		}
	}
}
