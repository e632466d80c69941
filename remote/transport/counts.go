package transport

import "sync/atomic"

// Counts are what a process with many deliveries counts. A nil Counts counts nothing.
type Counts struct {
	New, Kept             atomic.Uint64 // connections that attempts were carried out on
	Anew                  atomic.Uint64 // attempts that began anew
	Transactions          atomic.Uint64
	Recipients            atomic.Uint64 // in transactions
	Full, Resumed, Failed atomic.Uint64 // handshakes
	Line                  atomic.Uint64 // deliveries that found no place in the line
}

func (c *Counts) connected(isNew bool) {
	switch {
	case c == nil:
	case isNew:
		c.New.Add(1)
	default:
		c.Kept.Add(1)
	}
}

// sent counts a transaction.
func (c *Counts) sent(recipients int) {
	if c != nil {
		c.Transactions.Add(1)
		c.Recipients.Add(uint64(recipients))
	}
}

// shaken counts a handshake.
func (c *Counts) shaken(resumed bool, err error) {
	switch {
	case c == nil:
	case err != nil:
		c.Failed.Add(1)
	case resumed:
		c.Resumed.Add(1)
	default:
		c.Full.Add(1)
	}
}
