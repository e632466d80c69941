package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/integration/target"
)

// billName is what the bill of materials of a target is called among its programs.
const billName = "mxf.cdx.json"

// licences are the licences of what is linked, by their SPDX identifiers. LICENSES has
// their texts.
var licences = map[string]string{
	"github.com/miekg/dns": "BSD-3-Clause",
	"golang.org/x/crypto":  "BSD-3-Clause",
	"golang.org/x/net":     "BSD-3-Clause",
	"golang.org/x/sys":     "BSD-3-Clause",
	"golang.org/x/text":    "BSD-3-Clause",
	library:                "BSD-3-Clause",
	ours:                   "ISC",
}

const (
	ours    = "nightmare.mail/mxf"
	library = "std" // what comes with Go
)

// A bill is a bill of materials in CycloneDX 1.6 (ECMA-424). It has no serial number: that
// would have to differ each time.
type bill struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Kind       string      `json:"type"`
	Ref        string      `json:"bom-ref"`
	Name       string      `json:"name"`
	Version    string      `json:"version"`
	Hashes     []hash      `json:"hashes,omitempty"`
	Licences   []licence   `json:"licenses"`
	PURL       string      `json:"purl,omitempty"`
	Properties []property  `json:"properties,omitempty"`
	Parts      []component `json:"components,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type licence struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// writeBill writes what the programs of a target are made of, as they say themselves.
func (s *source) writeBill(path string, t target.Target, programs []program) error {
	b, err := s.bill(t, programs)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), plain)
}

func (s *source) bill(t target.Target, programs []program) (*bill, error) {
	whole, err := newComponent("application", ours, s.version)
	if err != nil {
		return nil, err
	}
	whole.Properties = []property{{"commit", s.commit}, {"target", t.String()}}
	b := &bill{Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", Spec: "1.6", Version: 1}
	linked := make(map[string]component)
	of := dependency{Ref: whole.Ref}
	for _, p := range programs {
		one, on, err := s.part(p, linked)
		if err != nil {
			return nil, err
		}
		whole.Parts = append(whole.Parts, one)
		of.On = append(of.On, one.Ref)
		b.Dependencies = append(b.Dependencies, dependency{one.Ref, on})
	}
	b.Metadata = metadata{s.time.Format(time.RFC3339), whole}
	b.Dependencies = append(b.Dependencies, of)
	for _, ref := range slices.Sorted(maps.Keys(linked)) {
		b.Components = append(b.Components, linked[ref])
		b.Dependencies = append(b.Dependencies, dependency{ref, []string{}})
	}
	return b, nil
}

// part describes one program, and adds to linked what that is made of.
func (s *source) part(p program, linked map[string]component) (one component, on []string, err error) {
	if one, err = newComponent("application", ours, s.version); err != nil {
		return one, nil, err
	}
	content, err := sum(p.path)
	if err != nil {
		return one, nil, err
	}
	one.Ref, one.Name, one.PURL, one.Hashes = p.name, p.name, "", []hash{{"SHA-256", content}}
	on = []string{}
	if p.info == nil {
		return one, on, nil
	}
	modules := append([]*debug.Module{{Path: library, Version: strings.TrimPrefix(p.info.GoVersion, "go")}}, p.info.Deps...)
	slices.SortFunc(modules, func(a, b *debug.Module) int { return cmp.Compare(a.Path, b.Path) })
	for _, m := range modules {
		c, err := newComponent("library", m.Path, m.Version)
		if err != nil {
			return one, nil, err
		}
		if m.Sum != "" { // as in go.sum; it is no hash of one file
			c.Properties = []property{{"go.sum", m.Sum}}
		}
		linked[c.Ref] = c
		on = append(on, c.Ref)
	}
	return one, on, nil
}

func newComponent(kind, name, version string) (component, error) {
	id, known := licences[name]
	if !known {
		return component{}, fmt.Errorf("the licence of %s is not known; read it, and add it to the list", name)
	}
	c := component{Kind: kind, Name: name, Version: version, PURL: "pkg:golang/" + name + "@" + version}
	c.Ref = c.PURL
	c.Licences = make([]licence, 1)
	c.Licences[0].License.ID = id
	return c, nil
}
