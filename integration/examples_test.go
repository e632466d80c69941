package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

// Every set of control files in doc/examples is read without a complaint, by the check that
// INSTALL.md has for it; and each is named in the README there.
func TestExamples(t *testing.T) {
	readme := string(must.Get(os.ReadFile("../doc/examples/README"))(t))
	entries := must.Get(os.ReadDir("../doc/examples"))(t)
	sets := 0
	for _, e := range entries {
		if e.Name() != "README" && !strings.Contains(readme, "\n"+e.Name()+" ") {
			t.Errorf("README does not name %s", e.Name())
		}
		if !e.IsDir() {
			continue
		}
		sets++
		home := t.TempDir()
		must.OK(t, os.CopyFS(home, os.DirFS(filepath.Join("../doc/examples", e.Name()))))
		must.OK(t, os.WriteFile(filepath.Join(home, "control", "me"), []byte("host.example.net\n"), 0o644))
		if err := os.Chmod(filepath.Join(home, "control", "credentials"), 0o640); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		cache := filepath.Join(home, "control", "mtasts")
		if _, err := os.Stat(cache); err == nil {
			must.OK(t, os.Mkdir(filepath.Join(home, "sts"), 0o700))
			must.OK(t, os.WriteFile(cache, []byte("sts\n"), 0o644))
		}
		if _, err := control.ReadCredentials(home); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
		cmd := exec.Command(filepath.Join(programs(t), "mxf-remote"), ".", "", "x")
		cmd.Env = []string{"MXF_HOME=" + home}
		got := must.Get(finish(cmd))(t)
		if got.status != 0 || !strings.Contains(got.out, "DSorry, I couldn't find any host named") {
			t.Errorf("%s: %+v", e.Name(), got)
		}
	}
	if sets < 4 {
		t.Errorf("only %d sets", sets)
	}
}

// The start script and the crontab of doc/examples are those of INSTALL.md.
func TestExamples_scripts(t *testing.T) {
	script := filepath.Join("..", "doc", "examples", "run")
	if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	install := string(must.Get(os.ReadFile("../doc/INSTALL.md"))(t))
	crontab := string(must.Get(os.ReadFile("../doc/examples/crontab"))(t))
	lines := strings.Split(strings.TrimSpace(crontab), "\n")
	if line := lines[len(lines)-1]; !strings.Contains(install, "    "+line+"\n") {
		t.Errorf("INSTALL.md does not have %q", line)
	}
}
