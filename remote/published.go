package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dane"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/mtasts"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/tlsrpt"
	"nightmare.mail/mxf/tlsc"
)

// A Published is what a destination publishes about TLS towards one candidate, as far as the
// control files have it asked for, and the line of control/tlspolicy that holds.
type Published struct {
	Line      *control.TLSPolicy // nil: none
	Domain    string             // whose policies hold, see route.Result.PolicyDomain
	TLSA      dane.Finding
	Elsewhere bool            // another way of the exchanger has secure TLSA records, or nobody knows
	STS       *mtasts.Finding // of the policy of Domain; nil: nobody asked
	Reports   string          // the record by which Domain asks for reports on TLS; empty: it gets none
	Waived    bool            // the message says TLS-Required: No, and something was waived
}

// The texts of a policy domain that are asked for.
const (
	stsText    = "_mta-sts"
	reportText = "_smtp._tls"
)

// An inquiry is the lookups of one delivery about what destinations publish.
type inquiry struct {
	*Router
	job   *Job
	texts []string // which are asked for

	waived func() bool // whether the message says TLS-Required: No: then nothing is told

	fetches sync.WaitGroup
	mu      sync.Mutex
	sts     map[string]mtasts.Finding // by policy domain
	broken  error                     // why a policy is not known that may be there; a *report.Error
}

// inquire begins the lookups for job. The host's line of control/tlspolicy decides whether its
// policy is asked for.
func (r *Router) inquire(job *Job) *inquiry {
	q := &inquiry{Router: r, job: job, sts: make(map[string]mtasts.Finding), waived: sync.OnceValue(func() bool { return waives(job.Message) })}
	if s := r.Settings; s.MTASTS != "" && s.TLSPolicy.ForHost(job.Host).AsksMTASTS() {
		q.texts = append(q.texts, stsText)
	}
	if r.Settings.TLSRPTSocket != "" {
		q.texts = append(q.texts, reportText)
	}
	return q
}

// text returns the answer for one of the texts, nil if it was not asked for.
func (q *inquiry) text(prefix string, answers []*dns.Answer) *dns.Answer {
	if i := slices.Index(q.texts, prefix); i >= 0 && i < len(answers) {
		return answers[i]
	}
	return nil
}

// heard is called with the texts of a policy domain, while addresses are still looked up: its
// policy is fetched meanwhile, if that is due.
func (q *inquiry) heard(ctx context.Context, domain string, answers []*dns.Answer) {
	text := q.text(stsText, answers)
	if text == nil {
		return
	}
	q.fetches.Go(func() {
		// What is unforeseen must not pass for a domain without a policy.
		defer func() {
			if p := recover(); p != nil {
				q.fail(&report.Error{Case: report.Internal, Facts: report.Facts{Reason: fmt.Sprintf("panic: %v", p)}})
			}
		}()
		finding := q.store().Find(ctx, domain, mtasts.ParseRecord(text.TXT), q.fetch)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.sts[domain] = finding
	})
}

// fail has the delivery end by err before anything is connected.
func (q *inquiry) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = err
}

func (r *Router) store() *mtasts.Store {
	return &mtasts.Store{Folder: r.Settings.MTASTS, Now: r.Now, ReadOnly: r.ReadOnly}
}

// fetchLimit is how long mxf-policy may take: what a fetch may, and a second each for its start
// and its end, and for the disk.
const fetchLimit = mtasts.FetchLimit + 5*time.Second

// fetch has mxf-policy fetch a policy.
func (q *inquiry) fetch(ctx context.Context, domain, id string) (*mtasts.Entry, *mtasts.Failure) {
	limited, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	text, err := q.carrier.FetchPolicy(limited, domain, id, q.ReadOnly)
	var unable *report.Error
	if errors.As(err, &unable) {
		q.fail(err)
		return nil, nil
	}
	if e, parsed := mtasts.ParseEntry(domain, text, q.Now()); err == nil && parsed == nil {
		return e, e.Failed
	} else if err == nil {
		err = parsed
	}
	if ctx.Err() != nil {
		return nil, nil // the delivery is over: that is no failure of the domain's, to be kept or told
	}
	failed := mtasts.NewFailure(mtasts.FetchError, q.Now(), err.Error())
	if !q.ReadOnly {
		_, _ = q.store().FetchFailed(domain, failed, time.Time{})
	}
	return nil, failed
}

