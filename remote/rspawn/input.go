package rspawn

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/remote/rspawn/dialect"
)

// An input reads commands, and answers those that cannot be begun.
type input struct {
	commands *dialect.Reader
	out      *output
	limit    int
	owner    uint32      // of queue/mess, and so of all messages
	fault    error       // of control/spawnlimit: no delivery is begun
	stopped  atomic.Bool // nothing is answered or begun any more
}

// next returns the next delivery that can be begun. It returns nil where a reload is asked
// for. The error says that no command will come.
func (in *input) next() (*delivery, error) {
	for in.out.room() {
		c, err := in.commands.Next()
		if err != nil {
			return nil, err
		}
		if in.stopped.Load() {
			return nil, io.EOF
		}
		if c.Reload {
			return nil, nil
		}
		d, err := in.open(c)
		if err == nil {
			in.out.take(c.Number)
			return d, nil
		}
		in.out.refuse(c.Number, dialect.Deferred(err))
	}
	return nil, syscall.EPIPE
}

// open checks a command and opens its message.
func (in *input) open(c *dialect.Command) (d *delivery, err error) {
	if err := c.Check(in.limit, in.out.inUse); err != nil {
		return nil, err
	}
	message, info, err := regular.Open(c.MessageID, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, regular.ErrNot):
		return nil, dialect.WrongType
	case err != nil:
		return nil, dialect.NotOpened
	}
	is, known := info.Sys().(*syscall.Stat_t)
	switch {
	case !known || is.Uid != in.owner:
		err = dialect.WrongOwner
	case in.fault != nil:
		err = in.fault
	default:
		return &delivery{number: c.Number, command: c, message: message, key: messageKey{c.MessageID, stamp.OfRegular(info)}}, nil
	}
	message.Close()
	return nil, err
}

// A descriptor reads one of which it is not known whether it blocks. It stays as it is:
// other processes may share it.
type descriptor int

func (fd descriptor) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), p)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
