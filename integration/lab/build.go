package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is where the programs are, for the go command.
const module = "nightmare.mail/mxf"

// Build compiles all programs into dir as they are released: static, stripped of
// nothing that a test needs. Flags are added to those of go build, -cover for
// example. The error holds what the compiler said.
func Build(ctx context.Context, dir string, flags ...string) error {
	args := append([]string{"build", "-buildvcs=false", "-trimpath"}, flags...)
	args = append(args, "-o", dir+string(filepath.Separator), module+"/cmd/...")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
