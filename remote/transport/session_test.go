package transport

import (
	"net"
	"os"
	"syscall"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// A signal that arrives while a connection is looked at is no byte of the server: who took it for
// one would wait for that byte. Go's runtime sends such signals to itself.
func TestSocket_Readable_signals(t *testing.T) {
	server := must.Get(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer server.Close()
	conn := must.Get(net.Dial("tcp", server.Addr().String()))(t).(*net.TCPConn)
	defer conn.Close()
	there := must.Get(server.Accept())(t)
	defer there.Close()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = syscall.Kill(os.Getpid(), syscall.SIGURG)
			}
		}
	}()
	s := socket{conn}
	for i := range 50000 {
		if s.Readable() {
			t.Errorf("readable at look %d, and nothing was sent", i)
			break
		}
	}
	close(stop)
	<-stopped
	must.Get(there.Write([]byte("x")))(t)
	must.Until(t, "the byte", s.Readable)
}
