package control

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"nightmare.mail/mxf/control/domain"
)

// The defaults of what deliveries of one process go by; qmail-send has the last one.
const (
	DefaultConnectionIdle = 5 * time.Second
	DefaultConnectionWait = 30 * time.Second
	DefaultQueueLifetime  = 604_800 * time.Second
)

const (
	// maxConnectionIdle is the longest that a connection is kept without use, in seconds: no
	// connection is used for longer.
	maxConnectionIdle = 300
	// maxConnectionWait is the longest that a delivery waits for a connection, in seconds:
	// qmail-send would have tried again by then.
	maxConnectionWait = 3600
)

// A Sharing is what the deliveries of one process go by: the files that mxf-rspawn reads beside
// those of mxf-remote.
type Sharing struct {
	Limits        ConnectionLimits
	Idle          time.Duration // connectionidle: how long a connection is kept without use, 0 to 300 s; 0: none is kept
	Wait          time.Duration // connectionwait: how long a delivery waits for a connection, 0 to 3,600 s; 0: not at all
	Resumption    bool          // tlsresumption: TLS sessions are resumed
	QueueLifetime time.Duration // queuelifetime as qmail-send reads it: a message that is older is at its last attempt
	StatusFile    string        // statusfile: absolute path; "": none
}

// ReadSharing reads the control files of a Sharing in home/control. The error is an *Error.
func ReadSharing(home string) (*Sharing, error) {
	d, err := openDir(home)
	if err != nil {
		return nil, err
	}
	s := new(Sharing)
	if err := d.readSharing(s); err != nil {
		return nil, err
	}
	return s, nil
}

// ReadStatusFile reads statusfile in home/control: an absolute path, "" if there is none. The
// error is an *Error.
func ReadStatusFile(home string) (string, error) {
	d, err := openDir(home)
	if err != nil {
		return "", err
	}
	return d.statusFile()
}

func (d dir) readSharing(s *Sharing) (err error) {
	if s.Limits, err = d.connectionLimits(); err != nil {
		return err
	}
	if s.Idle, err = d.secondsUpTo("connectionidle", DefaultConnectionIdle, maxConnectionIdle, "0 to keep no connection"); err != nil {
		return err
	}
	if s.Wait, err = d.secondsUpTo("connectionwait", DefaultConnectionWait, maxConnectionWait, "0 not to wait"); err != nil {
		return err
	}
	resumption, err := d.number("tlsresumption", 1, 1, "0 or 1")
	if err != nil {
		return err
	}
	s.Resumption = resumption == 1
	s.QueueLifetime = time.Duration(d.asQmail("queuelifetime", int64(DefaultQueueLifetime/time.Second))) * time.Second
	s.StatusFile, err = d.statusFile()
	return err
}

// secondsUpTo reads a file with a number of seconds from 0 to highest.
func (d dir) secondsUpTo(name string, missing time.Duration, highest int64, zero string) (time.Duration, error) {
	n, err := d.number(name, int64(missing/time.Second), highest, fmt.Sprintf("a whole number of seconds from 0 to %d, %s", highest, zero))
	return time.Duration(n) * time.Second, err
}

func (d dir) statusFile() (string, error) {
	const file = "statusfile"
	path, err := d.path(file)
	switch {
	case path == "" || err != nil:
		return "", err
	case !filepath.IsAbs(path):
		return "", d.malformed(file, 1, fmt.Sprintf("expected an absolute path, found %s", found(path)))
	case strings.HasSuffix(path, "/"):
		return "", d.malformed(file, 1, fmt.Sprintf("expected the path of a file, found that of a folder, %s", found(path)))
	}
	return path, nil
}

// The numbers of a line of connectionlimits: what those have that it leaves out, and without a
// line of the empty entry all of them; and the highest.
const (
	DefaultConnections = 20 // more than most servers take from one client
	DefaultMessages    = 100
	DefaultRecipients  = 100 // what every server must take (RFC 5321 4.5.3.1.8)

	maxConnections = 10_000 // a host has no more deliveries at a time
	maxMessages    = 10_000
	maxRecipients  = 1_000 // the answers to all of them have to be awaited at once
)

