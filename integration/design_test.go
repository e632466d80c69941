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
)

// The map of the rooms in doc/DESIGN.md has each file of what is installed, and no other.
// The fakes of tests have no place there.
func TestDesign_map(t *testing.T) {
	text, err := os.ReadFile("../doc/DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
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
	err = filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
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
	if err != nil {
		t.Fatal(err)
	}
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
