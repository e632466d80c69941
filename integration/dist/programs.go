package main

import (
	"context"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"

	"nightmare.mail/mxf/integration/target"
)

// docFolder is where packages put what is to be read.
const docFolder = "/usr/share/doc/mxf"

// home is the qmail home of what is released.
const home = "/var/qmail"

// A program is one file that make has built.
type program struct {
	name string
	path string
	info *buildinfo.BuildInfo // nil: a script
}

// build has make build the programs of a target, and looks at them.
func (s *source) build(ctx context.Context, t target.Target) ([]program, error) {
	bin := place(s.work, t.String())
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", s.dir, "all", "BIN="+bin, "HOME_DIR="+home)
	cmd.Env = append(environ(), t.Environ()...)
	if _, err := output(cmd); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(bin)
	if err != nil {
		return nil, err
	}
	var programs []program
	for _, e := range entries {
		p := program{name: e.Name(), path: place(bin, e.Name())}
		switch {
		case e.Name() == remembered:
			continue
		case !s.isScript(e.Name()):
			if p.info, err = s.inspect(p.path, t); err != nil {
				return nil, fmt.Errorf("%s: %w", e.Name(), err)
			}
		}
		programs = append(programs, p)
	}
	return programs, nil
}

// remembered is the file in which make keeps the home that it has built for.
const remembered = ".home"

// environ is this program's environment without what make and the make above it would read.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(assignment string) bool {
		switch name, _, _ := strings.Cut(assignment, "="); name {
		case "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "HOME_DIR", "BIN", "DESTDIR", "MAN_DIR", "DOC_DIR", "GO":
			return true
		}
		return false
	})
}

func (s *source) isScript(name string) bool {
	_, err := os.Stat(place(s.dir, "scripts/"+name))
	return err == nil
}

// inspect returns what a program is made of. It must be for the target, static on Linux,
// and of nothing whose licence is not released with it.
func (s *source) inspect(path string, t target.Target) (*buildinfo.BuildInfo, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for _, want := range append(t.Environ()[:3:3], t.Level) {
		name, value, _ := strings.Cut(want, "=")
		for _, setting := range info.Settings {
			if setting.Key == name && setting.Value != value {
				return nil, fmt.Errorf("built with %s=%s, want %s", name, setting.Value, want)
			}
		}
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			return nil, fmt.Errorf("%s is replaced by %s", m.Path, m.Replace.Path)
		}
		if _, err := os.Stat(place(s.dir, licenceFile(m.Path))); err != nil {
			return nil, fmt.Errorf("the licence of %s: %w", m.Path, err)
		}
	}
	if t.OS == "linux" {
		err = static(path)
	}
	return info, err
}

// licenceFile is where the licence of a module is in the source.
func licenceFile(module string) string {
	return "LICENSES/" + strings.ReplaceAll(module, "/", "_") + "_LICENSE"
}

func static(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			return fmt.Errorf("a dynamic executable")
		}
	}
	return nil
}

// archived returns what is in the archive of a target. It has the folders of the source, so
// that what README and INSTALL.md say is right there too, make install among it.
func (s *source) archived(programs []program, bill string) []file {
	var files []file
	for _, p := range programs {
		files = append(files, file{"bin/" + p.name, p.path, executable})
	}
	files = append(files,
		file{"bin/" + remembered, place(path.Dir(programs[0].path), remembered), plain},
		file{billName, bill, plain})
	for _, f := range s.files {
		if released(f.name) {
			files = append(files, f)
		}
	}
	return files
}

// released reports whether a file of the source is of use where the programs are.
func released(name string) bool {
	folder, _, _ := strings.Cut(name, "/")
	switch folder {
	case "LICENSE", "LICENSES", "README.md", "Makefile", "doc":
		return true
	}
	return false
}

// installed returns what a package puts where on a host.
func (s *source) installed(programs []program, bill string) []file {
	doc := strings.TrimPrefix(docFolder, "/") + "/"
	var files []file
	for _, p := range programs {
		files = append(files, file{strings.TrimPrefix(home, "/") + "/bin/" + p.name, p.path, executable})
	}
	files = append(files, file{doc + billName, bill, plain})
	for _, f := range s.files {
		name := f.name
		switch section := strings.TrimPrefix(path.Ext(name), "."); {
		case path.Dir(name) == "doc" && (section == "5" || section == "8"):
			name = "usr/share/man/man" + section + "/" + path.Base(name)
		case !released(name) || name == "Makefile":
			continue
		default:
			name = doc + strings.TrimPrefix(name, "doc/")
		}
		files = append(files, file{name, f.path, f.mode})
	}
	return files
}
