// mxf-tlsc speaks TLS around a program: its command line is that of s6-tlsc.
// See mxf-tlsc(8).
package main

import (
	"os"

	"nightmare.mail/mxf/cmd/internal/tlschain"
)

const usage = "mxf-tlsc [-S | -s] [-J | -j] [-Y | -y] [-Z | -z] [--verify-cert | --no-verify-cert] " +
	"[-v verbosity] [-K milliseconds] [-k name] [-6 fd] [-7 fd] [--] prog [argument ...]\n" +
	"mxf-tlsc --help | --version"

func main() {
	program := &tlschain.Program{
		Name:  "mxf-tlsc",
		Usage: usage,
	}
	os.Exit(program.Main(os.Args, os.Environ()))
}
