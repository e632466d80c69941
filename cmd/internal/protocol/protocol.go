// Package protocol is what the main functions of the protocol programs share: what the
// environment says about the server and about TLS, the fuse, and the end, which is reports
// on descriptor 1 and an exit code.
package protocol

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
)

// A Server is what the environment says about the other end of the connection.
type Server struct {
	IP   string // TCPREMOTEIP
	Name string // TCPREMOTEHOST, else the address: for the TLS line of a report
	// Verify says that the TLS client was told to verify (MXF_TLS).
	Verify bool
	// Word is what the line on TLS says of who demanded its level (MXF_POLICY).
	Word string
	// InTLS says that the connection is inside TLS, whatever else is said (MXF_INTLS).
	InTLS bool
}

// ReadServer reads the variables that a UCSPI client and the router set.
func ReadServer(environ []string) Server {
	get := func(name string) string { v, _ := chain.Lookup(environ, name); return v }
	s := Server{IP: get("TCPREMOTEIP"), Verify: get("MXF_TLS") == "verify", InTLS: get("MXF_INTLS") != "", Word: get("MXF_POLICY")}
	s.Name = cmp.Or(get("TCPREMOTEHOST"), s.IP)
	return s
}

// TLS reads the SSL_* assignments that a TLS client gives to its program (mxf-tlsc(8),
// s6-tlsc). It returns nil when environ does not name SSL_PROTOCOL: there is no TLS then,
// except with InTLS, which a TLS client may leave undescribed. The server's name serves
// where none was sent as SNI. A TLS client that does not word its verdict as "yes" or
// "no:" and why has verified if it was told to verify: it went on.
func (s Server) TLS(environ []string) *report.TLS {
	t := report.TLS{Cipher: "unknown", Verified: s.Verify, ServerName: s.Name, Word: s.Word}
	for _, assignment := range environ {
		name, value, _ := strings.Cut(assignment, "=")
		if value == "" {
			continue
		}
		switch name {
		case "SSL_PROTOCOL":
			t.Version = value
		case "SSL_CIPHER":
			t.Cipher = value
		case "SSL_TLS_SNI_SERVERNAME":
			t.ServerName = value
		case "SSL_PEER_VERIFIED":
			t.Verified = value == "yes" || s.Verify && !strings.HasPrefix(value, "no:")
			t.Fault = anchorsFault(value)
		}
	}
	switch {
	case t.Version != "":
		return &t
	case s.InTLS:
		return &report.TLS{Version: "unknown", Cipher: "unknown", Verified: s.Verify, ServerName: s.Name, Word: s.Word}
	}
	return nil
}

// exporterLength is that of the channel binding tls-exporter, in bytes (RFC 9266 section 2).
const exporterLength = 32

// Exporter returns the channel binding tls-exporter (RFC 9266), 32 bytes, of the connection
// that assignments describe: the environment, or what a TLS client has told over its control
// descriptor, where a later assignment takes the place of an earlier one. It is nil where
// there is none, or none that can be read.
func Exporter(assignments []string) []byte {
	environ := chain.Change(nil, assignments)
	if version, _ := chain.Lookup(environ, "SSL_PROTOCOL"); version == "" {
		return nil // it belongs to nothing
	}
	digits, _ := chain.Lookup(environ, "SSL_TLS_EXPORTER")
	value, err := hex.DecodeString(digits)
	if err != nil || len(value) != exporterLength {
		return nil
	}
	return value
}

// noAnchors begins the verdict of mxf-tlsc and mxf-ucspitlsc where it is our fault that nothing
// could be verified. What a server sends cannot begin a verdict.
const noAnchors = "no:cannot read trust anchors: "

// anchorsFault returns the fault of ours of which a verdict comes, or nothing.
func anchorsFault(verdict string) string {
	why, ours := strings.CutPrefix(verdict, noAnchors)
	if !ours {
		return ""
	}
	if i := strings.LastIndex(why, ": "); i >= 0 && strings.HasPrefix(why, "open ") {
		why = why[i+len(": "):] // the path stands in the control file
	}
	return report.AnchorsFault(why)
}

// Fuse returns a context that ends by cause when limit is over; 0 is no limit. It takes
// less of the program's size than a context with a deadline.
func Fuse(limit time.Duration, cause error) context.Context {
	if limit == 0 {
		return context.Background()
	}
	ctx, end := context.WithCancelCause(context.Background())
	time.AfterFunc(limit, func() { end(cause) })
	return ctx
}

// Finish prints the reports, if there are any, those in err included, and returns err with its
// exit code.
func Finish(reports report.Stream, err error) error {
	var none *report.NoTransaction
	var fuse *report.Fuse
	if errors.As(err, &fuse) && fuse.Reports != nil {
		reports = *fuse.Reports
	}
	if reports.Message.Letter != 0 {
		if _, failed := reports.WriteTo(os.Stdout); failed != nil {
			return failed
		}
	}
	switch {
	case errors.As(err, &fuse):
		return &chain.Failure{Code: chain.ExitFuse, Err: err}
	case errors.As(err, &none):
		return &chain.Failure{Code: exitCode(none), Err: err}
	}
	return err
}

// exitCode returns the exit status by which the router knows what to try next.
func exitCode(e *report.NoTransaction) int {
	switch {
	case e.NoTLS():
		return chain.ExitNoTLS
	case errors.Is(e, smtpc.ErrStumbled):
		return chain.ExitStumbled
	case errors.Is(e, smtpc.ErrEHLOLost):
		return chain.ExitNoEHLO
	}
	return chain.ExitNextExchanger
}
