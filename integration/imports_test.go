package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

const module = "nightmare.mail/mxf/"

// arrows lists which folder may import which, and why: a new arrow is a decision
// that doc/DESIGN.md has to argue. A folder named cmd/* is each program's.
var arrows = map[string]map[string]string{
	"cmd/internal/chain":   {},
	"cmd/internal/cmdtest": {"integration/must": "what all tests need"},
	"cmd/internal/exits": {
		"cmd/internal/chain": "the exit codes of programs",
		"remote/transport":   "what a router makes of them",
	},
	"cmd/internal/protocol": {
		"cmd/internal/chain": "the environment, exit codes",
		"remote/report":      "reports, and why there are none",
		"smtpc":              "the causes that have an exit code",
	},
	"cmd/internal/start": {"remote/stack": "the main goroutine needs room as well"},
	"cmd/internal/tlschain": {
		"cmd/internal/chain": "the Unix side of both chainloaders",
		"tlsc":               "the handshake",
		"tlsc/tunnel":        "what follows the handshake",
		"ucspitls":           "the commands on the control socket",
	},
	"cmd/*": {
		"remote/rspawn/worker":  "mxf-rspawn: its worker",
		"remote/rspawn/wire":    "mxf-rspawn: the socket of its worker",
		"remote/rspawn":         "mxf-rspawn",
		"cmd/internal/chain":    "descriptors, environment, exit codes",
		"cmd/internal/exits":    "what a router knows of exit codes",
		"cmd/internal/protocol": "what the protocol programs share",
		"cmd/internal/start":    "mxf-remote alone: one processor, from the beginning",
		"cmd/internal/tlschain": "mxf-tlsc and mxf-ucspitlsc are two faces of one program",
		"control":               "what a program reads for itself",
		"control/avoid":         "mxf-remote-smtpc: $MXF_SMTPAVOID",
		"qmtpc":                 "mxf-remote-qmtpc",
		"remote":                "mxf-remote; mxf-try shows the plan",
		"remote/check":          "mxf-check; mxf-try shows a plan alike",
		"remote/dns":            "mxf-remote, mxf-try: which name servers",
		"remote/login":          "mxf-remote-smtpc logs in as the router does",
		"remote/mtasts":         "mxf-policy: the cache",
		"remote/mtasts/fetch":   "mxf-policy alone: nothing else is linked with net/http",
		"remote/report":         "the protocol programs print what an outcome reads as",
		"remote/transport":      "mxf-remote: exit codes of a chain",
		"smtpc":                 "mxf-remote-smtpc, qmail-remote-io",
		"tlsc":                  "mxf-policy: trust anchors",
		"ucspitls":              "mxf-remote-smtpc asks for TLS",
		"integration/lab":       "mxf-try alone: its servers are those of the tests",
	},
	"control": {
		"control/stamp":   "files that have not changed are not read again",
		"control/avoid":   "the words of smtpavoid",
		"control/domain":  "names in files",
		"control/regular": "control files",
		"control/secret":  "passwords, tokens and keys print as (secret)",
	},
	"control/avoid":             {},
	"control/domain":            {},
	"control/domain/domaintest": {},
	"control/regular":           {},
	"control/secret":            {},
	"control/stamp":             {},
	"remote": {
		"control/stamp":    "what was found out about programs is shared",
		"remote/login":     "logins that were refused",
		"remote/together":  "a walk is made for all who go together",
		"remote/line":      "a place for each connection, where deliveries share",
		"control":          "the files that decide",
		"control/domain":   "what no host, sender or recipient may have",
		"remote/dane":      "TLSA records of the candidates",
		"remote/dial":      "connections, the order of addresses, dead hosts",
		"remote/dns":       "the resolver that is handed on, and why there is none",
		"remote/mtasts":    "the policies that hold, and whether one is fetched",
		"remote/policy":    "what each way must have, and what is tried after a failure",
		"remote/report":    "what is said in the end",
		"remote/route":     "the candidates",
		"remote/sign":      "signatures, once for a delivery",
		"remote/tlsrpt":    "who asks for reports on TLS",
		"remote/transport": "attempts",
		"tlsc":             "a TLS client that Routers share",
		"smtpc":            "a plan says what a server is not asked for",
	},
	"remote/dns": {
		"remote/memory":   "answers that are kept",
		"control/domain":  "a name server is read as control/trustresolvers has it",
		"control/regular": "resolv.conf",
		"remote/stack":    "lookups are goroutines",
	},
	"remote/check": {
		"control":          "all files and their mistakes",
		"control/domain":   "whether a name can be a host's",
		"control/regular":  "tables and programs are looked at without waiting",
		"remote":           "the plan, the probe, and what a router would refuse",
		"remote/dial":      "tables of dead hosts, the system's words",
		"remote/dns":       "name servers, our own names, answers",
		"remote/mtasts":    "the cache of policies",
		"remote/policy":    "manners and failures",
		"remote/report":    "letters",
		"remote/route":     "routes, and why there is no way",
		"remote/sign":      "keys and their records",
		"remote/transport": "programs as a delivery finds them",
		"smtpc":            "what kept a conversation from its end",
		"tlsc":             "trust anchors, certificates, what a handshake has shown",
	},
	"remote/dane": {
		"control/domain": "whether the end of aliases can be a host",
		"remote/dns":     "answers, and the questions that follow from them",
		"tlsc":           "records as their judge has them, so that limits and what can be used are said once",
	},
	"remote/dns/dnstest": {},
	"remote/route": {
		"control":        "protocols and routes",
		"control/domain": "HOST, and the targets of records",
		"remote/dns":     "questions and answers",
	},
	"remote/dial": {
		"remote/memory":   "addresses that were silent",
		"control/stamp":   "tables of dead hosts that have not changed",
		"control/regular": "the tables of dead hosts",
		"remote/stack":    "connections are goroutines",
	},
	"remote/dial/dialtest": {},
	"remote/login": {
		"remote/report":  "what was reported of a refusal",
		"remote/memory":  "refused logins",
		"control/stamp":  "which state of control/credentials a refusal is for",
		"control":        "the line that says how",
		"control/secret": "the password or token",
		"smtpc":          "what a session is given",
		"smtpc/sasl":     "the mechanisms",
	},
	"remote/mtasts": {
		"control/domain":  "names of policy domains and patterns",
		"control/regular": "cache and lock files",
	},
	"remote/mtasts/fetch": {
		"remote/dial":   "both families are raced",
		"remote/dns":    "the name servers of the delivery",
		"remote/mtasts": "what a policy is",
		"tlsc":          "the handshake and its verdict",
	},
	"remote/policy": {"tlsc": "failures of a handshake that lead to a rung; judges and records"},
	"remote/tlsrpt": {},
	"remote/transport": {
		"control/stamp":   "which message file a signature is for; scripts that have not changed",
		"remote/together": "the sequence that an attempt carries out",
		"control":         "what a chain is told, and which programs there are",
		"control/regular": "scripts in the place of programs",
		"control/secret":  "a login has its password with it",
		"qmtpc":           "attempts in this process",
		"qmtpc/spool":     "a pipe that is signed is copied as QMTP copies one",
		"remote/login":    "a session logs in as the plan says",
		"remote/dial":     "what the system said, and where a connection comes from",
		"remote/policy":   "the manner of an attempt, and the failure of one",
		"remote/report":   "the reports of an attempt",
		"smtpc":           "attempts in this process",
		"tlsc":            "TLS in this process",
	},
	"remote/report": {"qmtpc": "renders its outcomes", "smtpc": "renders its outcomes"},
	"remote/sign": {
		"control/domain": "the domains of From and of the sender",
		"control/stamp":  "which message file a signature is for",
		"remote/memory":  "signatures and keys that are kept",
	},
	"remote/memory":   {},
	"remote/line":     {"control": "the limits of connections, as the file has them"},
	"remote/together": {"smtpc": "it judges outcomes, recipient by recipient"},
	"remote/rspawn": {
		"control":               "delnumbytes, spawnlimit, concurrencyremote, statusfile",
		"control/regular":       "messages and tables are opened without waiting",
		"control/stamp":         "which message was in a worker that ended",
		"remote/rspawn/dialect": "what is said on 0 and 1",
		"remote/rspawn/wire":    "what is said to the worker",
	},
	"remote/rspawn/dialect": {},
	"remote/rspawn/wire":    {},
	"remote/rspawn/worker": {
		"remote/stack":          "a delivery is a goroutine",
		"control":               "the files in force for a delivery",
		"control/stamp":         "which message file a delivery is of",
		"remote":                "a delivery is one call of it",
		"remote/dial":           "what is remembered: silent addresses",
		"remote/dns":            "what is remembered: answers",
		"remote/line":           "what is shared: connections",
		"remote/login":          "what is remembered: refused logins",
		"remote/report":         "answers of ours",
		"remote/route":          "HOST in one form",
		"remote/rspawn/dialect": "reports become an answer",
		"remote/rspawn/wire":    "what the parent says, and hears",
		"remote/sign":           "what is remembered: signatures",
		"remote/together":       "deliveries meet in its parties",
		"remote/transport":      "counts, TLS clients",
		"tlsc":                  "what is shared: sessions, trust anchors, certificates",
	},
	"remote/stack": {},
	"smtpc": {
		"control/avoid":  "what is not used although it is offered",
		"control/domain": "the domain of an address, as HOST is read",
		"control/secret": "the word that is replaced in whatever a server says",
	},
	"smtpc/sasl":         {"control/secret": "passwords and tokens"},
	"smtpc/smtptest":     {},
	"qmtpc":              {"qmtpc/spool": "a message of unknown length has to be kept until it is known"},
	"qmtpc/spool":        {},
	"qmtpc/qmtptest":     {},
	"tlsc":               {"control/regular": "trust anchors, certificates and keys"},
	"tlsc/tunnel":        {"tlsc": "the connection inside TLS, and its errors"},
	"tlsc/tlstest":       {},
	"ucspitls":           {},
	"integration":        {"integration/lab": "the servers", "integration/peers": "the servers of others"},
	"integration/lab":    {"smtpc/smtptest": "its SMTP server is that of all tests", "tlsc/tlstest": "its certificates"},
	"integration/peers":  {"integration/must": "what all tests need"},
	"integration/check":  {"integration/target": "every target of a release is vetted"},
	"integration/dist":   {"integration/target": "what is built for"},
	"integration/target": {},
	"integration/must":   {},
	"integration/bench": {
		"integration/lab":        "the name server and the home",
		"integration/bench/runs": "what launch tells",
		"tlsc/tlstest":           "the certificate of its server",
	},
	"integration/bench/empty":  {},
	"integration/bench/floor":  {},
	"integration/bench/launch": {"integration/bench/runs": "how it tells what it measured"},
	"integration/bench/runs":   {},
}

