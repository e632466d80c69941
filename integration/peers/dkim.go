package peers

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed dkim.py
var pythonVerifier string

//go:embed dkim.pl
var perlVerifier string

//go:embed opendkim.py
var openDKIMVerifier string

// openDKIMPlace runs the rest in a network of its own, whose name server is at 127.0.0.1.
const openDKIMPlace = `set -e
ip link set lo up
echo nameserver 127.0.0.1 >"$1"
mount --bind "$1" /etc/resolv.conf
shift
exec "$@"`

// A Verifier is a verifier of DKIM signatures. It asks no name server.
type Verifier struct {
	Name    string
	Ed25519 bool // it knows Ed25519 beside RSA

	command []string
}

// DKIMPy is dkimpy, of Debian's python3-dkim.
func DKIMPy(t testing.TB) *Verifier {
	t.Helper()
	return &Verifier{"dkimpy", true, command(t, "python3-dkim", "import dkim, nacl", pythonVerifier, "python3", "-c")}
}

// MailDKIM is Perl's Mail::DKIM, of Debian's libmail-dkim-perl.
func MailDKIM(t testing.TB) *Verifier {
	t.Helper()
	return &Verifier{"Mail::DKIM", false, command(t, "libmail-dkim-perl", "use Mail::DKIM::Verifier; use Net::DNS;", perlVerifier, "perl", "-e")}
}

// OpenDKIM is libopendkim, of Debian's opendkim-tools. It says one thing of each message, whatever
// the number of its signatures, knows no Ed25519, and wants a header as RFC 5322 has it: a Date, and
// nothing twice. It asks a name server, which is in a network of its own; where there can be none
// the test is skipped.
func OpenDKIM(t testing.TB) *Verifier {
	t.Helper()
	find(t, "opendkim-testmsg")
	place := []string{find(t, "unshare"), "--net", "--mount"}
	if os.Geteuid() != 0 {
		place = append(place, "--map-root-user")
	}
	place = append(place, "sh", "-c", openDKIMPlace, "sh", filepath.Join(t.TempDir(), "resolv.conf"))
	if out, err := exec.Command(place[0], append(place[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no network of its own (unshare and ip): %v: %s", err, bytes.TrimSpace(out))
	}
	return &Verifier{"OpenDKIM", false, append(place, find(t, "python3"), "-c", openDKIMVerifier)}
}

// command returns the command that runs script, if it can run needs, which brings what packages have.
func command(t testing.TB, packages, needs, script, program, option string) []string {
	t.Helper()
	path := find(t, program)
	if out, err := exec.Command(path, option, needs).CombinedOutput(); err != nil {
		Missing(t, packages, "%s: %v: %s", program, err, bytes.TrimSpace(out))
	}
	return []string{path, option, script}
}

// Verify returns what the verifier says of each message: pass, or why not, for each signature
// from the top. Messages have line ends of CR LF. Records has the texts of TXT records by
// their names.
func (v *Verifier) Verify(t testing.TB, records map[string]string, messages [][]byte) [][]string {
	t.Helper()
	var in, out, said bytes.Buffer
	for name, text := range records {
		fmt.Fprintf(&in, "%s %s\n", name, text)
	}
	in.WriteByte('\n')
	for _, m := range messages {
		fmt.Fprintf(&in, "%d\n%s", len(m), m)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*patience)
	defer stop()
	cmd := exec.CommandContext(ctx, v.command[0], v.command[1:]...)
	cmd.Env = []string{"PATH=" + folders, "LC_ALL=C"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", v.Name, err, &said)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(messages) {
		t.Fatalf("%s: %d results for %d messages\n%s", v.Name, len(lines), len(messages), &said)
	}
	results := make([][]string, len(lines))
	for i, line := range lines {
		results[i] = strings.Split(line, "\t")
	}
	return results
}

// Passed fails the test for each message that does not have so many signatures, all of which
// hold. Names are those of the messages.
func (v *Verifier) Passed(t testing.TB, records map[string]string, signatures int, names []string, messages [][]byte) {
	t.Helper()
	want := strings.TrimSuffix(strings.Repeat("pass\t", signatures), "\t")
	for i, result := range v.Verify(t, records, messages) {
		if got := strings.Join(result, "\t"); got != want {
			t.Errorf("%s of %s: %s", v.Name, names[i], got)
		}
	}
}
