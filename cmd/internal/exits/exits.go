// Package exits has the exit codes by which the programs of a chain tell a router what
// became of an attempt. Each program that has a router takes them from here.
//
//	mxf-remote(8), The chain of programs   the exit codes
package exits

import (
	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/remote/transport"
)

// OfChain returns the exit codes of the programs of a chain.
func OfChain() transport.Exits {
	return transport.Exits{
		Next: chain.ExitNextExchanger, NoTLS: chain.ExitNoTLS, Group: chain.ExitStumbled, NoEHLO: chain.ExitNoEHLO,
		Fuse: chain.ExitFuse, TLS: []int{chain.ExitTLSSettings, chain.ExitTLSHandshake, chain.ExitTLSRunning},
		NotFetched: chain.ExitNotFetched,
	}
}
