package mtasts

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/regular"
)

const (
	// LockWait is how long a delivery waits for another one that fetches the same policy:
	// FetchLimit, and what it takes to store it.
	LockWait = 35 * time.Second
	// FetchLimit is how long a fetch may take, with everything.
	FetchLimit = 30 * time.Second

	// lockPause separates two looks at a lock. The system cannot wait with a limit.
	lockPause = 20 * time.Millisecond
	// useStep is how exactly the last use is known: one write a day and domain.
	useStep = 24 * time.Hour

	newPrefix  = ".new-"
	lockPrefix = ".lock-"
)

// A Store is the cache of policies: a folder with one file for each policy domain. Any
// number of processes and goroutines may use one folder at a time.
type Store struct {
	Folder string           // absolute
	Now    func() time.Time // the clock; nil: time.Now
	Rand   io.Reader        // names of files that are not finished; nil: crypto/rand
	// ReadOnly is for who only wants to know: Find writes nothing and takes no lock. What its
	// fetch brings is not stored either, if fetch does not store it.
	ReadOnly bool
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Check returns nil for a folder that can be used. The error is what a control file that names
// the folder is told.
func (s *Store) Check() error {
	if err := s.check(); err != nil {
		return fmt.Errorf("expected a folder that this process can read and write, and nobody else can write, found %q: %w", s.Folder, err)
	}
	return nil
}

func (s *Store) check() error {
	info, err := os.Stat(s.Folder)
	if err == nil && info.IsDir() {
		err = unix.Faccessat(unix.AT_FDCWD, s.Folder, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	var failed *fs.PathError
	switch {
	case errors.As(err, &failed):
		return failed.Err
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New("it is not a folder")
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("its mode is %04o", info.Mode().Perm())
	}
	return nil
}

// ParseDomain returns a policy domain as the cache has it: in A-labels and lower case,
// without the final dot. It is "" for a text that is none, such as an address.
func ParseDomain(text string) string {
	d, err := domain.Parse(text)
	if err != nil || d.Addr().IsValid() || len(d.String()) > MaxDomain {
		return ""
	}
	return d.String()
}

// IsDomain reports whether name is a policy domain as the cache has it.
func IsDomain(name string) bool { return name != "" && ParseDomain(name) == name }

func (s *Store) path(domain string) string { return filepath.Join(s.Folder, domain) }

// errName is the error for what is no policy domain, which must not become a file name.
var errName = errors.New("it is not a policy domain")

// Load returns what the cache has about a domain. It is nil where that cannot be used:
// there is no such file, or it is malformed. Then err is why.
func (s *Store) Load(domain string) (*Entry, error) {
	if !IsDomain(domain) {
		return nil, errName
	}
	f, info, err := regular.Open(s.path(domain), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEntry+1))
	if err != nil {
		return nil, err
	}
	e, err := ParseEntry(domain, data, s.now())
	if err != nil {
		return nil, err
	}
	e.Used = info.ModTime()
	return e, nil
}

// Save stores e for good, or leaves the cache as it was. The last use is e.Used, or now if
// that is zero.
func (s *Store) Save(e *Entry) (err error) {
	if !IsDomain(e.Domain) {
		return errName
	}
	random := make([]byte, 8)
	source := s.Rand
	if source == nil {
		source = crand.Reader
	}
	if _, err := io.ReadFull(source, random); err != nil {
		return err
	}
	path := filepath.Join(s.Folder, fmt.Sprintf("%s%x", newPrefix, random))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	_, err = f.Write(e.Encode())
	// The mode is what others rely on, whatever the umask is.
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	used := e.Used
	if used.IsZero() {
		used = s.now()
	}
	if err := os.Chtimes(path, used, used); err != nil {
		return err
	}
	return os.Rename(path, s.path(e.Domain))
}

// Touch notes that a delivery has used e, if that is not known since a day. It is no
// matter if that fails: the file may be gone by now.
func (s *Store) Touch(e *Entry) {
	if now := s.now(); now.Sub(e.Used) > useStep {
		_ = os.Chtimes(s.path(e.Domain), now, now)
	}
}

// Fetched stores a policy that was just fetched. The entry is good also where it cannot be
// stored, which is the error. used is the last use; zero: now.
func (s *Store) Fetched(domain, id, text string, policy *Policy, used time.Time) (*Entry, error) {
	e := &Entry{Domain: domain, ID: id, Fetched: time.Unix(s.now().Unix(), 0), Text: text, Policy: policy, Used: used}
	return e, s.Save(e)
}

// FetchFailed stores that an attempt failed, beside the policy that the cache has. It is
// like Fetched otherwise.
func (s *Store) FetchFailed(domain string, failure *Failure, used time.Time) (*Entry, error) {
	e := &Entry{Domain: domain}
	if old, _ := s.Load(domain); old != nil {
		*e = *old
	}
	e.Failed, e.Used = failure, used
	return e, s.Save(e)
}

// A Lock keeps others from fetching the policy of a domain, and of one in 256 others.
type Lock struct{ file *os.File }

// Unlock lets others in. The nil Lock may be unlocked.
func (l *Lock) Unlock() {
	if l != nil {
		l.file.Close()
	}
}

// ErrBusy says that somebody else holds a lock.
var ErrBusy = errors.New("somebody else is fetching")

// TryLock takes the lock of a domain if it is free. Otherwise the error is ErrBusy, or
// why there can be no lock.
func (s *Store) TryLock(domain string) (*Lock, error) {
	sum := sha256.Sum256([]byte(domain))
	f, _, err := regular.Open(filepath.Join(s.Folder, fmt.Sprintf("%s%02x", lockPrefix, sum[0])), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil {
		return &Lock{f}, nil
	}
	f.Close()
	if err == unix.EWOULDBLOCK {
		return nil, ErrBusy
	}
	return nil, err
}

// Lock waits for the lock of a domain until ctx ends; then the error is ErrBusy.
func (s *Store) Lock(ctx context.Context, domain string) (*Lock, error) {
	for {
		lock, err := s.TryLock(domain)
		if err != ErrBusy {
			return lock, err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, ErrBusy
		}
	}
}

// A Finding is the policy that holds for a delivery, and how it came about.
type Finding struct {
	Holds   *Entry   // nil: there is no policy
	Fetched bool     // this delivery has fetched it
	Failed  *Failure // this delivery has tried to fetch it in vain; nil: it has not
	Why     string   // for the trace
}

// Policy returns the policy that holds, or nil: mode none is as no policy.
func (f *Finding) Policy() *Policy {
	if f.Holds == nil || f.Holds.Policy.Mode == None {
		return nil
	}
	return f.Holds.Policy
}

// String is for the trace: the mode, whether it was fetched, the id, and why.
func (f *Finding) String() string {
	var b strings.Builder
	if f.Holds == nil {
		b.WriteString("none")
	} else {
		b.WriteString(f.Holds.Policy.Mode.String() + map[bool]string{false: " cached ", true: " fetched "}[f.Fetched] + f.Holds.ID)
	}
	if f.Failed != nil {
		return b.String() + ": " + f.Failed.Error()
	}
	return b.String() + ": " + f.Why
}

// Find returns the policy that holds for a delivery to domain, whose TXT record has id, ""
// for none and for no answer. Where a policy must be fetched it calls fetch, with the lock
// of the domain held. fetch stores what it fetched, and that it failed, and returns
// the entry, or a failure with or without one.
func (s *Store) Find(ctx context.Context, domain, id string, fetch func(ctx context.Context, domain, id string) (*Entry, *Failure)) Finding {
	if !IsDomain(domain) {
		return Finding{Why: errName.Error()}
	}
	e, _ := s.Load(domain)
	if e != nil && !s.ReadOnly {
		s.Touch(e)
	}
	d := Decide(e, id, s.now())
	switch {
	case d.Fetch == NoFetch:
		return Finding{Holds: d.Holds, Why: d.Why}
	case s.ReadOnly:
		return d.take(fetch(ctx, domain, d.ID))
	}
	lock, err := s.lockFor(ctx, d.Fetch, domain)
	if errors.Is(err, ErrBusy) || err != nil && d.Fetch == FetchIfFree {
		return Finding{Holds: d.Holds, Why: d.Why + ", " + err.Error()}
	}
	// A policy that is missing is fetched without a lock too, as on a full disk: that costs
	// connections, but mail is protected.
	defer lock.Unlock()
	// Who had the lock before may have fetched it.
	e, _ = s.Load(domain)
	if d = Decide(e, id, s.now()); d.Fetch == NoFetch {
		return Finding{Holds: d.Holds, Why: d.Why}
	}
	return d.take(fetch(ctx, domain, d.ID))
}

// take is the finding of a decision to fetch.
func (d *Decision) take(fetched *Entry, failed *Failure) Finding {
	if failed != nil || fetched == nil || fetched.Policy == nil {
		return Finding{Holds: d.Holds, Failed: failed, Why: d.Why}
	}
	return Finding{Holds: fetched, Fetched: true, Why: d.Why}
}

func (s *Store) lockFor(ctx context.Context, wanted Fetch, domain string) (*Lock, error) {
	if wanted == FetchIfFree {
		return s.TryLock(domain)
	}
	ctx, cancel := context.WithTimeout(ctx, LockWait)
	defer cancel()
	return s.Lock(ctx, domain)
}
