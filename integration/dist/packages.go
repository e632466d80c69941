package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"

	"nightmare.mail/mxf/integration/target"
)

// A format is a kind of package that nfpm makes.
type format struct {
	suffix string // of files; nfpm's name for it too
	// unreleased says in the words of the format that a version comes before the one
	// that it begins with.
	unreleased *strings.Replacer
}

var formats = []format{
	{"deb", strings.NewReplacer("-", "~")},
	{"rpm", strings.NewReplacer("-", "~")},
	{"apk", strings.NewReplacer("-dev", "_pre", "-rc.", "_rc")},
}

// beforeRemoval keeps a package on a host that delivers by it.
//
//go:embed before-removal
var beforeRemoval []byte

const (
	summary     = "outbound mail for qmail hosts: verified TLS, DANE, MTA-STS, QMTP, logins, DKIM"
	description = "mxf-remote takes the place of qmail-remote. This package puts it beside that and\n" +
		"changes nothing else; " + docFolder + "/INSTALL.md has the switch, and the way back."
)

// A recipe is what nfpm reads. (It reads YAML; JSON is YAML.)
type recipe struct {
	Name            string            `json:"name"`
	Arch            string            `json:"arch"`
	Platform        string            `json:"platform"`
	Version         string            `json:"version"`
	VersionSchema   string            `json:"version_schema"`
	Release         string            `json:"release"`
	Section         string            `json:"section"`
	Priority        string            `json:"priority"`
	Maintainer      string            `json:"maintainer"`
	Description     string            `json:"description"`
	Homepage        string            `json:"homepage"`
	License         string            `json:"license"`
	DisableGlobbing bool              `json:"disable_globbing"`
	Contents        []content         `json:"contents"`
	Scripts         map[string]string `json:"scripts"`
	RPM             map[string]string `json:"rpm"`
}

type content struct {
	Source      string    `json:"src,omitempty"`
	Destination string    `json:"dst"`
	Type        string    `json:"type,omitempty"`
	Info        ownership `json:"file_info"`
}

type ownership struct {
	Owner string `json:"owner"`
	Group string `json:"group"`
	Mode  int64  `json:"mode"`
}

// prepare builds nfpm, of the modules that integration/tools of the source names, and writes
// the script that goes into packages.
func (s *source) prepare(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", s.tool("nfpm"), "github.com/goreleaser/nfpm/v2/cmd/nfpm")
	cmd.Dir = place(s.dir, "integration/tools")
	cmd.Env = append(environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0", "GOOS=", "GOARCH=")
	if _, err := output(cmd); err != nil {
		return err
	}
	script := s.tool("before-removal")
	// nfpm gives scripts in .apk the time of their file.
	return errors.Join(os.WriteFile(script, beforeRemoval, executable), os.Chtimes(script, s.time, s.time))
}

// tool returns where prepare puts something.
func (s *source) tool(name string) string { return place(s.work, name) }

// pack has nfpm make a package of files.
func (s *source) pack(ctx context.Context, f format, t target.Target, path string, files []file) error {
	text, err := json.Marshal(s.recipe(f, t, files))
	if err != nil {
		return err
	}
	config := s.tool("recipe." + f.suffix)
	if err := os.WriteFile(config, text, plain); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, s.tool("nfpm"), "package", "--config", config, "--packager", f.suffix, "--target", path)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(s.time.Unix(), 10))
	_, err = output(cmd)
	return err
}

func (s *source) recipe(f format, t target.Target, files []file) recipe {
	r := recipe{
		Name: "mxf", Arch: t.Package, Platform: t.OS,
		Version: f.unreleased.Replace(s.version), VersionSchema: "none", Release: "1",
		Section: "mail", Priority: "optional", Maintainer: "the maintainers of mxf",
		Description: summary + "\n" + description,
		Homepage:    "https://" + ours, License: licences[ours],
		DisableGlobbing: true,
		Scripts:         map[string]string{"preremove": s.tool("before-removal")},
		RPM:             map[string]string{"buildhost": "localhost", "summary": summary},
	}
	if f.suffix == "apk" { // there a description is one line
		r.Description = summary
	}
	folders := make(map[string]bool)
	for _, one := range sorted(files) {
		folder := "/" + path.Dir(one.name)
		if strings.HasPrefix(folder, docFolder) && !folders[folder] { // the package's alone
			folders[folder] = true
			r.Contents = append(r.Contents, content{Destination: folder, Type: "dir", Info: ownership{"root", "root", executable}})
		}
		r.Contents = append(r.Contents, content{Source: one.path, Destination: "/" + one.name, Info: ownership{"root", "root", one.mode}})
	}
	return r
}
