package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/regular"
)

// Limits of INSTALL.md, section 4.
const (
	// leastSpace is what address space and data must have at least, in bytes. Go reserves far
	// more than it uses, and how much differs from version to version.
	leastSpace = 4 << 30
	// processesEach is how many threads one delivery can have, which count as processes.
	processesEach = 16
	// filesEach is how many descriptors qmail-rspawn has for one delivery.
	filesEach = 2
	// leastFiles is what a delivery needs for itself: 64 sockets for lookups, and connections.
	leastFiles = 128
)

// limitsDo is where a limit is set.
const limitsDo = "in the script that starts qmail (INSTALL.md, section 4), and restart qmail-send"

// maxProgram bounds what is read of a program to recognise it, in bytes. Ours have some 10 MB.
const maxProgram = 64 << 20

// A kind is whose program a file is.
type kind int

const (
	foreign kind = iota
	missing
	current // one of ours, the same as beside us
	older   // one of ours, of another version
	safe    // a script that runs ours
)

// qmail looks at whether mail goes by our programs, and whether they can run there.
func (l *look) qmail(context.Context) {
	if l.isCopy() {
		l.note("", 0, "%s has neither bin nor queue: it is taken for a copy of control files, and qmail's programs and tables of dead hosts were not looked at", l.Home)
		return
	}
	running := l.running("qmail-rspawn", "mxf-rspawn", "qmail-send")
	spawner := l.recognise(filepath.Join(l.Home, "bin", "qmail-rspawn"), "mxf-rspawn")
	isOurs := spawner != foreign && spawner != missing
	isSafe := isOurs // a crash of one delivery is temporary there, and so is one of all
	if isOurs {
		l.whose("bin/qmail-rspawn", spawner)
	} else {
		isSafe = l.installed(running)
	}
	l.spawn(isOurs, running)
	if l.Proc == "" {
		return
	}
	if running.folder == "" {
		l.note("", 0, "qmail-send does not run, or cannot be seen: the limits of its environment were not looked at")
		return
	}
	l.limits(running, isSafe, isOurs)
}

// isCopy reports whether the home is none, but control files that somebody tries.
func (l *look) isCopy() bool {
	for _, part := range []string{"bin", "queue"} {
		if _, err := os.Stat(filepath.Join(l.Home, part)); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// installed says which program qmail's own qmail-rspawn runs. isSafe: that is a script, after which an end that
// is not foreseen does not bounce.
func (l *look) installed(running process) (isSafe bool) {
	const do = "switch over as INSTALL.md, section 7, says"
	path, file := filepath.Join(l.Home, "bin", "qmail-remote"), "bin/qmail-remote"
	if named := running.environ("QMAILREMOTE"); named != "" {
		path, file = named, "$QMAILREMOTE"
	}
	k := l.recognise(path, "mxf-remote")
	switch k {
	case missing:
		l.fail("", 0, do, "there is no %s, and mail bounces", file)
	case foreign:
		l.warn("", 0, do, "%s is not ours: mail goes by another program", file)
	default:
		l.whose(file, k)
	}
	return k == safe
}

// whose says that one of ours is in place.
func (l *look) whose(file string, k kind) {
	switch k {
	case older:
		l.warn("", 0, "copy the program once more, and rename it into place (INSTALL.md, section 9)", "%s is ours, of another version", file)
	case safe:
		l.ok("", 0, "%s is a script that runs ours", file)
	default:
		l.ok("", 0, "%s is ours", file)
	}
}

// recognise finds out whose program a file is, without running it: it is the file of that name
// beside us, or a copy, or has the path of our source in it.
func (l *look) recognise(path, name string) kind {
	text, err := readProgram(path)
	if errors.Is(err, fs.ErrNotExist) {
		return missing
	}
	if err != nil {
		return foreign
	}
	if bytes.HasPrefix(text, []byte("#!")) {
		if bytes.Contains(text, []byte(name)) {
			return safe
		}
		return foreign
	}
	beside, err := readProgram(filepath.Join(l.Programs, name))
	switch {
	case err == nil && bytes.Equal(text, beside):
		return current
	case bytes.Contains(text, []byte("nightmare.mail/mxf/cmd/"+name)):
		return older
	}
	return foreign
}

func readProgram(path string) ([]byte, error) {
	f, _, err := regular.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxProgram))
}

// A process is one that runs, as /proc shows it.
type process struct{ folder, name string }

