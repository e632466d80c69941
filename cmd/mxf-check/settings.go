package main

import (
	"context"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/check"
	"nightmare.mail/mxf/remote/report"
)

// settings looks at the settings alone.
func settings(_ context.Context, _ *command) []check.Finding {
	if _, err := control.Read(chain.Home()); err != nil {
		return []check.Finding{{Level: check.Error, File: "control", What: report.New(report.ControlFiles, report.Facts{Reason: err.Error()}).Text}}
	}
	return []check.Finding{{Level: check.OK, File: "control", What: "every file can be read"}}
}
