package remote

import (
	"fmt"
	"strings"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/report"
)

// recipientsTraced is how many recipients of one delivery the trace names. There are
// lists of thousands, and they go to the same server.
const recipientsTraced = 100

// About is what a trace begins with: which program in which home, and how strictly.
func About(version string, s *control.Settings) string {
	if s == nil {
		return version
	}
	return fmt.Sprintf("%s, home %q, tlsstrictness %d", version, s.Home, s.TLSStrictness)
}

// traceArguments is the first line: who delivers what to whom.
func (j *Job) traceArguments() {
	if j.Trace == nil {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, host %q, sender %q, recipients", j.About, j.Host, j.Sender)
	for _, recipient := range j.Recipients[:min(len(j.Recipients), recipientsTraced)] {
		fmt.Fprintf(&b, " %q", recipient)
	}
	if more := len(j.Recipients) - recipientsTraced; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	j.Trace(b.String())
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

// TraceReport is the last lines of the trace of one delivery among those that go together: its reports.
func TraceReport(trace func(line string), recipient string, stream report.Stream) {
	j := &Job{Recipients: []string{recipient}, Trace: trace}
	j.traceReports(stream)
}

func (j *Job) tracef(format string, args ...any) {
	if j.Trace != nil {
		j.Trace(fmt.Sprintf(format, args...))
	}
}
