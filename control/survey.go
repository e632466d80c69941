package control

import (
	"cmp"
	"io/fs"
	"slices"
)

const (
	// maxMistakes bounds the mistakes that are told of one file: a table in the format of
	// another program has a million, and nobody reads more than these.
	maxMistakes = 50
	// maxEntries bounds the entries of one file that are kept for people.
	maxEntries = 50
)

// A Survey is what all control files of a home have, and all that is wrong with them.
type Survey struct {
	// Settings are as Read returns them. A line with a mistake is left out. A file that cannot
	// be read, and a value that is malformed, are as if they were missing.
	Settings    *Settings
	Credentials Credentials

	// What mxf-rspawn reads besides, likewise.
	Spawn   Spawn
	Sharing *Sharing

	// Mistakes are in the order in which the files are read, then by line. Of one file there
	// are 50 at most, and one more that says so.
	Mistakes []*Error

	// Files has every file that was looked for, in the order in which they are read.
	Files []*File
}

// A File is one control file that was looked for.
type File struct {
	Name    string      // below home, for example control/smtproutes
	Info    fs.FileInfo // nil: there is no such file, or it cannot be looked at
	Value   string      // of a file with one value: as it was read; "": it takes its default
	Entries []Entry     // of a list: the first 50; of one with secrets: none
	Count   int         // number of entries, with those beyond Entries
	Idle    []Idle      // entries that decide nothing, because another has the same key
	IsList  bool
}

// An Entry is one line of a list without mistakes.
type Entry struct {
	Line int // from 1; of a default that stands for a missing file, too
	Text string
}

// An Idle is a line that decides nothing, and the line that decides in its place.
type Idle struct{ Line, By int }

// File returns the file of a name such as smtproutes, nil if it was not looked for.
func (s *Survey) File(name string) *File {
	for _, f := range s.Files {
		if f.Name == "control/"+name {
			return f
		}
	}
	return nil
}

// HasMistakes reports whether something is wrong with a file; name is as for File.
func (s *Survey) HasMistakes(name string) bool {
	return slices.ContainsFunc(s.Mistakes, func(e *Error) bool { return e.File == "control/"+name })
}

// ReadAll reads every control file that some program of the suite reads in home/control, by
// the readers that [Read] has, and goes on after each mistake. It opens no file that others
// name. The error is an *Error for a home that has no path.
func ReadAll(home string) (*Survey, error) {
	d, err := openDir(home)
	if err != nil {
		return nil, err
	}
	d.all = newCollector()
	all := &Survey{Settings: &Settings{Home: d.home}, Sharing: new(Sharing)}
	// All that these return is noted.
	_ = d.readInto(all.Settings)
	if data, _, err := d.readCredentials(); err == nil {
		all.Credentials, _ = d.parseCredentials(data)
	}
	all.Spawn, _ = d.readSpawn()
	_ = d.readSharing(all.Sharing)
	if d.all.names["me"] == nil { // helohost has a value, and what me has does not matter
		info, _ := d.plain().stat("me")
		d.all.file("me", info)
	}
	all.Files = d.all.files
	for _, f := range all.Files {
		if m := d.all.wrong[f.Name]; m != nil {
			all.Mistakes = append(all.Mistakes, m.sorted()...)
		}
	}
	return all, nil
}

// plain is d for a value that outlives the reading: its mistakes are errors.
func (d dir) plain() dir { return dir{home: d.home} }

// mistake returns e, or notes it and returns nil if all mistakes are wanted.
func (d dir) mistake(e *Error) error {
	if d.all == nil {
		return e
	}
	m := d.all.wrong[e.File]
	if m == nil {
		m = new(mistakes)
		d.all.wrong[e.File] = m
	}
	m.add(e)
	return nil
}

// A collector has what ReadAll has found so far. A nil one collects nothing.
type collector struct {
	files []*File
	names map[string]*File     // the same by name, such as smtproutes
	wrong map[string]*mistakes // by Error.File
}

func newCollector() *collector {
	return &collector{names: map[string]*File{}, wrong: map[string]*mistakes{}}
}

// file notes that a file was looked for.
func (c *collector) file(file string, info fs.FileInfo) {
	if c == nil || c.names[file] != nil {
		return
	}
	c.names[file] = &File{Name: "control/" + file, Info: info}
	c.files = append(c.files, c.names[file])
}

func (c *collector) value(file, value string) {
	if c != nil && c.names[file] != nil {
		c.names[file].Value = value
	}
}

// entry notes an entry of a list that is in order.
func (c *collector) entry(file string, line int, text []byte) {
	if c == nil {
		return
	}
	f := c.names[file]
	if f == nil {
		return
	}
	f.IsList = true
	if m := c.wrong[f.Name]; m != nil && m.has(line) {
		return // it is too long, or not text
	}
	if f.Count++; len(f.Entries) < maxEntries && file != "credentials" {
		f.Entries = append(f.Entries, Entry{line, string(text)})
	}
}

// idle notes an entry that decides nothing.
func (c *collector) idle(file string, line, by int) {
	if c == nil {
		return
	}
	if f := c.names[file]; f != nil && len(f.Idle) < maxMistakes {
		f.Idle = append(f.Idle, Idle{line, by})
	}
}

// has reports whether a mistake of a file was noted.
func (c *collector) has(file string) bool { return c != nil && c.wrong["control/"+file] != nil }

// mistakes are those of one file.
type mistakes struct {
	list []*Error
	more int // the line where the first stands that is not in list; 0: there are no more
}

func (m *mistakes) has(line int) bool {
	return slices.ContainsFunc(m.list, func(e *Error) bool { return e.Line == line })
}

// add notes e, unless it follows from what is noted: of a line its first mistake counts, and
// that a file has no entries may be because all of them are malformed.
func (m *mistakes) add(e *Error) {
	switch {
	case e.Line == 0 && len(m.list) > 0, m.has(e.Line):
	case len(m.list) == maxMistakes:
		if m.more == 0 || e.Line < m.more {
			m.more = e.Line
		}
	default:
		m.list = append(m.list, e)
	}
}

func (m *mistakes) sorted() []*Error {
	slices.SortStableFunc(m.list, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	if m.more == 0 {
		return m.list
	}
	return append(m.list, &Error{File: m.list[0].File, Line: m.more, What: "expected fewer mistakes: those from here on are not shown"})
}
