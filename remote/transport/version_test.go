package transport

import (
	"path/filepath"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

func TestProgramVersion(t *testing.T) {
	folder := t.TempDir()
	good, bad := filepath.Join(folder, "good"), filepath.Join(folder, "bad")
	must.Script(t, good, `test "$1" = --version && echo good 1`)
	must.Script(t, bad, "exit 3")
	if text, err := ProgramVersion(t.Context(), good); text != "good 1\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	for _, path := range []string{bad, filepath.Join(folder, "none")} {
		if text, err := ProgramVersion(t.Context(), path); text != "" || err == nil {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
}
