package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

// Each alert rule of doc/examples has what a rule needs, and asks for names and labels that the
// status file of mxf-rspawn has. Whether Prometheus reads the file, promtool says where there is one.
func TestExamples_alerts(t *testing.T) {
	const path = "../doc/examples/alerts.yml"
	if promtool, err := exec.LookPath("promtool"); err == nil {
		if out, err := exec.Command(promtool, "check", "rules", path).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	var text strings.Builder
	for line := range strings.Lines(string(must.Get(os.ReadFile(path))(t))) {
		if strings.Contains(line, "\t") {
			t.Errorf("%q: YAML has no tabs", line)
		}
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			text.WriteString(line)
		}
	}
	rules := strings.Split(text.String(), "      - alert: ")[1:]
	var asked []string
	for _, rule := range rules {
		name, rest, _ := strings.Cut(rule, "\n")
		for _, part := range []string{"        expr: ", "        labels:\n          severity: ", "        annotations:\n          summary: "} {
			if strings.Count(rest, part) != 1 {
				t.Errorf("%s does not have one %q", name, part)
			}
		}
		for _, word := range regexp.MustCompile(`\bmxf_rspawn_(\w+)`).FindAllStringSubmatch(rest, -1) {
			if _, known := statusMetrics[word[1]]; !known {
				t.Errorf("%s asks for %s", name, word[0])
			}
			asked = append(asked, word[1])
		}
		for _, match := range regexp.MustCompile(`\bmxf_rspawn_(\w+)\{([^}]*)\}`).FindAllStringSubmatch(rest, -1) {
			if !slices.Contains(statusMetrics[match[1]], match[2]) {
				t.Errorf("%s asks for %s", name, match[0])
			}
		}
		if strings.Count(rest, "(") != strings.Count(rest, ")") {
			t.Errorf("%s: a bracket is missing", name)
		}
	}
	for _, name := range []string{"worker_ends_total", "processes_total", "deferrals_total", "waiting", "limit"} {
		if !slices.Contains(asked, name) {
			t.Errorf("no rule asks for %s", name)
		}
	}
}