// wait waits for the fetches.
func (q *inquiry) wait() error {
	q.fetches.Wait()
	return q.broken
}

// publications returns what is published for each candidate of found. ctx ends with the time of
// the lookups.
func (q *inquiry) publications(ctx context.Context, found *route.Result) ([]Published, error) {
	all := make([]Published, len(found.Candidates))
	var ways []dane.Way
	var asked []int // the candidate of each way
	for i := range found.Candidates {
		c, p := &found.Candidates[i], &all[i]
		p.Line = q.Settings.TLSPolicy.For(q.job.Host, c.Host, c.Addrs[0])
		p.Domain = found.PolicyDomain(c)
		if len(q.Settings.TrustResolvers) > 0 && p.Line.AsksTLSA() {
			ways = append(ways, dane.Way{Exchanger: c.Host, Port: c.Port, Relay: c.Relay != "", NamedBy: c.NamedBy, Resolved: c.Resolved})
			asked = append(asked, i)
		}
	}
	if len(ways) > 0 {
		result := dane.Find(ctx, q.Resolver, dane.Request{Host: found.Host.String(), Ways: ways, Limit: q.Settings.TimeoutDNS, Trace: q.job.Trace})
		found.Answers = append(found.Answers, result.Answers...)
		for i, finding := range result.Findings {
			all[asked[i]].TLSA = finding
		}
	}
	if err := q.wait(); err != nil {
		return nil, err
	}
	for i := range all {
		q.complete(found, all, i)
	}
	for _, domain := range slices.Sorted(maps.Keys(q.sts)) {
		finding := q.sts[domain]
		q.job.tracef("sts %s: %s", domain, &finding)
	}
	return all, nil
}

// complete adds to the publication of candidate i what its policy domain publishes, and what
// others of all say of its exchanger.
func (q *inquiry) complete(found *route.Result, all []Published, i int) {
	p := &all[i]
	if finding, asked := q.sts[p.Domain]; asked && p.Line.AsksMTASTS() {
		p.STS = &finding
	}
	p.Reports = q.record(found, p.Domain)
	for j := range all {
		if same := strings.EqualFold(found.Candidates[j].Host, found.Candidates[i].Host); same && found.Candidates[j].Host != "" {
			p.Elsewhere = p.Elsewhere || all[j].TLSA.State >= dane.NoneUsable
		}
	}
}

// record is the record by which a policy domain asks for reports on TLS; "": it asks for none, or the
// message does not let it have any.
func (q *inquiry) record(found *route.Result, domain string) string {
	text := q.text(reportText, found.Texts[domain])
	if text == nil {
		return ""
	}
	record := tlsrpt.Record(text.TXT)
	if record != "" && q.waived() {
		return ""
	}
	return record
}

// unfetched are the policy domains that are to be told that their policies could not be fetched, in the
// order of their names.
func (q *inquiry) unfetched(found *route.Result) (all []unfetched) {
	if found == nil {
		return nil
	}
	for _, domain := range slices.Sorted(maps.Keys(q.sts)) {
		finding := q.sts[domain]
		if record := q.record(found, domain); record != "" && finding.Failed != nil {
			all = append(all, unfetched{domain, record, finding})
		}
	}
	return all
}

// wayStates are the states of TLSA records as package policy has them.
var wayStates = [...]policy.TLSA{
	dane.NotAsked: policy.NoRecords, dane.None: policy.NoRecords,
	dane.NoneUsable: policy.Unusable, dane.Usable: policy.Usable, dane.Failed: policy.Failed,
}

// modes are those of MTA-STS as package policy has them.
var modes = [...]policy.Mode{mtasts.None: policy.STSNone, mtasts.Testing: policy.STSTesting, mtasts.Enforce: policy.STSEnforce}