// reserved lists packages that have one home.
var reserved = map[string][]string{
	"crypto/tls":            {"tlsc", "tlsc/tlstest", "smtpc/smtptest", "integration/lab", "integration/bench", "integration/bench/floor"},
	"github.com/miekg/dns":  {"remote/dns", "remote/dns/dnstest", "integration/lab"},
	"syscall":               {"cmd/internal/chain", "cmd/internal/cmdtest", "control/regular", "control/stamp", "remote/rspawn", "remote/rspawn/dialect", "remote/rspawn/wire", "remote/dial", "remote/dial/dialtest", "remote/dns", "remote/tlsrpt", "remote/transport", "integration/lab", "integration/peers", "integration/bench", "integration/bench/floor", "integration/bench/launch"},
	"golang.org/x/sys/unix": {"cmd/internal/chain", "remote/dial", "remote/mtasts", "remote/rspawn", "remote/rspawn/wire", "remote/transport"},
	"os/exec":               {"remote/transport", "cmd/internal/cmdtest", "integration/lab", "integration/peers", "integration/bench", "integration/bench/floor", "integration/check", "integration/dist"},
	"testing":               {"cmd/internal/cmdtest", "integration/must", "integration/peers", "remote/dns/dnstest"},
	"net/http":              {"remote/mtasts/fetch"},
}

