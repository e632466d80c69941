// Floor is what the bench compares the programs of mxf with. It puts the same bytes on the
// same sockets, with net and crypto/tls, and does nothing else: it looks nothing up, reads
// no settings, checks no input, and gives up at the first surprise.
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
	"strconv"
)

type client struct {
	tls  bool
	name string
	ca   string
}

var errUsage = errors.New("usage")

func main() {
	if len(os.Args) < 2 {
		fatal(errUsage)
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
	case what == "relay" && len(args) > 0:
		return c.relay(args)
	case len(args) == 0:
		return errUsage
	}
	size, err := strconv.ParseInt(args[len(args)-1], 10, 64)
	switch {
	case err != nil:
		return err
	case what == "send" && len(args) == 2:
		return c.send(args[0], size)
	case what == "receive" && len(args) == 2:
		return c.receive(args[0], size)
	case what == "write" && len(args) == 1:
		return write(size)
	case what == "read" && len(args) == 1:
		return read(size)
	}
	return errUsage
}

// handshake starts TLS on conn. All certificates of the file are trust anchors.
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
