package control

import (
	"hash/maphash"
	"slices"
	"time"

	"nightmare.mail/mxf/control/stamp"
)

// A witness notes what a reading of control files sees, so that a change can be seen later
// without another reading. A nil one notes nothing, and knows nothing.
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

// A seed makes the digests of one process: they are of use nowhere else.
type seed = maphash.Seed

func newSeed() seed { return maphash.MakeSeed() }

// newWitness looks at the folder. now is read before that.
func newWitness(s seed, now time.Time, folder string) *witness {
	w := &witness{began: now}
	w.digest.SetSeed(s)
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

// file notes that a file is about to be opened.
func (w *witness) file(path string) {
	if w != nil {
		w.look(path)
	}
}

// content notes what a file has.
func (w *witness) content(path string, data []byte) {
	if w == nil {
		return
	}
	maphash.WriteComparable(&w.digest, path)
	maphash.WriteComparable(&w.digest, len(data))
	_, _ = w.digest.Write(data)
}

// table notes that a file is not kept in memory, but read again for each look-up. Then its
// stamp counts as content, because what is made of the file goes by the stamp, and one that is
// not settled is like no other.
func (w *witness) table(path string) {
	if w == nil {
		return
	}
	i := slices.IndexFunc(w.sights, func(s sight) bool { return s.path == path })
	if i < 0 {
		return
	}
	maphash.WriteComparable(&w.digest, w.sights[i])
	if !w.sights[i].stamp.Settled(w.began) {
		maphash.WriteComparable(&w.digest, w)
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
