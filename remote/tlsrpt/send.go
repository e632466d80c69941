package tlsrpt

import (
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// sendLimit is how long a collector whose queue is full is waited for: reports must not
	// hold mail up.
	sendLimit = 100 * time.Millisecond
	// sendPause separates two tries on a system that says that the queue is full and not
	// when it has room.
	sendPause = 5 * time.Millisecond
)

// Send sends datagrams to the Unix socket of a collector at path, in 100 ms at most for all of
// them, and returns an error for each, nil where it was sent. An error is the system's, without
// the path, and os.ErrDeadlineExceeded for a queue that stays full.
func Send(path string, datagrams ...[]byte) []error {
	end := time.Now().Add(sendLimit)
	errs := make([]error, len(datagrams))
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		err = conn.SetWriteDeadline(end)
	}
	for i, datagram := range datagrams {
		if errs[i] = reasonOf(err); err == nil {
			errs[i] = reasonOf(write(conn, datagram, end))
		}
	}
	return errs
}

func write(conn *net.UnixConn, datagram []byte, end time.Time) error {
	for {
		_, err := conn.Write(datagram)
		// BSD has no wait for room in the queue of another socket.
		if !errors.Is(err, syscall.ENOBUFS) || time.Until(end) < sendPause {
			return err
		}
		time.Sleep(sendPause)
	}
}

// reasonOf is what the system said.
func reasonOf(err error) error {
	var errno syscall.Errno
	var op *net.OpError
	switch {
	case errors.As(err, &errno):
		return errno
	case errors.As(err, &op):
		return op.Err
	}
	return err
}
