package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// carried is the result of carrying the bytes. The bench has the same type.
type carried struct {
	Seconds float64
	Peak    int64 // resident memory of the tunnel's process, bytes; 0: no such process
}

// pour writes size bytes to w.
func pour(w io.Writer, size int64) error {
	block := make([]byte, blockSize)
	for i := range block {
		block[i] = byte(i * 7)
	}
	for size > 0 {
		n, err := w.Write(block[:min(size, blockSize)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// drain reads to the end, which must come after size bytes.
func drain(r io.Reader, size int64) error {
	block := make([]byte, blockSize)
	for {
		n, err := r.Read(block)
		size -= int64(n)
		if err == io.EOF && size == 0 {
			return nil
		}
		if err == io.EOF {
			err = fmt.Errorf("%d bytes are missing", size)
		}
		if err != nil {
			return err
		}
	}
}

func (c *client) dial(address string) (*tls.Conn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return c.handshake(conn)
}

// send writes size bytes to a TLS server. It waits for the server's end, which comes when
// the server has read everything.
func (c *client) send(address string, size int64) error {
	conn, err := c.dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	begin := time.Now()
	if err := pour(conn, size); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if err := drain(conn, 0); err != nil {
		return err
	}
	return tell(time.Since(begin))
}

// receive reads size bytes from a TLS server.
func (c *client) receive(address string, size int64) error {
	conn, err := c.dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	begin := time.Now()
	if err := drain(conn, size); err != nil {
		return err
	}
	return tell(time.Since(begin))
}

// The descriptors of a program under a TLS client.
const (
	fromNetwork = 6
	toNetwork   = 7
)

func write(size int64) error {
	in, out := os.NewFile(fromNetwork, "6"), os.NewFile(toNetwork, "7")
	begin := time.Now()
	if err := pour(out, size); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if err := drain(in, 0); err != nil {
		return err
	}
	return tell(time.Since(begin))
}

func read(size int64) error {
	in, out := os.NewFile(fromNetwork, "6"), os.NewFile(toNetwork, "7")
	begin := time.Now()
	if err := drain(in, size); err != nil {
		return err
	}
	took := time.Since(begin)
	out.Close()
	in.Close()
	return tell(took)
}

// tell prints the result. A tunnel is a child of the program that uses it.
func tell(took time.Duration) error {
	r := carried{Seconds: took.Seconds()}
	var usage syscall.Rusage
	pid, err := syscall.Wait4(-1, nil, 0, &usage)
	switch {
	case err == nil && pid > 0:
		r.Peak = int64(usage.Maxrss) << 10
	case !errors.Is(err, syscall.ECHILD):
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// relay is a bare tunnel: TLS, pipes to a program, and io.Copy between them.
func (c *client) relay(argv []string) error {
	socket := os.NewFile(fromNetwork, "6")
	network, err := net.FileConn(socket)
	if err != nil {
		return err
	}
	socket.Close()
	conn, err := c.handshake(network)
	if err != nil {
		return err
	}
	progReads, toProg, err := os.Pipe()
	if err != nil {
		return err
	}
	fromProg, progWrites, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{nil, nil, nil, progReads, progWrites}
	if err := cmd.Start(); err != nil {
		return err
	}
	progReads.Close()
	progWrites.Close()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(toProg, conn)
		toProg.Close()
		done <- err
	}()
	if _, err := io.Copy(conn, fromProg); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	return cmd.Wait()
}
