package tlstest

import (
	"crypto/tls"
	"io"
	"net"
)

// TCP is a connection over loopback.
func TCP(t TB) (client, server *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// Serve does the server's part in a goroutine, closes the server's connection after it,
// and returns the client's.
func Serve(t TB, f func(conn *net.TCPConn)) *net.TCPConn {
	t.Helper()
	client, server := TCP(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		f(server)
	}()
	t.Cleanup(func() {
		client.Close()
		server.Close()
		<-done
	})
	return client
}

// Hello is a server that makes the handshake, says "hello" and closes.
func Hello(config *tls.Config) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		server := tls.Server(conn, config)
		if server.Handshake() == nil {
			server.Write([]byte("hello"))
			server.Close()
			return
		}
		conn.CloseWrite()
		conn.Read(make([]byte, 1)) // so that a reset does not destroy an alert
	}
}

// Answer is a server that reads the ClientHello and sends these bytes, which crypto/tls
// would not send.
func Answer(bytes string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		ReadRecord(conn)
		io.WriteString(conn, bytes)
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
	}
}

// ReadRecord reads a record of TLS and returns its length with the header.
func ReadRecord(r io.Reader) int {
	header := make([]byte, 5)
	io.ReadFull(r, header)
	n, _ := io.CopyN(io.Discard, r, int64(header[3])<<8|int64(header[4]))
	return len(header) + int(n)
}