// eachFile calls use for each file of the module that is not a test's.
func eachFile(t *testing.T, mode parser.Mode, use func(folder string, file *ast.File)) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		use(filepath.ToSlash(folder), file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// imports returns what each folder of the module imports outside of its tests.
func imports(t *testing.T) map[string]map[string]bool {
	t.Helper()
	found := make(map[string]map[string]bool)
	eachFile(t, parser.ImportsOnly, func(folder string, file *ast.File) {
		if found[folder] == nil {
			found[folder] = make(map[string]bool)
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			found[folder][name] = true
		}
	})
	return found
}

// row returns the row of arrows for folder.
func row(folder string) string {
	if strings.HasPrefix(folder, "cmd/") && !strings.HasPrefix(folder, "cmd/internal/") {
		return "cmd/*"
	}
	return folder
}

func TestImports_arrows(t *testing.T) {
	used := make(map[string]bool)
	for folder, names := range imports(t) {
		allowed, known := arrows[row(folder)]
		if !known {
			t.Errorf("folder %s is not in the list of arrows", folder)
		}
		for name := range names {
			target, ours := strings.CutPrefix(name, module)
			if !ours {
				continue
			}
			used[row(folder)+" -> "+target] = true
			if allowed[target] == "" {
				t.Errorf("new arrow %s -> %s: argue it in doc/DESIGN.md and list it, or do without", folder, target)
			}
			if target == "integration/lab" && strings.HasPrefix(folder, "cmd/") && folder != "cmd/mxf-try" {
				t.Errorf("%s imports the lab, which is for tests and mxf-try", folder)
			}
		}
	}
	for from, targets := range arrows {
		for to := range targets {
			// Tests alone draw the arrows of integration.
			if from != "integration" && !used[from+" -> "+to] {
				t.Errorf("arrow %s -> %s is listed and not used", from, to)
			}
		}
	}
}

func TestImports_reserved(t *testing.T) {
	found := imports(t)
	for folder, names := range found {
		for name := range names {
			if homes, ok := reserved[name]; ok && !slices.Contains(homes, folder) {
				t.Errorf("%s imports %s, which belongs to %s", folder, name, strings.Join(homes, ", "))
			}
		}
	}
	for name, homes := range reserved {
		for _, folder := range homes {
			if !found[folder][name] {
				t.Errorf("%s is listed as a home of %s, and does not import it", folder, name)
			}
		}
	}
}

// starters lists the functions that start programs, by package, and starting the folders that
// may call them.
var (
	starters = map[string][]string{
		"os":                    {"StartProcess"},
		"os/exec":               {"Command", "CommandContext", "Cmd"},
		"syscall":               {"StartProcess", "ForkExec", "Exec"},
		"golang.org/x/sys/unix": {"Exec"},
	}
	starting = map[string]string{
		"remote/rspawn":            "starts the worker, and deliveries that are processes of their own",
		"cmd/internal/chain":       "becomes the next program of a chain, and starts the tunnel",
		"remote/transport":         "starts a chain",
		"cmd/internal/cmdtest":     "tests",
		"integration/lab":          "tests",
		"integration/peers":        "tests",
		"integration/check":        "make check",
		"integration/bench":        "the benchmark",
		"integration/dist":         "the go command, git and nfpm make a release",
		"integration/bench/floor":  "the benchmark",
		"integration/bench/launch": "the benchmark",
	}
)

// Programs are started in few places.
func TestImports_starters(t *testing.T) {
	used := make(map[string]bool)
	eachFile(t, 0, func(folder string, file *ast.File) {
		named := make(map[string]string) // the paths of packages, by their names in file
		for _, spec := range file.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			local := path.Base(name)
			if spec.Name != nil {
				local = spec.Name.Name
			}
			named[local] = name
		}
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(starters[named[x.Name]], s.Sel.Name) {
				used[folder] = true
				if starting[folder] == "" {
					t.Errorf("%s starts programs (%s.%s)", folder, named[x.Name], s.Sel.Name)
				}
			}
			return true
		})
	})
	for folder := range starting {
		if !used[folder] {
			t.Errorf("%s is listed as starting programs, and does not", folder)
		}
	}
}

