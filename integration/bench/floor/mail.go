package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

const (
	blockSize  = 64 << 10
	bufferSize = 256 << 10
)

type conversation struct {
	conn net.Conn
	in   *bufio.Reader
}

// expect reads one reply.
func (c *conversation) expect(code string) error {
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, code) {
			return fmt.Errorf("unexpected %q", line)
		}
		if line[3] != '-' {
			return nil
		}
	}
}

func (c *conversation) ask(command, code string) error {
	if _, err := io.WriteString(c.conn, command+"\r\n"); err != nil {
		return err
	}
	return c.expect(code)
}

func (c *client) smtp(address, sender, recipient string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &conversation{conn, bufio.NewReader(conn)}
	if err := s.expect("220"); err != nil {
		return err
	}
	if err := s.ask("EHLO client.example", "250"); err != nil {
		return err
	}
	if c.tls {
		if err := s.ask("STARTTLS", "220"); err != nil {
			return err
		}
		t, err := c.handshake(conn)
		if err != nil {
			return err
		}
		defer t.Close()
		s = &conversation{t, bufio.NewReader(t)}
		if err := s.ask("EHLO client.example", "250"); err != nil {
			return err
		}
	}
	info, err := os.Stdin.Stat()
	if err != nil {
		return err
	}
	envelope := fmt.Sprintf("MAIL FROM:<%s> SIZE=%d\r\nRCPT TO:<%s>\r\n", sender, info.Size(), recipient)
	if err := s.data(envelope); err != nil {
		return err
	}
	if _, err := io.WriteString(s.conn, "QUIT\r\n"); err != nil {
		return err
	}
	fmt.Println("K")
	return nil
}

// data sends the envelope, and the message after DATA.
func (c *conversation) data(envelope string) error {
	if _, err := io.WriteString(c.conn, envelope+"DATA\r\n"); err != nil {
		return err
	}
	for _, code := range []string{"250", "250", "354"} {
		if err := c.expect(code); err != nil {
			return err
		}
	}
	out := bufio.NewWriterSize(c.conn, bufferSize)
	if err := lines(os.Stdin, func(line []byte) error {
		if len(line) > 0 && line[0] == '.' {
			out.WriteByte('.')
		}
		out.Write(line)
		_, err := out.WriteString("\r\n")
		return err
	}); err != nil {
		return err
	}
	out.WriteString(".\r\n")
	if err := out.Flush(); err != nil {
		return err
	}
	return c.expect("250")
}

// lines calls each with every line of r. A line must be shorter than a block.
func lines(r io.Reader, each func([]byte) error) error {
	in := bufio.NewReaderSize(r, blockSize)
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(bytes.TrimSuffix(line, []byte{'\n'})); err != nil {
			return err
		}
	}
}

func (c *client) qmtp(address, sender, recipient string) error {
	info, err := os.Stdin.Stat()
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.tls {
		if conn, err = c.handshake(conn); err != nil {
			return err
		}
		defer conn.Close()
	}
	head := fmt.Sprintf("%d:\n", info.Size()+1)
	inner := fmt.Sprintf("%d:%s,", len(recipient), recipient)
	tail := fmt.Sprintf(",%d:%s,%d:%s,", len(sender), sender, len(inner), inner)
	if info.Size() < blockSize { // one write
		message, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		if _, err = io.WriteString(conn, head+string(message)+tail); err != nil {
			return err
		}
	} else if err := pass(conn, head, tail); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString(',')
	if err != nil {
		return err
	}
	if !strings.Contains(answer, ":K") {
		return fmt.Errorf("unexpected %q", answer)
	}
	fmt.Println("K")
	return nil
}

// pass leaves it to io.Copy to choose the best way from a file to a connection.
func pass(conn net.Conn, head, tail string) error {
	if _, err := io.WriteString(conn, head); err != nil {
		return err
	}
	if _, err := io.Copy(conn, os.Stdin); err != nil {
		return err
	}
	_, err := io.WriteString(conn, tail)
	return err
}
