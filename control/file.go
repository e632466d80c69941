package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nightmare.mail/mxf/control/regular"
)

// Limits. Real control files are far below them.
const (
	MaxLine   = 4096     // bytes of a line without its newline
	MaxFile   = 1 << 20  // bytes of a file that is not a table of routes
	MaxRoutes = 64 << 20 // bytes of a table of routes: about 1,500,000 lines
)

// maxQuoted is how much of a file's text an error repeats, in bytes. A line of the log
// must have room for it and for what was expected.
const maxQuoted = 80

// An Error says what is wrong with a control file: its name below home, the line, and
// what was expected. For example
//
//	control/smtproutes:3: expected a port from 1 to 65535, found "smtp"
type Error struct {
	File string // for example control/smtproutes
	Line int    // from 1; 0: the file as a whole
	What string // what was expected, and what was found instead

	err error // of the operating system, if the file cannot be read
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.What) }

// Unwrap returns the operating system's error, or nil.
func (e *Error) Unwrap() error { return e.err }

// dir is home/control.
type dir struct {
	home string // absolute

	// all has what was found so far if all mistakes are wanted: see [ReadAll]. Then a mistake
	// is noted there and is no error, and the reader goes on as if there were no such line,
	// value or file.
	all *collector

	// seen notes what the files look like, for a [Reader]; nil: nobody does. It is an interface so
	// that programs without a Reader have nothing of it linked.
	seen observer
}

// An observer is told what a reading of control files does. Paths are absolute.
type observer interface {
	file(path string)                 // it is there, and about to be opened
	content(path string, data []byte) // this was read
	table(path string)                // it is not kept in memory, but read again for each look-up
}

func openDir(home string) (dir, error) {
	absolute, err := filepath.Abs(home)
	if err != nil {
		return dir{}, &Error{File: "control", What: fmt.Sprintf("expected an absolute home: %v", err), err: err}
	}
	return dir{home: absolute}, nil
}

func (d dir) name(file string) string { return d.home + "/control/" + file }

// malformed returns an *Error, or nil if all mistakes are wanted.
func (d dir) malformed(file string, line int, what string) error {
	return d.mistake(&Error{File: "control/" + file, Line: line, What: what})
}

func (d dir) unreadable(file string, err error) error { return d.unreadableAt(file, 0, err) }

// unreadableAt is unreadable for a file that a line of file names.
func (d dir) unreadableAt(file string, line int, err error) error {
	reason := err
	var p *fs.PathError
	if errors.As(err, &p) {
		reason = p.Err // Error names the file already
	}
	return d.mistake(&Error{File: "control/" + file, Line: line, What: fmt.Sprintf("expected a file that can be read: %v", reason), err: err})
}

// stat finds a control file without opening it: to open a FIFO is to wait for its
// writer. info is nil if there is no such file.
func (d dir) stat(file string) (info fs.FileInfo, err error) {
	// Most files are missing, and lstat sees that in one call.
	path := d.name(file)
	info, err = os.Lstat(path)
	d.all.file(file, info)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if d.seen != nil {
		d.seen.file(path)
	}
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, d.malformed(file, 0, "expected a file, found a symbolic link to nothing")
	case err != nil:
		return nil, d.unreadable(file, err)
	case info.IsDir():
		return nil, d.malformed(file, 0, "expected a file, found a directory")
	case !info.Mode().IsRegular():
		return nil, d.malformed(file, 0, "expected a regular file, found a device, FIFO or socket")
	}
	return info, nil
}

// read returns the content of a file of at most MaxFile bytes, with its lines checked.
// data is nil if and only if there is no such file.
func (d dir) read(file string) (data []byte, err error) {
	info, err := d.stat(file)
	if info == nil || err != nil {
		return nil, err
	}
	if info.Size() > MaxFile {
		return nil, d.tooLarge(file, MaxFile)
	}
	f, info, err := regular.OpenKnown(d.name(file), os.O_RDONLY, 0)
	if err != nil {
		return nil, d.unreadable(file, err)
	}
	defer f.Close()
	return d.readAll(file, f, info.Size())
}

// readAll reads f to its end, at most MaxFile bytes, and checks its lines. It had size
// bytes when it was opened, and may have changed since.
func (d dir) readAll(file string, f io.Reader, size int64) ([]byte, error) {
	data := bytes.NewBuffer(make([]byte, 0, min(size, MaxFile)+bytes.MinRead))
	n, err := data.ReadFrom(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, d.unreadable(file, err)
	}
	if n > MaxFile {
		return nil, d.tooLarge(file, MaxFile)
	}
	if d.seen != nil {
		d.seen.content(d.name(file), data.Bytes())
	}
	return data.Bytes(), d.checkLines(file, data.Bytes(), 0)
}

func (d dir) tooLarge(file string, limit int) error {
	return d.malformed(file, 0, fmt.Sprintf("expected a file of at most %d bytes, found a longer one", limit))
}

// checkLines checks what every control file must comply with. before is the number of
// lines before data.
func (d dir) checkLines(file string, data []byte, before int) error {
	rest, line := data, before+1
	for {
		i := bytes.IndexByte(rest, 0)
		if i < 0 {
			break
		}
		line += bytes.Count(rest[:i], []byte("\n"))
		if err := d.malformed(file, line, "expected text, found a zero byte"); err != nil {
			return err
		}
		rest = rest[i+1:]
	}
	for line := before + 1; len(data) > 0; line++ {
		n := bytes.IndexByte(data, '\n')
		if n < 0 {
			n = len(data)
		}
		if n > MaxLine {
			if err := d.tooLong(file, line); err != nil {
				return err
			}
		}
		data = data[min(n+1, len(data)):]
	}
	return nil
}

func (d dir) tooLong(file string, line int) error {
	return d.malformed(file, line, fmt.Sprintf("expected a line of at most %d bytes, found a longer one", MaxLine))
}

// value returns the value of a file with one value, "" if the file is missing.
func (d dir) value(file string) (string, error) {
	data, err := d.read(file)
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	value := string(trim(line))
	d.all.value(file, value)
	return value, nil
}

// entries calls each for every entry of a list. each returns what is wrong with the
// entry, or "".
func (d dir) entries(file string, data []byte, each func(line int, entry string) string) error {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		text = trim(bytes.TrimSuffix(text, []byte("\n")))
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		if problem := each(line, string(text)); problem != "" {
			if err := d.malformed(file, line, problem); err != nil {
				return err
			}
			continue
		}
		d.all.entry(file, line, text)
	}
	return nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// trim removes trailing blanks.
func trim(line []byte) []byte {
	for len(line) > 0 && isBlank(line[len(line)-1]) {
		line = line[:len(line)-1]
	}
	return line
}

// found returns what an error repeats of unexpected text: its first word. A report goes
// to the log and in the end to the sender, and a password may follow the word: other
// programs keep passwords in their routes.
func found(text string) string { return foundUpTo(text, strings.IndexAny(text, " \t\r|;")) }

// foundUpTo is found for a word that ends before byte end. If end is -1 the word is the
// whole text.
func foundUpTo(text string, end int) string {
	word := text
	if end >= 0 {
		word = text[:end]
	}
	switch {
	case strings.Contains(text, "@"): // user:password@host
		return "a word with an @, which is not shown here"
	case word == "" && text != "":
		return fmt.Sprintf("%q first", text[:1])
	case end >= 0:
		return fmt.Sprintf("%q and more behind it", clip(word))
	}
	return fmt.Sprintf("%q", clip(word))
}

// clip shortens a word that is too long to be repeated.
func clip(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	return strings.ToValidUTF8(s[:maxQuoted], "") + "..."
}