// What the programs are linked with, whoever imports it: nothing that costs start-up
// or size for no use.
func TestImports_linked(t *testing.T) {
	nowhere := []string{"testing", module + "cmd/internal/cmdtest", module + "integration/must"}
	for program, without := range map[string][]string{
		"mxf-remote":       {"net/http", module + "integration/lab"},
		"mxf-remote-smtpc": {"net/http", "github.com/miekg/dns"},
		"mxf-remote-qmtpc": {"net/http", "crypto/tls", "github.com/miekg/dns"},
		"mxf-tlsc":         {"net/http", "github.com/miekg/dns"},
		"mxf-ucspitlsc":    {"net/http", "github.com/miekg/dns"},
		"qmail-remote-io":  {"net/http", "github.com/miekg/dns"},
		"mxf-check":        {"net/http", module + "integration/lab"},
		"mxf-policy":       {module + "integration/lab"},
		"mxf-try":          {"net/http"},
	} {
		cmd := exec.Command("go", "list", "-buildvcs=false", "-deps", module+"cmd/"+program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out := must.Get(cmd.Output())(t)
		linked := strings.Fields(string(out))
		for _, path := range append(without, nowhere...) {
			if slices.Contains(linked, path) {
				t.Errorf("%s is linked with %s", program, path)
			}
		}
	}
}

// The QMTP program imports smtpc for the errors that its router can read. None of smtpc's
// code may come with them.
func TestImports_noSMTPInQMTP(t *testing.T) {
	program := filepath.Join(t.TempDir(), "mxf-remote-qmtpc")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, module+"cmd/mxf-remote-qmtpc")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out := must.Get(exec.Command("go", "tool", "nm", program).Output())(t)
	const text = "T"
	ours := false
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line) // address, kind, name; no address where there is none
		if len(fields) < 3 || !strings.EqualFold(fields[1], text) {
			continue
		}
		ours = ours || strings.HasPrefix(fields[2], module+"qmtpc.")
		if strings.HasPrefix(fields[2], module+"smtpc.") && fields[2] != module+"smtpc.init" {
			t.Errorf("mxf-remote-qmtpc is linked with %s", fields[2])
		}
	}
	if !ours {
		t.Error("the list of symbols has none of qmtpc")
	}
}
