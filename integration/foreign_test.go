package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/integration/target"
)

// Setup: programs for other processors, each run by qemu. Where a program looks for another
// one it finds a program of this machine that becomes qemu:
//
//	mxf-remote-smtpc ──► qemu-s390x mxf-remote-smtpc.real
//
// It is no script, because a script in the place of a program of ours makes a delivery a chain.
//
// Test: the scripts of TestScripts that depend on the order of bytes and the length of
// words: tables of dead hosts, the lengths of QMTP, line ends, reports, signatures, TLS. And
// the tests of packages that write such things.

// foreign are big-endian, and of 64 and 32 bits.
var foreign = []struct {
	target string
	cannot string // tests of packages that qemu cannot run
}{
	// A test that starts itself, which qemu cannot.
	{"linux-s390x", "^TestRace_onePort$"},
	// And qemu does not translate SO_ERROR to the numbers that MIPS has for errors.
	{"linux-mips", "^(TestRace_onePort|TestRace_nextAfterRefusal|TestRace_sourceHolds|TestDialer_clock)$"},
}

// foreignScripts run both ways.
var foreignScripts = []string{
	"deliver_8bit", "deliver_dots", "deliver_empty", "deliver_in_the_clear", "deliver_line_ends", "deliver_partial_line", "deliver_pipe",
	"dns_literal", "dns_truncated", "mx_dead_host", "mx_dead_host_remembered", "mxps_twin", "mxps_twin_dead_port",
	"qmtp_bytes", "qmtp_lost_after_package", "qmtp_lost_before_end", "qmtp_nonsense", "qmtp_recipients",
	"recipients_421", "recipients_all_refused", "recipients_control_byte", "recipients_one_refused", "recipients_refused_and_deferred",
	"refused_data_rejected", "refused_many_lines", "refused_message_deferred", "refused_sender_rejected",
	"route_literal", "srv_dead_port", "srv_then_mx",
}

// foreignAlone run in one process: a TLS client of a chain starts itself, which qemu cannot.
var foreignAlone = []string{
	"deliver_starttls_verified", "dkim_keys", "login_right_scram", "qmtp_50mb", "tls_expired", "tls_qmtps_verified", "tls_staple", "tls_wrongname",
}

// foreignPackages keep tables, write lengths and reports.
var foreignPackages = []string{"remote/dial", "remote/report", "remote/mtasts", "remote/tlsrpt", "qmtpc", "qmtpc/spool"}

func TestForeign(t *testing.T) {
	for _, test := range foreign {
		t.Run(test.target, func(t *testing.T) {
			of, known := target.Named(test.target)
			if !known {
				t.Fatal("no target")
			}
			qemu, err := exec.LookPath("qemu-" + of.Arch)
			if err != nil {
				peers.Missing(t, "qemu-user", "%v", err)
			}
			bin := foreignPrograms(t, of, qemu)
			t.Run("scripts", func(t *testing.T) { runScripts(t, bin, scripts(foreignScripts)) })
			t.Run("alone", func(t *testing.T) { runWay(t, bin, scripts(foreignAlone), "process", newRecord()) })
			t.Run("packages", func(t *testing.T) {
				args := []string{"test", "-trimpath", "-vet=off", "-exec", qemu, "-skip", test.cannot}
				for _, p := range foreignPackages {
					args = append(args, module+p)
				}
				forTarget(t, of, args...)
			})
		})
	}
}

// scripts names scripts of TestScripts.
func scripts(names []string) (params testscript.Params) {
	for _, name := range names {
		params.Files = append(params.Files, filepath.Join("testdata", "script", name+".txtar"))
	}
	return params
}

// forTarget runs the go command for a target.
func forTarget(t *testing.T, of target.Target, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), of.Environ()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// becomesQEMU is a program that has qemu run the one beside it whose name ends in .real.
const becomesQEMU = `package main

import (
	"os"
	"syscall"
)

func main() {
	self, err := os.Executable()
	if err == nil {
		err = syscall.Exec(%[1]q, append([]string{%[1]q, "-0", os.Args[0], self + ".real"}, os.Args[1:]...), os.Environ())
	}
	println(err.Error())
	os.Exit(111)
}
`

// foreignPrograms builds programs, with those that have qemu run them, and returns their
// folder.
func foreignPrograms(t *testing.T, of target.Target, qemu string) (bin string) {
	t.Helper()
	bin = t.TempDir()
	source := filepath.Join(t.TempDir(), "main.go")
	must.Write(t, source, fmt.Sprintf(becomesQEMU, qemu))
	starter := filepath.Join(bin, "starter")
	here := target.Target{OS: runtime.GOOS, Arch: runtime.GOARCH}
	forTarget(t, here, "build", "-o", starter, source)
	args := []string{"build", "-buildvcs=false", "-trimpath", "-o", bin + "/"}
	names := []string{"mxf-remote", "mxf-remote-smtpc", "mxf-remote-qmtpc"}
	for _, name := range names {
		args = append(args, module+"cmd/"+name)
	}
	forTarget(t, of, args...)
	for _, name := range names {
		program := filepath.Join(bin, name)
		must.OK(t, os.Rename(program, program+".real"), os.Link(starter, program))
	}
	return bin
}
