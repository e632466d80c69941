package tlsc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// lookInterval is how often the files of the trust anchors are looked at: a new bundle
// counts within a second, and a thousand handshakes in a second cost one look.
const lookInterval = time.Second

// ErrNoAnchors says that no trust anchors are configured.
var ErrNoAnchors = errors.New("no trust anchors are configured")

// An AnchorsError says that the trust anchors cannot be used: it is our fault, not the
// server's, that nothing can be verified.
type AnchorsError struct {
	File string // the file or folder that is configured
	Err  error  // what is wrong
}

func (e *AnchorsError) Error() string { return anchorsUnusable + e.Err.Error() }
func (e *AnchorsError) Unwrap() error { return e.Err }

// WithoutPath is what is wrong, without the path of a file that cannot be opened: for
// those who say in their own words which file it is.
func (e *AnchorsError) WithoutPath() string {
	var failed *fs.PathError
	if errors.As(e.Err, &failed) && failed.Op == "open" {
		return failed.Err.Error()
	}
	return e.Err.Error()
}

// anchorsUnusable begins the reason of a verdict where it is our fault that nothing
// could be verified. It is the only sign of that in a chain of programs:
// cmd/internal/protocol knows it.
const anchorsUnusable = "cannot read trust anchors: "

// A reading is what reading the files of the trust anchors has given.
type reading struct {
	index  *index // nil: nothing that can be used
	err    error  // why not
	looked time.Time
	files  map[string]fs.FileInfo // as they were when looked at; nil: never looked at
}

// Load reads the trust anchors, if they have not been read. Handshake does it by itself;
// a caller does it before he gives up the right to read files, or to find out early
// that he cannot. Errors are *Error of KindSettings.
//
// A Client reads the files once, when a verdict first needs them, and after that only
// when they have changed: a file that was rewritten or replaced, a folder in which a
// file was added, removed, rewritten or replaced. It looks at them when a verdict needs
// them, at most once a second. If what is there then cannot be used (no such file, no
// permission, no certificate in it), the anchors that were read before stay in force: a
// bundle that is missing while it is being replaced must not stop the mail. To withdraw
// all trust, end the process or use another Client.
func (c *Client) Load() error {
	_, err := c.trustAnchors(context.Background(), func(string, ...any) {})
	return settings(err)
}

// A Trust stands for trust anchors as they were read, and is compared as == does.
type Trust struct{ index *index }

// Trust returns what stands for the trust anchors in force, which are looked at as Load says. Two
// connections that are verified by them have them in common where it is equal. Where there are none
// it is the zero Trust.
func (c *Client) Trust(ctx context.Context) Trust {
	x, _ := c.trustAnchors(ctx, func(string, ...any) {})
	return Trust{x}
}

// trustAnchors returns the anchors that are in force. It waits for another goroutine that
// reads them no longer than ctx lasts. The error is ErrNoAnchors or an *AnchorsError.
func (c *Client) trustAnchors(ctx context.Context, trace tracer) (*index, error) {
	if c.Anchors == (Anchors{}) {
		return nil, ErrNoAnchors
	}
	have := c.trusted.Load()
	switch {
	case c.fresh(have):
		return have.index, have.err
	case have == nil || have.index == nil:
		if err := c.looking.enter(ctx); err != nil {
			return nil, &AnchorsError{File: c.Anchors.String(), Err: fmt.Errorf("%s is not read in time: %w", c.Anchors, err)}
		}
	case !c.looking.tryEnter():
		return have.index, nil // somebody else is looking, perhaps at a slow disk
	}
	defer c.looking.leave()
	if have = c.trusted.Load(); !c.fresh(have) {
		have = c.look(have, trace)
		c.trusted.Store(have)
	}
	return have.index, have.err
}

// fresh reports whether have can be used without another look.
func (c *Client) fresh(have *reading) bool {
	if have == nil {
		return false
	}
	if have.index != nil && c.ReadOnce {
		return true
	}
	age := c.now().Sub(have.looked)
	return age >= 0 && age < lookInterval
}

// look reads the files, unless they are as they were. Where they are read once nobody needs
// to know how they were.
func (c *Client) look(have *reading, trace tracer) *reading {
	next := reading{looked: c.now()}
	if !c.ReadOnce {
		next.files = c.Anchors.glance()
	}
	if have != nil && have.index != nil && same(next.files, have.files) {
		next.index = have.index
		return &next
	}
	next.index, next.err = c.Anchors.read()
	if next.err != nil && have != nil && have.index != nil {
		trace("tls trust anchors stay as they were: %s", next.err)
		// With the old files, so that the next look reads again.
		next.index, next.err, next.files = have.index, nil, have.files
	}
	return &next
}

// glance is what shows of the files without reading them. It has the folder or file
// itself, and what is in the folder; what is not there, or cannot be looked at, is nil.
func (a Anchors) glance() map[string]fs.FileInfo {
	seen := make(map[string]fs.FileInfo)
	if a.Dir == "" {
		seen[a.File], _ = os.Stat(a.File)
		return seen
	}
	entries, err := os.ReadDir(a.Dir)
	if err != nil {
		seen[a.Dir] = nil
	}
	for _, entry := range entries {
		path := filepath.Join(a.Dir, entry.Name())
		seen[path], _ = os.Stat(path)
	}
	return seen
}

// same reports whether two glances show the same files. One that was never made shows
// none.
func same(a, b map[string]fs.FileInfo) bool {
	if a == nil || len(a) != len(b) {
		return false
	}
	for path, one := range a {
		other, there := b[path]
		switch {
		case !there, (one == nil) != (other == nil):
			return false
		case one == nil:
		case !os.SameFile(one, other), one.Size() != other.Size(), one.Mode() != other.Mode(), !one.ModTime().Equal(other.ModTime()):
			return false
		}
	}
	return true
}

// A gate lets one goroutine pass at a time, as a mutex does. Those who wait can give up.
// The zero gate is open.
type gate struct {
	made   sync.Once
	inside chan struct{} // has an element while a goroutine is inside
}

func (g *gate) channel() chan struct{} {
	g.made.Do(func() { g.inside = make(chan struct{}, 1) })
	return g.inside
}

// enter returns the error of ctx if that ends first.
func (g *gate) enter(ctx context.Context) error {
	select {
	case g.channel() <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) tryEnter() bool {
	select {
	case g.channel() <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g *gate) leave() { <-g.channel() }
