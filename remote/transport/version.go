package transport

import (
	"context"
	"os/exec"
	"time"

	"nightmare.mail/mxf/remote/dial"
)

// versionGrace is how long the pipes of a program are waited for after it was killed.
const versionGrace = time.Second

// ProgramVersion runs one of our own programs with --version, and returns what it prints. It is
// killed when ctx ends.
func ProgramVersion(ctx context.Context, path string) (string, error) {
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay, cmd.Env = versionGrace, []string{}
	text, err := cmd.Output()
	if err != nil {
		return "", dial.Reason(err)
	}
	return string(text), nil
}
