package sign

import (
	"context"
	"crypto/sha256"
	"io"
	"sync"
	"time"

	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/remote/memory"
)

// The bounds of a Memory.
const (
	// signaturesKept is how long a signature serves further deliveries, its t= included
	// (identity.md 7): long enough for the recipients of one message, short enough that a
	// verifier finds nothing strange about its age.
	signaturesKept = 300 * time.Second
	// maxSignatures and maxSignatureBytes bound the signatures: one has about 1 KB, and one
	// with 200 names in h= some 5 KB for each line.
	maxSignatures     = 1000
	maxSignatureBytes = 8 << 20
	// keysKept is how long a parsed key is kept that its file has no more.
	keysKept = time.Hour
	// maxKeys bounds the parsed keys. With its tables an RSA key takes some 10 KB.
	maxKeys = 1000
	// maxTogether is how many keys may sign one message for its signature to be remembered:
	// control/signingkeys has no more lines for one domain.
	maxTogether = 4
)

// A Memory has the signatures and keys of the deliveries of one process. What is asked for
// while it is being made is waited for, so that the thousand recipients of a message cost one
// signature. A nil *Memory makes everything anew.
type Memory struct {
	now func() time.Time

	mu     sync.Mutex
	made   memory.Map[occasion, []byte]
	making map[occasion]chan struct{} // closed when it is made, or could not be

	keysMu sync.Mutex
	keys   memory.Map[[sha256.Size]byte, *PrivateKey] // by the digest of their text
}

// An occasion is what a signature is made for. The header is in it because the system uses
// inodes again, and qmail gives no two messages the same first field.
type occasion struct {
	message stamp.Stamp
	header  [sha256.Size]byte
	keys    [maxTogether]Key
}

// NewMemory returns an empty Memory with a clock.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{
		now:    now,
		made:   memory.Map[occasion, []byte]{Values: maxSignatures, Bytes: maxSignatureBytes},
		making: make(map[occasion]chan struct{}),
		keys:   memory.Map[[sha256.Size]byte, *PrivateKey]{Values: maxKeys},
	}
}

// ParseKey is the function of this name. The same text gives the same key for an hour.
func (m *Memory) ParseKey(text []byte) (*PrivateKey, error) {
	if m == nil {
		return ParseKey(text)
	}
	digest := sha256.Sum256(text)
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	now := m.now()
	if key, ok := m.keys.Get(digest, now); ok {
		return key, nil
	}
	key, err := ParseKey(text)
	if err == nil {
		m.keys.Put(digest, key, now, keysKept, 0)
	}
	return key, err
}

// Sign is h.Sign for the message file that has a stamp, of which h is the header from offset 0 on.
// The fields must not be changed. The error can also be the cause of ctx, which bounds the wait
// for somebody else's signature.
func (m *Memory) Sign(ctx context.Context, message stamp.Stamp, h *Header, keys []Key, now time.Time) ([]byte, error) {
	if m == nil || message == (stamp.Stamp{}) || len(keys) > maxTogether {
		return h.Sign(keys, now)
	}
	o := occasion{message: message}
	copy(o.keys[:], keys)
	var err error
	if o.header, err = h.digest(); err != nil {
		return nil, err
	}
	for {
		fields, wait := m.begin(o)
		switch {
		case fields != nil:
			return fields, nil
		case wait == nil:
			return m.compute(o, h, keys, now)
		}
		select {
		case <-wait:
			// If it could not be made for the other one, it is tried here.
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// begin returns the fields for an occasion, or what to wait for, or neither: then they are to
// be made.
func (m *Memory) begin(o occasion) (fields []byte, wait <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fields, ok := m.made.Get(o, m.now()); ok {
		return fields, nil
	}
	if done, ok := m.making[o]; ok {
		return nil, done
	}
	m.making[o] = make(chan struct{})
	return nil, nil
}

// compute signs, and lets those who wait go on, also when it panics.
func (m *Memory) compute(o occasion, h *Header, keys []Key, now time.Time) (fields []byte, err error) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(fields) > 0 && err == nil {
			m.made.Put(o, fields, m.now(), signaturesKept, int64(len(fields)))
		}
		close(m.making[o])
		delete(m.making, o)
	}()
	return h.Sign(keys, now)
}

// Forget forgets all signatures and keys.
func (m *Memory) Forget() {
	if m == nil {
		return
	}
	m.mu.Lock()
	m.made.Clear()
	m.mu.Unlock()
	m.keysMu.Lock()
	m.keys.Clear()
	m.keysMu.Unlock()
}

// digest is that of the header, as the file has it.
func (h *Header) digest() (sum [sha256.Size]byte, err error) {
	hash := sha256.New()
	if _, err = io.Copy(hash, section(h.text, 0, h.body)); err != nil {
		return sum, err
	}
	hash.Sum(sum[:0])
	return sum, nil
}
