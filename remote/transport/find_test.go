package transport

import (
	"os"
	"path/filepath"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

func TestFormOf(t *testing.T) {
	folder := t.TempDir()
	for name, test := range map[string]struct {
		text string
		want Form
	}{
		"script": {"#!/bin/sh\n", Script}, "bare": {"exec s6-tlsc \"$@\"\n", BareScript}, "empty": {"", BareScript}, "binary": {"\x7fELF\x02\x01\x01\x00", Binary},
	} {
		path := filepath.Join(folder, name)
		must.OK(t, os.WriteFile(path, []byte(test.text), 0o755))
		if got := FormOf(path); got != test.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	if got := FormOf(folder); got != Unknown {
		t.Errorf("a folder: got %v", got)
	}
}

func TestPaths(t *testing.T) {
	home, programs := t.TempDir(), t.TempDir()
	must.OK(t, os.Mkdir(filepath.Join(home, "bin"), 0o755))
	must.Script(t, filepath.Join(home, "bin", "client"), "")
	must.Script(t, filepath.Join(programs, "program"), "")
	c := &Carrier{Settings: &control.Settings{Home: home}, Programs: programs}
	if path, err := c.ProgramPath(&control.Protocol{Program: "program"}); path != filepath.Join(programs, "program") || err != nil {
		t.Errorf("got %q, %v", path, err)
	}
	if path, err := c.ClientPath("client"); path != filepath.Join(home, "bin", "client") || err != nil {
		t.Errorf("got %q, %v", path, err)
	}
	if _, err := c.ClientPath("missing"); err == nil {
		t.Error("a missing client is no error")
	}
}
