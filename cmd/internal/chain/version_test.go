package chain

import (
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func TestOrigin(t *testing.T) {
	const digits = "0123456789abcdef0123456789abcdef01234567"
	git := func(settings ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{Main: debug.Module{Version: "v0.0.0-20260102030405-fedcba987654+dirty"}}
		for i := 0; i < len(settings); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return info
	}
	module := func(version string) *debug.BuildInfo { return &debug.BuildInfo{Main: debug.Module{Version: version}} }
	for _, test := range []struct {
		name, stamped, made string
		info                *debug.BuildInfo
		want                string
	}{
		{"nothing", "$Format:%H %ct$", "", nil, "commit unknown"},
		{"no word", "", "", module("(devel)"), "commit unknown"},
		{"git archive", digits + " 1795680088", "", nil, "commit 0123456789ab of 2026-11-26"},
		{"git archive, inside another repository", digits + " 1795680088", "f" + digits + " 1", git("vcs.revision", "e"+digits, "vcs.time", "2001-02-03T04:05:06Z"), "commit 0123456789ab of 2026-11-26"},
		{"make", "$Format:%H %ct$", digits + " 1795737599", nil, "commit 0123456789ab of 2026-11-26"},
		{"make, the next day in UTC", "$Format:%H %ct$", digits + " 1795737600", nil, "commit 0123456789ab of 2026-11-27"},
		{"make, changed", "$Format:%H %ct$", digits + " 1795680088 modified", nil, "commit 0123456789ab of 2026-11-26, modified"},
		{"make without a commit", "$Format:%H %ct$", " ", nil, "commit unknown"},
		{"not seconds", digits + " yesterday", "", nil, "commit unknown"},
		{"too short", "0123 1795680088", "", nil, "commit unknown"},
		{"go install in a clone", "$Format:%H %ct$", "", git("vcs", "git", "vcs.revision", digits, "vcs.time", "2026-11-26T08:01:28Z", "vcs.modified", "false"), "commit 0123456789ab of 2026-11-26"},
		{"the same, changed", "$Format:%H %ct$", "", git("vcs.revision", digits, "vcs.time", "2026-11-26T08:01:28Z", "vcs.modified", "true"), "commit 0123456789ab of 2026-11-26, modified"},
		{"go install of a tag", "$Format:%H %ct$", "", module("v1.2.3"), "tag v1.2.3"},
		{"of a tag before a release", "$Format:%H %ct$", "", module("v1.2.3-rc.1"), "tag v1.2.3-rc.1"},
		{"of a commit, no tag before it", "$Format:%H %ct$", "", module("v0.0.0-20261126080128-0123456789ab"), "commit 0123456789ab of 2026-11-26"},
		{"of a commit after a tag", "$Format:%H %ct$", "", module("v1.2.4-0.20261126080128-0123456789ab"), "commit 0123456789ab of 2026-11-26"},
		{"of a commit after a tag before a release", "$Format:%H %ct$", "", module("v1.2.3-rc.1.0.20261126080128-0123456789ab"), "commit 0123456789ab of 2026-11-26"},
	} {
		if got := origin(test.stamped, test.made, test.info); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// The file that a release is made of is one line: a version in the form of semver.org,
// and what git archive fills in.
func TestStamp(t *testing.T) {
	text, err := os.ReadFile("stamp")
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`\A\d+\.\d+\.\d+(-(dev|rc\.\d+))? (\$Format:%H %ct\$|[0-9a-f]{40,} \d+)\n\z`)
	if !form.Match(text) {
		t.Errorf("stamp is %q", text)
	}
	if said := Version("mxf-x"); !strings.HasPrefix(said, "mxf-x "+strings.Fields(string(text))[0]+" (") {
		t.Errorf("%q", said)
	}
}
