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
	if job.Trace == nil {
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
	job.Trace(b.String())
}

// traceReports is the last lines: the reports of recipients that were not accepted,
// and then that of the message. The delivery is over: not even a panic changes it.
func (j *Job) traceReports(stream report.Stream) {
	defer func() { _ = recover() }()
	told := 0
	for i, one := range stream.Recipients {
		if one.Letter == report.Accepted || told == recipientsTraced || i >= len(j.Recipients) {
			continue
		}
		told++
		j.tracef("report %c %q %s", one.Letter, j.Recipients[i], oneLine(one.Text))
	}
	j.tracef("report %c %s", stream.Message.Letter, oneLine(stream.Message.Text))
}

func (j *Job) tracef(format string, args ...any) {
	if j.Trace != nil {
		j.Trace(fmt.Sprintf(format, args...))
	}
}
