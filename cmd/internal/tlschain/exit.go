package tlschain

import (
	"errors"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/ucspitls"
)

// coded gives err the exit status that it stands for.
func coded(err error) error {
	var failed *tlsc.Error
	var unknown ucspitls.UnknownCommand
	switch {
	case errors.As(err, &failed):
		return &chain.Failure{Code: codeOf(failed.Kind), Err: err}
	case errors.As(err, &unknown):
		// The program that asked does not know the protocol.
		return &chain.Failure{Code: chain.ExitUsage, Err: err}
	}
	return err
}

func codeOf(kind tlsc.Kind) int {
	switch kind {
	case tlsc.KindSettings:
		return chain.ExitTLSSettings
	case tlsc.KindHandshake:
		return chain.ExitTLSHandshake
	case tlsc.KindRunning:
		return chain.ExitTLSRunning
	}
	return chain.ExitTemporary
}
