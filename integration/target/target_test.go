package target

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// Go knows every target by these settings, and no two have one name.
func TestAll(t *testing.T) {
	known := strings.Fields(string(must.Get(exec.Command("go", "tool", "dist", "list").Output())(t)))
	var names []string
	for _, target := range All {
		if !slices.Contains(known, target.OS+"/"+target.Arch) {
			t.Errorf("Go does not know %s", target)
		}
		if slices.Contains(names, target.String()) {
			t.Errorf("%s is there twice", target)
		}
		names = append(names, target.String())
		if found, ok := Named(target.String()); !ok || found != target {
			t.Errorf("%s is found as %v, %v", target, found, ok)
		}
		if target.Level == "" {
			continue
		}
		name, value, _ := strings.Cut(target.Level, "=")
		cmd := exec.Command("go", "env", name)
		cmd.Env = append(os.Environ(), target.Environ()...)
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != value {
			t.Errorf("%s: %s is %q, %v", target, target.Level, out, err)
		}
	}
	for _, want := range []string{"linux-386", "linux-armv7", "linux-s390x", "freebsd-amd64", "darwin-arm64"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if _, ok := Named("plan9-mips"); ok {
		t.Error("plan9-mips is known")
	}
}
