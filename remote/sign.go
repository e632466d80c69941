package remote

import (
	"context"
	"errors"
	"fmt"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/sign"
	"nightmare.mail/mxf/remote/transport"
)

// sign has all attempts send the message of job with the signatures of control/signingkeys, if it
// is to have any. The trace says why it has none. An error says that it should be signed and
// cannot be; then it waits.
func (r *Router) sign(ctx context.Context, job *Job, m *transport.Message) error {
	if r.Settings.SigningKeys.Empty() {
		return nil
	}
	err := r.signAs(ctx, job, m)
	var unsigned sign.Unsigned
	if errors.As(err, &unsigned) {
		job.tracef("not signed: %s", unsigned)
		return nil
	}
	return err
}

// signAs is sign for a host with keys. The error of a message that is not to be signed is a
// sign.Unsigned.
func (r *Router) signAs(ctx context.Context, job *Job, m *transport.Message) error {
	if err := sign.Sender(job.Sender, r.isOurs); err != nil {
		return err
	}
	if limit := r.Settings.TimeoutRemote; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, &report.Error{Case: report.Unreadable,
			Facts: report.Facts{Reason: "it did not end within timeoutremote"}})
		defer cancel()
	}
	text, err := m.Text(ctx)
	if err != nil {
		return err
	}
	header, err := sign.Read(text)
	if err == nil && job.Sender == "" {
		err = header.NullSender()
	}
	if err != nil {
		return unread(err)
	}
	lines := r.Settings.SigningKeys.For(header.From())
	if len(lines) == 0 {
		return sign.Unsigned(fmt.Sprintf("control/signingkeys has no key for the From domain %s", header.From()))
	}
	keys := make([]sign.Key, len(lines))
	for i, line := range lines {
		if keys[i], err = r.signingKey(&line); err != nil {
			return err
		}
	}
	fields, err := r.signatures(ctx, m, header, keys)
	if err != nil {
		return unread(err)
	}
	m.Prepend(fields)
	for i, line := range lines {
		job.tracef("signed %s %s %s (%s)", keys[i].Domain, keys[i].Selector, keys[i].Private.Algorithm(), line.Place())
	}
	return nil
}

// signatures returns the fields that go on top of m, which may have been made for another
// delivery of it.
func (r *Router) signatures(ctx context.Context, m *transport.Message, header *sign.Header, keys []sign.Key) ([]byte, error) {
	if r.Signatures == nil {
		return header.Sign(keys, r.Now())
	}
	return r.Signatures.Sign(ctx, m.Stamp(), header, keys, r.Now())
}

// isOurs reports whether mail with a sender in domain began here.
func (r *Router) isOurs(domain string) bool {
	return domain == r.Settings.Me || len(r.Settings.SigningKeys.For(domain)) > 0
}

// signingKey reads the key of a line of control/signingkeys. The error is a *control.Error.
func (r *Router) signingKey(line *control.SigningKey) (key sign.Key, err error) {
	text, err := line.Read()
	if err != nil {
		return key, err
	}
	private, err := r.Signatures.ParseKey([]byte(text.Reveal()))
	if err != nil {
		return key, &control.Error{File: "control/signingkeys", Line: line.Line, What: err.Error()}
	}
	return sign.Key{Domain: line.Domain, Selector: line.Selector, Private: private}, nil
}

// unread is the error of a message that could not be read for its signature; a sign.Unsigned
// stays what it is, and so does what says already what is reported.
func unread(err error) error {
	var unsigned sign.Unsigned
	var told *report.Error
	if errors.As(err, &unsigned) || errors.As(err, &told) {
		return err
	}
	return &report.Error{Case: report.Unreadable, Facts: report.Facts{Reason: dial.Reason(err).Error()}, Err: err}
}
