package chain

import (
	_ "embed"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// stamp is the version of the suite, and behind it the commit and the time of that in
// seconds since 1970. git archive writes these two (.gitattributes), so that a tree which
// has left git knows where it comes from. In git they are placeholders.
//
//go:embed stamp
var stamp string

// commit is the commit, its time in seconds and, where the tree differs from it, the word
// modified. The Makefile sets it where there is git:
// -ldflags "-X 'nightmare.mail/mxf/cmd/internal/chain.commit=1f2e... 1795680088'".
var commit string

// Version returns the line that a program prints for --version: its name, the suite's
// version, the commit with its date, Go's version.
func Version(program string) string {
	number, stamped, _ := strings.Cut(strings.TrimSpace(stamp), " ")
	info, _ := debug.ReadBuildInfo()
	return fmt.Sprintf("%s %s (%s, %s)", program, number, origin(stamped, commit, info), runtime.Version())
}

// origin says where a program comes from. What a tree was stamped with comes first: it may
// have been unpacked inside a repository of something else, which git and Go would ask.
func origin(stamped, made string, info *debug.BuildInfo) string {
	for _, known := range []string{stamped, made, repository(info)} {
		if said := ofCommit(known); said != "" {
			return said
		}
	}
	if info != nil && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return ofModule(info.Main.Version)
	}
	return "commit unknown"
}

// shortCommit is how many digits of a commit are shown, as in the versions that Go
// derives from one.
const shortCommit = 12

// ofCommit reads "COMMIT SECONDS [modified]". It returns nothing for anything else.
func ofCommit(text string) string {
	words := strings.Fields(text)
	if len(words) < 2 || len(words[0]) < shortCommit {
		return ""
	}
	seconds, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil {
		return ""
	}
	said := "commit " + words[0][:shortCommit] + " of " + time.Unix(seconds, 0).UTC().Format(time.DateOnly)
	if len(words) > 2 {
		said += ", modified"
	}
	return said
}

// repository returns what the go command found in git, in the words of ofCommit.
func repository(info *debug.BuildInfo) string {
	if info == nil {
		return ""
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	date, err := time.Parse(time.RFC3339, settings["vcs.time"])
	if err != nil {
		return ""
	}
	text := settings["vcs.revision"] + " " + strconv.FormatInt(date.Unix(), 10)
	if settings["vcs.modified"] == "true" {
		text += " modified"
	}
	return text
}

// ofModule reads the version of a module that the go command has fetched. One that Go
// derived from a commit ends in the commit's time and its first digits
// (https://go.dev/ref/mod#pseudo-versions); all others are tags.
func ofModule(version string) string {
	rest, digits, _ := cutLast(version, "-")
	_, at, _ := cutLast(strings.ReplaceAll(rest, "-", "."), ".")
	if date, err := time.Parse("20060102150405", at); err == nil && len(digits) == shortCommit {
		return "commit " + digits + " of " + date.Format(time.DateOnly)
	}
	return "tag " + version
}

func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}
