package mtasts

import (
	"cmp"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// unusedAge is when a policy is forgotten that no delivery asks for: half a year.
	unusedAge = 180 * 24 * time.Hour
	// failedAge is when a failure is forgotten that keeps nothing away any more.
	failedAge = 24 * time.Hour
	// unfinishedAge is when a file was left behind by a process that died: no write takes an
	// hour.
	unfinishedAge = time.Hour
	// maxEntries bounds the cache: a folder that a stranger's domains have filled.
	maxEntries = 100000
	// dueAge is when a policy is fetched again before a delivery has to.
	dueAge = 12 * time.Hour
)

// Entries returns what the cache has, sorted by domain. What cannot be used is left out.
func (s *Store) Entries() ([]*Entry, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var entries []*Entry
	for _, name := range names {
		if e, err := s.Load(name); err == nil {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// names returns the policy domains that have a file.
func (s *Store) names() ([]string, error) {
	all, err := os.ReadDir(s.Folder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range all {
		if IsDomain(file.Name()) && file.Type().IsRegular() {
			names = append(names, file.Name())
		}
	}
	return names, nil
}

// Due reports whether e is to be fetched again by who does that for all policies.
func (s *Store) Due(e *Entry) bool {
	return e != nil && e.Policy != nil && e.Policy.Mode != None && s.now().Sub(e.Fetched) >= dueAge
}

// Sweep removes what nobody needs: policies that were not used for 180 days, failures
// without a policy after a day, files that are not finished after an hour, and what was
// not used for the longest time beyond 100,000 policies. A file whose lock somebody holds
// stays. Files that are none of the cache's stay too.
func (s *Store) Sweep() error { return s.sweep(maxEntries) }

func (s *Store) sweep(most int) error {
	if err := s.sweepUnfinished(); err != nil {
		return err
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	type kept struct {
		name string
		used time.Time
	}
	var left []kept
	for _, name := range names {
		if s.removeIf(name, s.useless) {
			continue
		}
		if info, err := os.Lstat(s.path(name)); err == nil {
			left = append(left, kept{name, info.ModTime()})
		}
	}
	slices.SortFunc(left, func(a, b kept) int { return cmp.Or(a.used.Compare(b.used), strings.Compare(a.name, b.name)) })
	for _, k := range left[:max(len(left)-most, 0)] {
		s.removeIf(k.name, func(info fs.FileInfo, _ *Entry) bool { return info.ModTime().Equal(k.used) })
	}
	return nil
}

func (s *Store) sweepUnfinished() error {
	all, err := os.ReadDir(s.Folder)
	if err != nil {
		return err
	}
	for _, file := range all {
		if !strings.HasPrefix(file.Name(), newPrefix) {
			continue
		}
		if info, err := file.Info(); err == nil && info.Mode().IsRegular() && s.now().Sub(info.ModTime()) > unfinishedAge {
			_ = os.Remove(s.path(file.Name()))
		}
	}
	return nil
}

// useless reports whether a file can go; e is nil for one that cannot be used.
func (s *Store) useless(info fs.FileInfo, e *Entry) bool {
	if s.now().Sub(info.ModTime()) > unusedAge {
		return true
	}
	return e != nil && e.Policy == nil && s.now().Sub(e.Failed.At) > failedAge
}

// removeIf removes the file of a domain if wanted says so under the lock of the domain:
// nobody else has replaced it by then.
func (s *Store) removeIf(domain string, wanted func(fs.FileInfo, *Entry) bool) (removed bool) {
	lookedAt := func() bool {
		info, err := os.Lstat(s.path(domain))
		if err != nil {
			return false
		}
		e, _ := s.Load(domain)
		return wanted(info, e)
	}
	if !lookedAt() {
		return false
	}
	lock, err := s.TryLock(domain)
	if err != nil {
		return false
	}
	defer lock.Unlock()
	return lookedAt() && os.Remove(s.path(domain)) == nil
}