// running finds the first process of these names, the first name first. It is the zero process if
// there is none.
func (l *look) running(names ...string) (best process) {
	if l.Proc == "" {
		return best
	}
	rank := len(names)
	entries, err := os.ReadDir(l.Proc)
	if err != nil {
		return best
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		folder := filepath.Join(l.Proc, e.Name())
		comm, err := os.ReadFile(filepath.Join(folder, "comm"))
		if err != nil {
			continue
		}
		for i, name := range names[:rank] {
			if strings.TrimSpace(string(comm)) == name {
				best, rank = process{folder, name}, i
				break
			}
		}
	}
	return best
}

// environ returns a variable of the process, "" if it has none, or if that cannot be seen.
func (p process) environ(name string) string {
	if p.folder == "" {
		return ""
	}
	all, err := os.ReadFile(filepath.Join(p.folder, "environ"))
	if err != nil {
		return ""
	}
	for variable := range strings.SplitSeq(string(all), "\x00") {
		if value, found := strings.CutPrefix(variable, name+"="); found {
			return value
		}
	}
	return ""
}

// A limit is one line of /proc/PID/limits, proc_pid_limits(5).
type limit struct {
	soft   uint64
	finite bool   // soft is
	hard   uint64 // math.MaxUint64: there is none
}

// limits returns the limits of the process by their names.
func (p process) limits() (map[string]limit, error) {
	text, err := os.ReadFile(filepath.Join(p.folder, "limits"))
	if err != nil {
		return nil, err
	}
	all := map[string]limit{}
	for line := range strings.SplitSeq(string(text), "\n") {
		for _, name := range []string{"Max address space", "Max data size", "Max processes", "Max open files"} {
			rest, found := strings.CutPrefix(line, name)
			fields := strings.Fields(rest)
			if !found || len(fields) < 2 {
				continue
			}
			one := limit{hard: math.MaxUint64}
			soft, err := strconv.ParseUint(fields[0], 10, 64)
			one.soft, one.finite = soft, err == nil // "unlimited" is no number
			if hard, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
				one.hard = hard
			}
			all[name] = one
		}
	}
	return all, nil
}

// limits compares the limits of what runs with what our programs need. isOurs: that is mxf-rspawn.
func (l *look) limits(p process, isSafe, isOurs bool) {
	concurrency, err := control.ReadConcurrencyRemote(l.Home)
	if err != nil {
		l.failFor(err)
		return
	}
	all, err := p.limits()
	if err != nil {
		l.note("", 0, "the limits of %s cannot be seen: %v", p.name, withoutPath(err))
		return
	}
	level, ends := Error, "mail bounces where it is reached"
	if isSafe {
		level, ends = Warning, "mail waits where it is reached"
	}
	before := len(l.findings)
	for _, space := range []struct{ name, do string }{
		{"Max address space", "remove softlimit -a, softlimit -m, ulimit -v or LimitAS= "}, {"Max data size", "remove softlimit -d, softlimit -m, ulimit -d or LimitDATA= "},
	} {
		if has := all[space.name]; has.finite && has.soft < leastSpace {
			l.add(level, "", 0, space.do+limitsDo, fmt.Sprintf("the limit of %s on %s is %d bytes, and our programs reserve more: %s", p.name, words(space.name), has.soft, ends))
		}
	}
	processes := concurrency
	if isOurs {
		processes = min(concurrency, spawnProcesses) + 1 // and the worker
	}
	if has, needs := all["Max processes"], uint64(processesEach*processes); has.finite && has.soft < needs {
		l.add(level, "", 0, fmt.Sprintf("raise ulimit -u or LimitNPROC= to %d %s", needs, limitsDo),
			fmt.Sprintf("the limit of %s on processes is %d, and control/concurrencyremote %d can need %d, since threads count: %s", p.name, has.soft, concurrency, needs, ends))
	}
	if isOurs {
		l.spawnFiles(p.name, all["Max open files"], concurrency)
	} else if has, needs := all["Max open files"], uint64(max(filesEach*concurrency+processesEach, leastFiles)); has.finite && has.soft < needs {
		l.warn("", 0, fmt.Sprintf("raise softlimit -o, ulimit -n or LimitNOFILE= to %d %s", needs, limitsDo),
			"the limit of %s on open files is %d, and control/concurrencyremote %d can need %d", p.name, has.soft, concurrency, needs)
	}
	if len(l.findings) == before {
		l.ok("", 0, "the limits of %s are high enough for control/concurrencyremote %d", p.name, concurrency)
	}
}

// words are the name of a limit within a sentence.
func words(limit string) string { return strings.ToLower(strings.TrimPrefix(limit, "Max ")) }
