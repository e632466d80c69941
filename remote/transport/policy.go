package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/report"
)

const (
	policyProgram = "mxf-policy"
	// policyGrace is how long the pipes of mxf-policy are waited for after it was killed.
	policyGrace = time.Second
)

// FetchPolicy has mxf-policy(8) fetch the MTA-STS policy of a domain, by the id of its record, and
// returns the text of the cache file. With look nothing is stored, and no lock is needed. It is killed when ctx ends. The error is a *report.Error if
// the program cannot be run, or cannot even try (trust anchors that cannot be read, say): that is
// no failure of the domain's. Any other says why there is no text.
func (c *Carrier) FetchPolicy(ctx context.Context, domain, id string, look bool) ([]byte, error) {
	path := filepath.Join(c.Programs, policyProgram)
	if err := runnable(path); err != nil {
		return nil, policyFailed(path, err)
	}
	args := []string{"fetch", domain, id}
	if look {
		args = []string{"fetch", "-n", domain, id}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = policyGrace
	cmd.Env = make([]string, 0, len(c.Environ)+1)
	for _, assignment := range c.Environ {
		if !strings.HasPrefix(assignment, "MXF_HOME=") {
			cmd.Env = append(cmd.Env, assignment)
		}
	}
	cmd.Env = append(cmd.Env, "MXF_HOME="+c.Settings.Home)
	var text, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &said
	err := runToEnd(cmd)
	var exit *exec.ExitError
	var unstarted *startError
	switch {
	case errors.As(err, &unstarted):
		return nil, policyFailed(path, notStarted(path, unstarted.err))
	case ctx.Err() != nil:
		return nil, errors.New("mxf-policy was killed, since it took too long")
	case err != nil && !errors.As(err, &exit):
		return nil, fmt.Errorf("mxf-policy: %w", dial.Reason(err))
	case err != nil && !cmd.ProcessState.Exited():
		return nil, fmt.Errorf("mxf-policy ended with %v", cmd.ProcessState)
	case err != nil && cmd.ProcessState.ExitCode() != c.Exits.NotFetched:
		why := cmd.ProcessState.String()
		if all := strings.TrimSpace(said.String()); all != "" {
			why += ", saying: " + report.Diagnostic(all)
		}
		return nil, policyFailed(path, errors.New(why))
	}
	return text.Bytes(), nil
}

func policyFailed(path string, err error) error {
	return &report.Error{Case: report.ProgramFailed, Facts: report.Facts{Reason: fmt.Sprintf("%s: %v", programName(path), err)}, Err: err}
}

// A startError says that a program could not be started.
type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