// A ConnectionLimit is one line of control/connectionlimits. It can be compared, and no two
// lines are equal.
type ConnectionLimit struct {
	Entry       string // the exchanger as written: a name, .suffix, or an address in brackets; "": each address for itself
	Connections int    // at a time: 1 to 10,000
	Messages    int    // over one connection: 1 to 10,000
	Recipients  int    // in one transaction: 1 to 1,000
	Line        int    // from 1; 0: the default, without a line
}

// ConnectionLimits are the lines of control/connectionlimits by exchanger.
type ConnectionLimits struct{ exchangers keyed[ConnectionLimit] }

func (d dir) connectionLimits() (limits ConnectionLimits, err error) {
	const file = "connectionlimits"
	data, err := d.read(file)
	if err != nil {
		return ConnectionLimits{}, err
	}
	err = d.entries(file, data, func(line int, entry string) string {
		key, limit, problem := parseConnectionLimit(entry)
		if problem != "" {
			return problem
		}
		limit.Line = line
		if !limits.exchangers.add(key, limit) { // the first of two lines stays
			d.all.idle(file, line, limits.exchangers[key].Line)
		}
		return ""
	})
	if err != nil {
		return ConnectionLimits{}, err
	}
	return limits, nil
}

// parseConnectionLimit parses exchanger:connections, with messages and recipients behind it or
// not. problem says what is wrong, and is "" if nothing is.
func parseConnectionLimit(entry string) (key string, limit ConnectionLimit, problem string) {
	wrong := func(problem string) (string, ConnectionLimit, string) { return "", ConnectionLimit{}, problem }
	field := allFields(entry)
	if len(field) < 2 || len(field) > 4 {
		return wrong("expected exchanger:connections, with :messages and :recipients behind it or not, and an address in brackets, found " + foundFields(field))
	}
	if key, problem = parseExchanger(field[0]); problem != "" {
		return wrong(problem)
	}
	limit = ConnectionLimit{Entry: field[0], Connections: DefaultConnections, Messages: DefaultMessages, Recipients: DefaultRecipients}
	for i, number := range []struct {
		of      *int
		highest int64
		what    string
	}{
		{&limit.Connections, maxConnections, "connections"}, {&limit.Messages, maxMessages, "messages"}, {&limit.Recipients, maxRecipients, "recipients"},
	}[:len(field)-1] {
		n, ok := decimal(field[i+1], number.highest)
		if !ok || n < 1 {
			return wrong(fmt.Sprintf("expected a whole number of %s from 1 to %d, found %s", number.what, number.highest, found(field[i+1])))
		}
		*number.of = int(n)
	}
	return key, limit, ""
}

// For returns what holds for an exchanger. exchanger is its name as the record or the route
// spells it, "" if it has none. The first of these that has a line wins: the address, the name,
// its suffixes from the longest, the empty entry. If no line fits it is the default, with line 0;
// if two lines are for the same, the first of them.
func (c ConnectionLimits) For(exchanger string, addr netip.Addr) ConnectionLimit {
	keys := []string{literalKey(addr)}
	if name, err := domain.Parse(exchanger); err == nil {
		keys = append(keys, nameKeys(name)...)
	}
	if limit, fits := c.exchangers.first(append(keys, "")); fits {
		return limit
	}
	return ConnectionLimit{Connections: DefaultConnections, Messages: DefaultMessages, Recipients: DefaultRecipients}
}

// A ConnectionLimitLine is one line of control/connectionlimits.
type ConnectionLimitLine struct {
	Exchanger string // a name, .suffix, an address in brackets, or "", in its one form
	Limit     ConnectionLimit
}

// Lines returns all lines that decide something.
func (c ConnectionLimits) Lines() []ConnectionLimitLine {
	var all []ConnectionLimitLine
	for exchanger, limit := range c.exchangers {
		all = append(all, ConnectionLimitLine{exchanger, limit})
	}
	return byLine(all, func(c ConnectionLimitLine) int { return c.Limit.Line })
}
