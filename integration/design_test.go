package integration

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// The map of the rooms in doc/DESIGN.md has each file of what is installed, and no other.
// The fakes of tests have no place there.
func TestDesign_map(t *testing.T) {
	text := must.Get(os.ReadFile("../doc/DESIGN.md"))(t)
	var mapped []string
	for line := range strings.Lines(string(text)) {
		cell := regexp.MustCompile(`^\| ([a-z0-9_/.-]+\.go(?:, [a-z0-9_.-]+\.go)*) \|`).FindStringSubmatch(line)
		if cell == nil {
			continue
		}
		folder := path.Dir(strings.Split(cell[1], ", ")[0])
		for _, name := range strings.Split(cell[1], ", ") {
			mapped = append(mapped, path.Join(folder, path.Base(name)))
		}
	}
	var files []string
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name = filepath.ToSlash(strings.TrimPrefix(name, "../"))
		switch {
		case d.IsDir() && (name == "integration" || strings.HasPrefix(d.Name(), ".git") || strings.HasSuffix(path.Base(name), "test")):
			return fs.SkipDir
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			files = append(files, name)
		}
		return nil
	})
	must.OK(t, err)
	for _, name := range files {
		if !slices.Contains(mapped, name) {
			t.Errorf("%s is not in the map", name)
		}
	}
	for i, name := range mapped {
		if !slices.Contains(files, name) {
			t.Errorf("the map has %s, which is not there", name)
		}
		if slices.Contains(mapped[:i], name) {
			t.Errorf("the map has %s twice", name)
		}
	}
}

// Every path that doc/DESIGN.md names is there. A control file is there if its manual page
// has it.
func TestDesign_paths(t *testing.T) {
	text, err := os.ReadFile("../doc/DESIGN.md")
	must.OK(t, err)
	manual, err := os.ReadFile("../doc/mxf-control.5")
	must.OK(t, err)
	entries, err := os.ReadDir("..")
	must.OK(t, err)
	var tops []string
	for _, e := range entries {
		if e.IsDir() {
			tops = append(tops, regexp.QuoteMeta(e.Name()))
		}
	}
	named := regexp.MustCompile(`(^|[^\w./-])((?:`+strings.Join(tops, "|")+`)/[\w/-]+(?:\.\w+)*)`).FindAllSubmatch(text, -1)
	const few = 100
	if len(named) < few {
		t.Errorf("only %d paths are found", len(named))
	}
	for _, match := range named {
		name := string(match[2])
		if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(name))); err == nil {
			continue
		}
		file, isControl := strings.CutPrefix(name, "control/")
		if !isControl || !regexp.MustCompile(`(?m)^\.It Pa (.* )?`+regexp.QuoteMeta(file)+`( |$)`).Match(manual) {
			t.Errorf("doc/DESIGN.md names %s, which is not there", name)
		}
	}
}
