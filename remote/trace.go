package remote

import (
	"fmt"
	"strings"

	"nightmare.mail/mxf/remote/report"
)

// recipientsTraced is how many recipients of one delivery the trace names. There are
// lists of thousands, and they go to the same server.
const recipientsTraced = 100

// traceJob is the first line: who delivers what to whom, and how strictly.
func (r *Router) traceJob(job *Job) {
	if r.Trace == nil {
		return
	}
	var b strings.Builder
	b.WriteString(r.Version)
	if r.Settings != nil {
		fmt.Fprintf(&b, ", home %q, tlsstrictness %d", r.Settings.Home, r.Settings.TLSStrictness)
	}
	fmt.Fprintf(&b, ", host %q, sender %q, recipients", job.Host, job.Sender)
	for _, recipient := range job.Recipients[:min(len(job.Recipients), recipientsTraced)] {
		fmt.Fprintf(&b, " %q", recipient)
	}
	if more := len(job.Recipients) - recipientsTraced; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	r.Trace(b.String())
}

// traceReports is the last lines: the reports of recipients that were not accepted,
// and then that of the message. The delivery is over: not even a panic changes it.
func (r *Router) traceReports(job *Job, stream report.Stream) {
	defer func() { _ = recover() }()
	told := 0
	for i, one := range stream.Recipients {
		if one.Letter == report.Accepted || told == recipientsTraced || i >= len(job.Recipients) {
			continue
		}
		told++
		r.tracef("report %c %q %s", one.Letter, job.Recipients[i], oneLine(one.Text))
	}
	r.tracef("report %c %s", stream.Message.Letter, oneLine(stream.Message.Text))
}
