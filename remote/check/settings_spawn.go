package check

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/regular"
)

// Facts of mxf-rspawn(8).
const (
	// spawnProcesses is how many processes of their own it has at a time, once its worker has
	// ended.
	spawnProcesses = 20
	// spawnFilesEach is how many descriptors it counts for each delivery, and spawnFiles how
	// many for itself.
	spawnFilesEach, spawnFiles = 4, 64
	// firstRetry is when qmail-send first tries a message again (qmail-send(8)).
	firstRetry = 400 * time.Second
)

// spawnOnly are the control files that only mxf-rspawn reads.
var spawnOnly = []string{"delnumbytes", "spawnlimit", "connectionlimits", "connectionidle", "connectionwait", "tlsresumption", "statusfile"}

// spawn looks at what mxf-rspawn goes by. isOurs: it is in place.
func (l *look) spawn(isOurs bool, running process) {
	if !isOurs {
		for _, name := range spawnOnly {
			if f := l.survey.File(name); f != nil && f.Info != nil {
				l.note(f.Name, 0, "only mxf-rspawn reads this file, and bin/qmail-rspawn is another program")
			}
		}
		return
	}
	if named := running.environ("QMAILREMOTE"); named != "" {
		l.warn("", 0, "take $QMAILREMOTE out of the script that starts qmail, and restart qmail-send",
			"$QMAILREMOTE is set: mxf-rspawn runs that program for each delivery, and deliveries share nothing")
	}
	if l.isBroken("delnumbytes", "spawnlimit") {
		return
	}
	l.spawnNumbers()
	l.spawnConnections()
	l.statusFile()
}

// slots is how many deliveries there are at a time.
func (l *look) slots() int { return min(l.survey.Spawn.Limit, l.survey.Spawn.Concurrency) }

// spawnNumbers compares what qmail-send and mxf-rspawn go by.
func (l *look) spawnNumbers() {
	s := l.survey.Spawn
	if s.NumberBytes == 2 {
		l.note("control/delnumbytes", 1, "2 is for a qmail-send with the big-concurrency patch, and stalls another one; its conf-spawn must not be below control/spawnlimit, %d", s.Limit)
	}
	if s.Concurrency <= s.Limit {
		return
	}
	do := fmt.Sprintf("lower it, or raise control/spawnlimit to at most conf-spawn of this qmail-send, and at most %d", control.MaxSpawnLimit2)
	if s.NumberBytes == 1 {
		do = fmt.Sprintf("lower it, or raise control/spawnlimit to at most %d; a qmail-send with the big-concurrency patch can have more, with 2 in control/delnumbytes", control.MaxSpawnLimit1)
	}
	l.warn("control/concurrencyremote", 1, do, "it is %d, and mxf-rspawn announces %d: there are no more deliveries at a time", s.Concurrency, s.Limit)
}

// spawnConnections looks at connectionlimits and connectionwait.
func (l *look) spawnConnections() {
	const file = "connectionlimits"
	slots := l.slots()
	half := max(slots/2, 1)
	for _, line := range l.survey.Sharing.Limits.Lines() {
		limit := line.Limit
		switch {
		case limit.Entry == "" && limit.Connections > half:
			l.note("control/"+file, limit.Line, "by the empty entry there are never more connections to one address than half of the %s, %d, and %d is more",
				plural(slots, "delivery", "deliveries"), half, limit.Connections)
		case limit.Entry == "":
		case limit.Connections > slots:
			l.note("control/"+file, limit.Line, "%s at a time: %d connections are never reached", plural(slots, "delivery", "deliveries"), limit.Connections)
		}
		if limit.Entry != "" {
			l.exchangerMatches(file, limit.Line, line.Exchanger)
		}
	}
	if wait := l.survey.Sharing.Wait; wait > firstRetry {
		l.note("control/connectionwait", 1, "a delivery can wait for a connection longer than for its next attempt, which comes after %d seconds, and keeps one of %s from others",
			int(firstRetry.Seconds()), plural(slots, "slot", "slots"))
	}
}

// statusFile looks at where the status file is made.
func (l *look) statusFile() {
	const file = "control/statusfile"
	path := l.survey.Sharing.StatusFile
	if path == "" {
		return
	}
	if err := regular.CanMake(path); err != nil {
		l.warn(file, 1, "give its folder to the user that delivers: install -d -o qmailr -g qmail -m 755 FOLDER",
			"no file can be made at %q, so there is no status: %v", path, withoutPath(err))
		return
	}
	if filepath.Dir(path) == filepath.Join(l.Home, "control") {
		l.warn(file, 1, "name a file in another folder", "the status file is among the control files, so that all of them are read again each time that it is written")
	}
}

// spawnFiles compares the limit on open files with what mxf-rspawn announces. It raises the soft
// limit itself.
func (l *look) spawnFiles(name string, has limit, concurrency int) {
	slots := uint64(min(l.survey.Spawn.Limit, concurrency))
	if needs := spawnFilesEach*slots + spawnFiles; has.hard < needs {
		l.warn("", 0, "raise softlimit -o, ulimit -Hn or LimitNOFILE= to "+strconv.FormatUint(needs, 10)+" "+limitsDo,
			"the hard limit of %s on open files is %d, so mxf-rspawn has fewer than %d deliveries at a time", name, has.hard, slots)
	}
}
