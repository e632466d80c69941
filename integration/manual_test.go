package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sections are the headings of a manual page.
func sections(t *testing.T, page string) (names []string, text string) {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "doc", page))
	if err != nil {
		t.Fatal(err)
	}
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
