package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// sections are the headings of a manual page.
func sections(t *testing.T, page string) (names []string, text string) {
	t.Helper()
	source := must.Get(os.ReadFile(filepath.Join("..", "doc", page)))(t)
	for _, heading := range regexp.MustCompile(`(?m)^\.Sh (.*)$`).FindAllStringSubmatch(string(source), -1) {
		names = append(names, heading[1])
	}
	return names, string(source)
}

// Every page has what its reader looks for, in the usual order.
func TestManual_sections(t *testing.T) {
	chainloader := []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT READ", "ENVIRONMENT WRITTEN", "EXIT STATUS", "EXAMPLES", "DIFFERENCES FROM S6"}
	client := []string{"NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO"}
	for page, want := range map[string][]string{
		"mxf-tlsc.8":         chainloader,
		"mxf-ucspitlsc.8":    chainloader,
		"mxf-remote.8":       {"NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "REPORTS", "TIME", "EXIT STATUS", "EXAMPLES", "DIFFERENCES FROM QMAIL-REMOTE"},
		"mxf-remote-smtpc.8": client,
		"mxf-remote-qmtpc.8": client,
		"qmail-remote-io.8":  client,
		"mxf-rspawn.8":       {"NAME", "SYNOPSIS", "DESCRIPTION", "SIGNALS", "STATUS FILE", "TRACE", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "DIAGNOSTICS", "DIFFERENCES FROM QMAIL-RSPAWN", "SEE ALSO"},
		"mxf-policy.8":       client,
		"mxf-check.8":        {"NAME", "SYNOPSIS", "DESCRIPTION", "JSON", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO"},
		"mxf-control.5":      {"NAME", "DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO"},
		"mxf-try.8":          {"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES"},
	} {
		names, _ := sections(t, page)
		at := -1
		for _, name := range want {
			next := slices.Index(names, name)
			if next <= at {
				t.Errorf("%s: section %s is missing or out of order: %q", page, name, names)
				break
			}
			at = next
		}
	}
}

// The page of the router names every control file, and states the worst case of a
// whole delivery; those of the TLS clients tell why -z is as it is, and every exit
// status.
func TestManual_whole(t *testing.T) {
	_, router := sections(t, "mxf-remote.8")
	for _, name := range []string{
		"me", "helohost", "protocols", "smtproutes", "tlsclient", "ucspitlsclient", "trustanchors", "clientcert", "clientkey",
		"tlsstrictness", "ipme", "timeoutconnect", "timeoutremote", "timeoutdns", "trace",
		"senderroutes", "submissionsroutes", "credentials", "sources", "families", "clientcerts", "signingkeys",
		"trustresolvers", "mtasts", "tlspolicy", "tlsrptsocket", "clearafter",
	} {
		if !regexp.MustCompile(`(?m)^\.(It )?Pa .*\b` + name + `\b`).MatchString(router) {
			t.Errorf("mxf-remote.8 does not name control/%s", name)
		}
	}
	_, limits, _ := strings.Cut(router, "\n.Sh TIME\n")
	limits, _, _ = strings.Cut(limits, "\n.Sh ")
	if !strings.Contains(limits, "worst case of a whole delivery") {
		t.Error("mxf-remote.8 does not state the worst case")
	}
	for _, page := range []string{"mxf-tlsc.8", "mxf-ucspitlsc.8"} {
		_, text := sections(t, page)
		_, differences, _ := strings.Cut(text, "\n.Sh DIFFERENCES FROM S6\n")
		if !regexp.MustCompile(`(?m)^\.(It )?Fl z\b`).MatchString(differences) {
			t.Errorf("%s does not tell about -z", page)
		}
		_, statuses, _ := strings.Cut(text, "\n.Sh EXIT STATUS\n")
		statuses, _, _ = strings.Cut(statuses, "\n.Sh ")
		for _, status := range []string{"96", "97", "98", "100", "111", "126", "127"} {
			if !strings.Contains(statuses, status) {
				t.Errorf("%s does not tell exit status %s", page, status)
			}
		}
	}
}

// statusMetrics are the names of the status file of mxf-rspawn, each with what its labels can be.
var statusMetrics = map[string][]string{
	"limit": nil, "slots": nil, "in_flight": nil, "waiting": nil,
	"answers_total":      {`letter="K"`, `letter="Z"`, `letter="D"`},
	"deferrals_total":    {`why="line"`, `why="crash"`},
	"connections":        {`state="busy"`, `state="idle"`},
	"connections_total":  {`how="new"`, `how="kept"`},
	"begun_anew_total":   nil,
	"transactions_total": nil, "recipients_total": nil,
	"handshakes_total":      {`how="full"`, `how="resumed"`, `how="failed"`},
	"dns_total":             {`how="asked"`, `how="known"`},
	"worker_ends_total":     nil,
	"processes_total":       nil,
	"exchanger_connections": nil, "exchanger_window": nil, "exchanger_waiting": nil, "exchanger_messages_total": nil,
}

// The page of mxf-rspawn explains every name of the status file with its labels, and no other;
// every control file that is its own; every line that only its trace has; and every report of its own.
func TestManual_rspawn(t *testing.T) {
	_, page := sections(t, "mxf-rspawn.8")
	_, status, _ := strings.Cut(page, "\n.Sh STATUS FILE\n")
	status, trace, _ := strings.Cut(status, "\n.Sh TRACE\n")
	entries := regexp.MustCompile(`(?m)^\.It Li mxf_rspawn_(\w+)( Ns Brq Li \w+)?$`).FindAllStringSubmatchIndex(status, -1)
	explained := make(map[string]bool)
	for i, at := range entries {
		name, end := status[at[2]:at[3]], len(status)
		if i+1 < len(entries) {
			end = entries[i+1][0]
		}
		values, known := statusMetrics[name]
		if !known || explained[name] {
			t.Errorf("mxf-rspawn.8 has %s once too often", name)
		}
		explained[name] = true
		if hasLabel := at[4] >= 0; hasLabel != (values != nil) {
			t.Errorf("%s: a label: %v", name, hasLabel)
		}
		for _, value := range values {
			if !strings.Contains(status[at[0]:end], "\n.Li "+value) {
				t.Errorf("%s does not explain %s", name, value)
			}
		}
	}
	for name := range statusMetrics {
		if !explained[name] {
			t.Errorf("mxf-rspawn.8 does not explain %s", name)
		}
	}
	for _, name := range []string{"delnumbytes", "spawnlimit", "connectionlimits", "connectionidle", "connectionwait", "tlsresumption", "statusfile"} {
		if !regexp.MustCompile(`(?m)^\.It Pa (\w+ , )?` + name + `\b`).MatchString(page) {
			t.Errorf("mxf-rspawn.8 does not name control/%s", name)
		}
	}
	for _, line := range []string{"reuse ", "together with ", "anew: ", "line ", "worker ended: "} {
		if !strings.Contains(trace, "\n.It Li "+line) {
			t.Errorf("mxf-rspawn.8 does not explain the line %q", line)
		}
	}
	_, reports, _ := strings.Cut(page, "\n.Sh DIAGNOSTICS\n")
	for _, words := range []string{"has as many connections from here as it may", "#4.4.5", "The worker ended by ", "incomplete report. (#4.3.0)", "Unable to run qmail-remote.", "produced no output.", "unable to fork. (#4.3.0)"} {
		if !strings.Contains(reports, words) {
			t.Errorf("mxf-rspawn.8 does not explain the report %q", words)
		}
	}
}

// programNames are all programs. Each has a manual page of section 8 with its name.
var programNames = []string{"mxf-check", "mxf-policy", "mxf-remote", "mxf-remote-qmtpc", "mxf-remote-smtpc", "mxf-rspawn", "mxf-tlsc", "mxf-try", "mxf-ucspitlsc", "qmail-remote-io"}

// A program says of itself what its manual page says, and which version it is.
func TestManual_synopsis(t *testing.T) {
	mains := must.Get(filepath.Glob("../cmd/*/main.go"))(t)
	for i, path := range mains {
		mains[i] = filepath.Base(filepath.Dir(path))
	}
	if !slices.Equal(mains, programNames) {
		t.Errorf("the programs are %q, and those that are tested %q", mains, programNames)
	}
	version := regexp.MustCompile(`\A\d+\.\S+ \((commit unknown|(commit [0-9a-f]{12} of|tag) .*), ` + regexp.QuoteMeta(runtime.Version()) + `\)\n\z`)
	for _, name := range programNames {
		_, page := sections(t, name+".8")
		_, synopsis, _ := strings.Cut(page, "\n.Sh SYNOPSIS\n")
		synopsis, _, _ = strings.Cut(synopsis, "\n.Sh ")
		for option, right := range map[string]func(said string) bool{
			"--help": func(said string) bool { return said == spoken(name, synopsis) },
			"--version": func(said string) bool {
				rest, ok := strings.CutPrefix(said, name+" ")
				return ok && version.MatchString(rest)
			},
		} {
			got := must.Get(finish(exec.Command(filepath.Join(programs(t), name), option)))(t)
			if got.status != 0 || got.err != "" || !right(got.out) {
				t.Errorf("%s %s: %+v; the synopsis is\n%s", name, option, got, synopsis)
			}
		}
	}
}

// spoken is a synopsis in mdoc as a program says it.
func spoken(program, synopsis string) string {
	var lines []string
	for macro := range strings.Lines(synopsis) {
		words := strings.Fields(strings.TrimPrefix(macro, "."))
		if words[0] == "Nm" {
			lines = append(lines, program)
			continue
		}
		lines[len(lines)-1] += " " + formatted(words)
	}
	return strings.Join(lines, "\n") + "\n"
}

// formatted is a line of mdoc that has optional parts, flags, commands and arguments.
func formatted(words []string) string {
	if words[0] == "Op" {
		return "[" + formatted(words[1:]) + "]"
	}
	var out []string
	dash := ""
	for _, word := range words {
		switch word {
		case "Fl":
			dash = "-"
		case "Ar", "Cm":
			dash = ""
		case "|":
			out = append(out, word)
		default:
			out = append(out, dash+word)
		}
	}
	return strings.Join(out, " ")
}
