package tlsc

import (
	"io"
	"net"
	"sync/atomic"
)

// A wire is the connection under crypto/tls. It knows what crypto/tls does not tell:
// whether an end of file was the end of the connection or a close_notify, whether the
// network has failed or TLS, and what a server said that does not speak TLS.
type wire struct {
	net.Conn
	ended     atomic.Bool // the connection has come to its end
	broken    atomic.Bool // reading or writing has failed, other than by a deadline
	first     []byte      // of what was read during the handshake, up to saidLimit
	listening bool        // first and plain are being filled
	begun     bool        // something was written while they were
	plain     plaintext
}

// listen and ignore begin and end the keeping of the first bytes.
func (w *wire) listen() { w.listening = true }
func (w *wire) ignore() { w.listening = false }

// Read never reports the end of the connection together with the last bytes. So ended
// is set only when crypto/tls has used those up and asks for more.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.listening {
		w.first = append(w.first, p[:min(n, saidLimit-len(w.first))]...)
		w.plain.read(p[:n])
	}
	switch {
	case err == nil:
	case err == io.EOF && n > 0:
		return n, nil
	case err == io.EOF:
		w.ended.Store(true)
	case !isTimeout(err):
		w.broken.Store(true)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	if w.listening {
		w.begun = true
	}
	n, err := w.Conn.Write(p)
	if err != nil && !isTimeout(err) {
		w.broken.Store(true)
	}
	return n, err
}
