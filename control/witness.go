package control

import (
	"hash/maphash"
	"slices"
	"time"

	"nightmare.mail/mxf/control/stamp"
)

// A witness is an observer by which a change can be seen later without another reading. A nil
// one knows nothing.
//
// A file that is missing needs no stamp of its own: to make one changes the folder.
type witness struct {
	began  time.Time
	sights []sight // of the folder, and of each file that is there
	blind  bool    // something cannot be looked at, and may change without a sign
	digest maphash.Hash
}

// A sight is what a file looked like before it was opened.
type sight struct {
	path  string
	stamp stamp.Stamp
}

// newWitness looks at the folder. now is read before that.
func newWitness(seed maphash.Seed, now time.Time, folder string) *witness {
	w := &witness{began: now}
	w.digest.SetSeed(seed)
	w.look(folder)
	return w
}

// look notes what path leads to, if it is looked at for the first time.
func (w *witness) look(path string) {
	if slices.ContainsFunc(w.sights, func(s sight) bool { return s.path == path }) {
		return
	}
	s, err := stamp.Of(path)
	w.blind = w.blind || err != nil || !s.Settled(w.began)
	w.sights = append(w.sights, sight{path, s})
}

func (w *witness) file(path string) { w.look(path) }

func (w *witness) content(path string, data []byte) {
	maphash.WriteComparable(&w.digest, path)
	maphash.WriteComparable(&w.digest, len(data))
	_, _ = w.digest.Write(data)
}

// table has the stamp of a file count as its content, because what is made of such a file goes
// by the stamp. One that is not settled is like no other.
func (w *witness) table(path string) {
	i := slices.IndexFunc(w.sights, func(s sight) bool { return s.path == path })
	if i < 0 {
		return
	}
	maphash.WriteComparable(&w.digest, w.sights[i])
	if !w.sights[i].stamp.Settled(w.began) {
		maphash.WriteComparable(&w.digest, w.began.UnixNano())
	}
}

func (w *witness) sum() uint64 { return w.digest.Sum64() }

// isUnchanged reports whether all is as it was. It is false if that cannot be known.
func (w *witness) isUnchanged() bool {
	if w == nil || w.blind {
		return false
	}
	for i := range w.sights {
		s, err := stamp.Of(w.sights[i].path)
		if err != nil || s != w.sights[i].stamp {
			return false
		}
	}
	return true
}
