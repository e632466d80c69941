package control

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// A Set is all control files at one time. Nobody may change it.
type Set struct {
	*Settings
	*Sharing
}

// A Reader reads all control files again and again, for one process with many deliveries. It
// notices each change without a signal, and reads nothing while nothing has changed. Many may
// use it at once.
//
// Looked at are the folder and all files that the readers of [Read], [ReadSharing] and
// [ReadCredentials] look for, through symbolic links. A change that the system tells us nothing
// of is not seen: on NFS that can be for as long as attributes are kept (nfs(5), acregmax).
type Reader struct {
	// Now is the clock by which the system stamps files; nil: time.Now.
	Now func() time.Time

	dir dir
	err error // of NewReader

	asked  atomic.Uint64 // calls of Read that have begun
	mu     sync.Mutex    // for all below
	served uint64        // the calls that have begun when the answer of now was looked at, or before
	answer answer
	last   *Set         // of the last reading without an error
	digest uint64       // of what last was made of
	seed   maphash.Seed // of all digests, which are of use in this process alone
}

// An answer is what a reading came to.
type answer struct {
	set  *Set
	err  error
	seen *witness // nil: there was no reading
}

// NewReader makes a Reader for the control files in home/control. It reads nothing yet.
func NewReader(home string) *Reader {
	d, err := openDir(home)
	return &Reader{dir: d, err: err, seed: maphash.MakeSeed()}
}

// Read returns the files as they are at some time after it was called. While all have the same
// content it is the same Set. An error is an *Error; it stays until a file changes.
func (r *Reader) Read() (*Set, error) {
	if r.err != nil {
		return nil, r.err
	}
	call := r.asked.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.served < call { // else somebody has looked since the call
		served := r.asked.Load()
		if !r.answer.seen.isUnchanged() {
			r.answer = r.read()
		}
		r.served = served
	}
	return r.answer.set, r.answer.err
}

// read reads all files.
func (r *Reader) read() answer {
	now := time.Now
	if r.Now != nil {
		now = r.Now
	}
	d := r.dir
	seen := newWitness(r.seed, now(), d.home+"/control")
	d.seen = seen
	set := &Set{&Settings{Home: d.home}, new(Sharing)}
	err := d.readSet(set)
	if err != nil {
		return answer{err: err, seen: seen}
	}
	if digest := seen.sum(); r.last == nil || r.digest != digest {
		r.last, r.digest = set, digest
	}
	return answer{set: r.last, seen: seen}
}

func (d dir) readSet(set *Set) error {
	if err := d.readInto(set.Settings); err != nil {
		return err
	}
	if err := d.readSharing(set.Sharing); err != nil {
		return err
	}
	// A delivery that has a relay reads its login itself, and fails if it cannot.
	_, _, _ = d.readCredentials()
	return nil
}
