// Floor is what the bench holds the programs of mxf against: it puts the same
// bytes on the same sockets, with package net and crypto/tls, and does nothing
// else. It looks nothing up, reads no settings, checks no input, and gives up at
// the first surprise.
//
//	floor smtp|qmtp [-tls] [-name name] [-ca file] address sender recipient
//	floor send|receive   [-name name] [-ca file] address bytes    over TLS
//	floor write|read     bytes                                    on descriptors 6 and 7
//	floor relay          [-name name] [-ca file] prog ...         a bare mxf-tlsc
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
)

type client struct {
	tls  bool
	name string
	ca   string
}

func main() {
	if len(os.Args) < 2 {
		fatal(errors.New("usage"))
	}
	var c client
	flags := flag.NewFlagSet("floor", flag.ExitOnError)
	flags.BoolVar(&c.tls, "tls", false, "use TLS")
	flags.StringVar(&c.name, "name", "", "name of the server")
	flags.StringVar(&c.ca, "ca", "", "trust anchors")
	_ = flags.Parse(os.Args[2:])
	if err := c.do(os.Args[1], flags.Args()); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Println("floor:", err)
	os.Exit(1)
}

func (c *client) do(what string, args []string) error {
	switch {
	case what == "smtp" && len(args) == 3:
		return c.smtp(args[0], args[1], args[2])
	case what == "qmtp" && len(args) == 3:
		return c.qmtp(args[0], args[1], args[2])
	case what == "send" && len(args) == 2:
		return c.send(args[0], args[1])
	case what == "receive" && len(args) == 2:
		return c.receive(args[0], args[1])
	case what == "write" && len(args) == 1:
		return write(args[0])
	case what == "read" && len(args) == 1:
		return read(args[0])
	case what == "relay" && len(args) > 0:
		return c.relay(args)
	}
	return errors.New("usage")
}

// handshake makes TLS of conn. All certificates of the file are trust anchors.
func (c *client) handshake(conn net.Conn) (*tls.Conn, error) {
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", c.ca)
	}
	t := tls.Client(conn, &tls.Config{ServerName: c.name, RootCAs: roots, DynamicRecordSizingDisabled: true})
	return t, t.Handshake()
}
