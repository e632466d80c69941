// Package fetch gets the MTA-STS policy of a domain by HTTPS. It is the one room with
// net/http. What it gets is judged by package mtasts, the certificate by package tlsc: its
// verdict of the trust anchors is that of a mail server, so a bundle that serves for one
// serves for both, and nobody's GODEBUG weakens it.
//
//	RFC 8461 3.3     fetching a policy
//	RFC 8460 4.3     what a failed fetch is called
//	RFC 9110         status, media type, content encoding
//	RFC 8305         both families of addresses
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/mtasts"
	"nightmare.mail/mxf/tlsc"
)

const (
	// Port is where a policy is served (RFC 8461 3.3).
	Port = 443

	path = "/.well-known/mta-sts.txt"
	// maxHeader bounds what comes before the policy, in bytes: as much as the policy.
	maxHeader = mtasts.MaxPolicy
)

// A Client fetches policies. Any number of goroutines may use it at a time.
type Client struct {
	Resolver dns.Resolver
	TLS      *tlsc.Client     // the trust anchors; a certificate of our own is not shown
	Port     uint16           // of the servers: Port, which is 443
	Now      func() time.Time // the clock; nil: time.Now
}

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// Fetch gets the policy of a domain, which is in A-labels and lower case, in 30 s at most.
// It returns the text as served and what it says, or how that failed.
func (c *Client) Fetch(ctx context.Context, domain string) (text string, policy *mtasts.Policy, failed *mtasts.Failure) {
	ctx, cancel := context.WithTimeout(ctx, mtasts.FetchLimit)
	defer cancel()
	host := mtasts.HostName(domain)
	text, err := c.get(ctx, host)
	kind := kindOf(err)
	if err == nil {
		if policy, err = mtasts.ParsePolicy([]byte(text)); err == nil {
			return text, policy, nil
		}
		kind = mtasts.PolicyInvalid
	}
	// A socket's deadline can be noticed before the context's, which is the same.
	if late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded); kind == mtasts.FetchError && (late || ctx.Err() != nil) {
		err = errLate
	}
	return "", nil, mtasts.NewFailure(kind, c.now(), host+": "+reasonOf(err))
}

// reasonOf is err for people: what the system said, without the addresses.
func reasonOf(err error) string {
	var tls *tlsc.Error
	if errors.As(err, &tls) {
		return tls.Error()
	}
	return dial.Reason(err).Error()
}

var (
	errLate = errors.New("the policy was not fetched in time")
	// errCut is a policy whose end nobody has vouched for.
	errCut = errors.New("the connection ended before the policy did")
)

// errTooLong is a policy that must not be cut.
var errTooLong = fmt.Errorf("the policy has more than %d bytes", mtasts.MaxPolicy)

// kindOf says which kind of failure err is.
func kindOf(err error) mtasts.Kind {
	var tls *tlsc.Error
	switch {
	case errors.Is(err, errTooLong):
		return mtasts.PolicyInvalid
	case errors.As(err, &tls) && tls.Fault != tlsc.NoFault && tls.Fault != tlsc.FaultOurs:
		return mtasts.WebPKIInvalid
	}
	return mtasts.FetchError
}

// get returns the text that the server gives.
func (c *Client) get(ctx context.Context, host string) (string, error) {
	conn, err := c.connect(ctx, host)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	transport := &http.Transport{
		DialTLSContext:         once(conn),
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	authority := host
	if c.Port != Port {
		authority = net.JoinHostPort(host, strconv.Itoa(int(c.Port)))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+authority+path, nil)
	if err != nil {
		return "", err
	}
	// A server may compress for who says nothing (RFC 9110 12.5.3).
	request.Header.Set("Accept-Encoding", "identity")
	request.Header.Set("User-Agent", "mxf")
	// RoundTrip follows no redirect and knows no proxy.
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if err := acceptable(response); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, mtasts.MaxPolicy+1))
	switch {
	case len(text) > mtasts.MaxPolicy:
		return "", errTooLong
	case errors.Is(err, io.ErrUnexpectedEOF), err == nil && endless(response) && conn.Truncated():
		return "", errCut
	}
	return string(text), err
}

// endless reports whether nothing but the end of the connection ends the body.
func endless(r *http.Response) bool { return r.ContentLength < 0 && len(r.TransferEncoding) == 0 }

// once hands the connection out that is there. A second one is not made: what fails has
// failed.
func once(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	used := make(chan struct{}, 1)
	return func(context.Context, string, string) (net.Conn, error) {
		select {
		case used <- struct{}{}:
			return conn, nil
		default:
			return nil, errors.New("the connection was lost")
		}
	}
}

// acceptable says why a response has no policy.
func acceptable(r *http.Response) error {
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answers with status %d", r.StatusCode)
	}
	types := r.Header.Values("Content-Type")
	if len(types) == 0 {
		return errors.New("the answer has no media type")
	}
	for _, value := range types {
		media, _, _ := strings.Cut(value, ";")
		if !strings.EqualFold(strings.TrimSpace(media), "text/plain") {
			return fmt.Errorf("the media type is %q", value)
		}
	}
	codings := strings.Split(strings.Join(r.Header.Values("Content-Encoding"), ","), ",")
	if slices.ContainsFunc(codings, func(coding string) bool {
		coding = strings.TrimSpace(coding)
		return coding != "" && !strings.EqualFold(coding, "identity")
	}) {
		return fmt.Errorf("the content encoding is %q", strings.Join(codings, ","))
	}
	return nil
}