// way is what is known of a candidate, as package policy has it.
func (r *Router) way(c *route.Candidate, p *Published, login policy.Demand) *policy.Way {
	w := &policy.Way{
		Kind: tlsOf(r.Settings, c.Protocol), Exchanger: c.Host, Itself: c.Relay != "" || isItself(c), Strictness: r.Settings.TLSStrictness,
		Line: lineOf(p.Line), Login: login,
		TLSA: wayStates[p.TLSA.State], Records: p.TLSA.Records.Usable(), Elsewhere: p.Elsewhere, Secure: p.TLSA.Secure,
		Hosts: strings.Fields(p.TLSA.Names),
	}
	if w.TLSA != policy.NoRecords {
		w.Base = p.TLSA.Base
	}
	if p.STS == nil {
		return w
	}
	if sts := p.STS.Policy(); sts != nil {
		w.STS, w.Listed, w.Domain = modes[sts.Mode], sts.Matches(c.Host), p.Domain
	}
	return w
}

// isItself reports whether a candidate is HOST as its own exchanger: the answer that names it
// has no MX record.
func isItself(c *route.Candidate) bool {
	return c.NamedBy != nil && c.NamedBy.Question.Type == dns.TypeMX && len(c.NamedBy.MX) == 0
}

// lineOf is a line of control/tlspolicy, as package policy has it.
func lineOf(line *control.TLSPolicy) *policy.Line {
	if line == nil {
		return nil
	}
	l := &policy.Line{Place: line.Place(), Level: policy.LineLevel(line.Level), Floor: policy.LineLevel(line.Floor), Names: strings.Join(line.Names, " ")}
	if line.Level == control.TLSPin {
		l.Pins, _ = tlsc.Pins(line.Pins...) // there are twenty at most
	}
	return l
}

// leftError is the error of a step whose way is left, as its report has it.
func leftError(c *route.Candidate, p *Published, why *policy.Left) error {
	facts := report.Facts{Host: c.Host, Port: c.Port, Line: why.By, Domain: p.Domain}
	if facts.Host == "" && len(c.Addrs) > 0 {
		facts.Host = c.Addrs[0].String()
	}
	of := report.NoProtocolLeft
	switch why.Why {
	case policy.LeftContradiction:
		return &control.Error{File: "control/tlspolicy", Line: p.Line.Line, What: why.Error()}
	case policy.LeftLookup:
		of, facts.Reason = report.TLSALookupFailed, p.TLSA.Err.Error()
	case policy.LeftUnlisted:
		of = report.NotInPolicy
	case policy.LeftUnsatisfied:
		of = report.NoUsableTLSA
	}
	return &report.Error{Case: of, Facts: facts, Err: why}
}

// maxWaiver bounds the header in which TLS-Required is looked for, in bytes.
const maxWaiver = 64 << 10

// waives reports whether the message says TLS-Required: No (RFC 8689 section 5), in each such field
// that it has. A pipe is not looked at.
func waives(message *os.File) bool {
	if message == nil {
		return false
	}
	info, err := message.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	start, err := message.Seek(0, io.SeekCurrent)
	if err != nil {
		return false
	}
	text := make([]byte, maxWaiver)
	n, _ := message.ReadAt(text, start)
	if n < len(text) {
		return saysNo(string(text[:n]))
	}
	return saysNo(wholeFields(string(text)))
}

// wholeFields is a header that was cut off somewhere, without its last field: nobody knows how that
// goes on.
func wholeFields(text string) string {
	for end := strings.LastIndexByte(text, '\n'); end >= 0; end = strings.LastIndexByte(text[:end], '\n') {
		if rest := text[end+1:]; rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			return text[:end+1]
		}
	}
	return ""
}

// saysNo reports whether a header waives. Its field may be folded.
func saysNo(text string) bool {
	said := false
	for text != "" {
		field, rest := cutField(text)
		text = rest
		if field = strings.TrimRight(field, "\r\n"); field == "" {
			break
		}
		name, value, isField := strings.Cut(field, ":")
		if !isField || !strings.EqualFold(strings.TrimRight(name, " \t"), "TLS-Required") {
			continue
		}
		if said = strings.EqualFold(strings.Trim(value, " \t\r\n"), "No"); !said {
			return false
		}
	}
	return said
}

// cutField returns the first line of a header, with those that continue it, and the rest.
func cutField(text string) (field, rest string) {
	for end := 0; end < len(text); {
		i := strings.IndexByte(text[end:], '\n')
		if i < 0 {
			break
		}
		end += i + 1
		isEmpty := strings.TrimRight(text[:end], "\r\n") == ""
		if isEmpty || end == len(text) || text[end] != ' ' && text[end] != '\t' {
			return text[:end], text[end:]
		}
	}
	return text, ""
}
