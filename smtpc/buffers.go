package smtpc

import (
	"bufio"
	"net"
	"sync"
)

// maxLent is the most room of a flight that is kept for another, bytes: few messages are larger.
const maxLent = 16 << 10

// Buffers has the memory that a conversation needs for a moment, for the conversations of one process. A
// session that is watched has none of it. A nil *Buffers has nothing, and all is made anew. It may be
// used by several goroutines at a time.
type Buffers struct{ readers, flights sync.Pool }

// reader returns a reader of conn.
func (b *Buffers) reader(conn net.Conn) *bufio.Reader {
	if b != nil {
		if r, ok := b.readers.Get().(*bufio.Reader); ok {
			r.Reset(conn)
			return r
		}
	}
	return bufio.NewReaderSize(conn, readerSize)
}

// takeReader takes back a reader that nobody reads from any more.
func (b *Buffers) takeReader(r *bufio.Reader) {
	if b != nil && r != nil {
		r.Reset(nil)
		b.readers.Put(r)
	}
}

// flight returns a flight for m.
func (b *Buffers) flight(m *message) *flight {
	if b != nil && m.scanned {
		if f, ok := b.flights.Get().(*flight); ok && int64(f.room()) >= flightRoom(m) {
			return f
		}
	}
	return newFlight(m)
}

// takeFlight takes back a flight that was written.
func (b *Buffers) takeFlight(f *flight) {
	if b != nil && cap(f.buf) <= maxLent {
		f.take()
		b.flights.Put(f)
	}
}
