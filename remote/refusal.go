package remote

import (
	"errors"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
)

// routeCases has the report of each kind of error of route. The letters agree with
// [route.Error.Permanent].
var routeCases = [...]report.Case{
	route.BadHost:        report.BadHost,
	route.NoSuchHost:     report.NoSuchHost,
	route.LookupFailed:   report.LookupFailed,
	route.RelayUnknown:   report.RelayUnknown,
	route.RelayNoAddress: report.RelayNoAddress,
	route.NullMX:         report.NullMX,
	route.NoAddress:      report.NoAddress,
	route.OnlyOurselves:  report.OnlyOurselves,
	route.ControlFiles:   report.ControlFiles,
}

// refusal gives an error that came before the first attempt its report.
func refusal(err error) error {
	var malformed *control.Error
	var unknown *dns.ConfigError
	var refused *route.Error
	switch {
	case errors.As(err, &refused):
		return &report.Error{Case: routeCases[refused.Kind], Facts: routeFacts(refused), Err: err}
	case errors.As(err, &malformed):
		return &report.Error{Case: report.ControlFiles, Facts: report.Facts{Reason: malformed.Error()}, Err: err}
	case errors.As(err, &unknown):
		return &report.Error{Case: report.ControlFiles, Facts: report.Facts{Reason: unknown.Error()}, Err: err}
	}
	return err
}

func routeFacts(e *route.Error) report.Facts {
	f := report.Facts{Host: e.Host, Reason: e.Reason}
	switch {
	case e.Relay == "":
	case e.Kind == route.LookupFailed:
		f.Detail = "It is the relay of " + e.Relay + "."
	default:
		f.Reason = e.Relay
	}
	return f
}
