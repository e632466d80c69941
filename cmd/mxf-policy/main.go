// Mxf-policy fetches the MTA-STS policies of domains, and keeps the cache of them; see
// mxf-policy(8).
package main

import (
	"nightmare.mail/mxf/cmd/internal/chain"
)

const usage = `mxf-policy fetch [-n] domain [id]
mxf-policy refresh [-j number] [-s seconds]
mxf-policy list
mxf-policy --help | --version`

func main() { chain.Main("mxf-policy", usage, run) }

func run(args []string) error {
	commands := map[string]func(args []string) error{"fetch": fetchOne, "refresh": refresh, "list": list}
	if len(args) > 0 && commands[args[0]] != nil {
		return commands[args[0]](args[1:])
	}
	return chain.Fail(chain.ExitUsage, "%s", usage)
}
