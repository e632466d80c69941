// mxf-ucspitlsc speaks TLS around a program that asks for it in the middle of
// its conversation (UCSPI-TLS): its command line is that of s6-ucspitlsc. See
// mxf-ucspitlsc(8).
package main

import (
	"os"

	"nightmare.mail/mxf/cmd/internal/tlschain"
)

const usage = "mxf-ucspitlsc [-S | -s] [-J | -j] [-Y | -y] [-Z | -z] [--verify-cert | --no-verify-cert] " +
	"[-v verbosity] [-K milliseconds] [-k name] [-6 fd] [-7 fd] [--] prog [argument ...]\n" +
	"mxf-ucspitlsc --help | --version"

func main() {
	program := &tlschain.Program{
		Name:      "mxf-ucspitlsc",
		Usage:     usage,
		OnRequest: true,
	}
	os.Exit(program.Main(os.Args, os.Environ()))
}
