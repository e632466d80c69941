package main

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// The servers for mxf-rspawn are on the SMTP port, each on an address of its own, to which the MX
// records of its mail domain lead. They count, and they give session tickets.

const (
	// manyDomain contains all their names. What is not there may be remembered.
	manyDomain = "spawned." + domain
	manySOA    = manyDomain + " SOA ns." + manyDomain + " hostmaster." + manyDomain + " 1 3600 600 86400 60\n"
	// herdSize is how many deliveries are under way at a time, and how many connections are kept. The
	// deliveries go to herdHosts mail domains: as many to each as may have connections at first.
	herdSize  = 250
	herdHosts = herdSize / 5
	// sluggishness is how long the slow host takes for each message.
	sluggishness = 30 * time.Second
)

// A block is addresses of servers that are all alike.
type block struct {
	prefix string // the first three bytes
	size   int    // the last bytes are 1 to size
}

// manyName returns the mail domain of address i of a mode, from 1.
func manyName(mode string, i int) string { return fmt.Sprintf("%s%d.%s", mode, i, manyDomain) }

// startMany starts the servers of a mode, and returns what the zone has of them.
func (s *sink) startMany(m mode, port uint16) (records string, err error) {
	var zone strings.Builder
	for i := 1; i <= m.many.size; i++ {
		addr := fmt.Sprintf("%s.%d", m.many.prefix, i)
		listener, err := net.Listen("tcp", net.JoinHostPort(addr, fmt.Sprint(port)))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&zone, "%s MX 10 mx-%s\nmx-%s A %s\n", manyName(m.name, i), manyName(m.name, i), manyName(m.name, i), addr)
		go s.serve(listener, m)
	}
	return zone.String(), nil
}

// counts are what the servers of a mode have counted since they were told to forget.
type counts struct {
	Connections  int
	Open         int // connections
	Most         int // connections at a time
	Refused      int // connections
	Transactions int
}

// tally returns the counts of the mode of c, for whoever holds the lock.
func (c *sinkConn) tally() *counts {
	n := c.counts[c.mode.name]
	if n == nil {
		n = new(counts)
		c.counts[c.mode.name] = n
	}
	return n
}

// enter counts a connection, and reports whether it is not one too many; that one gets 421.
func (c *sinkConn) enter() bool {
	c.mu.Lock()
	n := c.tally()
	n.Connections++
	refused := c.mode.most > 0 && n.Open >= c.mode.most
	if refused {
		n.Refused++
	} else {
		n.Open++
	}
	c.mu.Unlock()
	if refused {
		c.out.WriteString("421 4.7.0 too many connections\r\n")
		_ = c.out.Flush()
	}
	return !refused
}

// greeted notes how many connections there are at a time. With EHLO the end of an earlier one has come,
// that made room for this one.
func (c *sinkConn) greeted() {
	if c.mode.many == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tally()
	n.Most = max(n.Most, n.Open)
}

// quit takes back what enter counted, once.
func (c *sinkConn) quit() {
	if c.mode.many == nil || c.over {
		return
	}
	c.over = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally().Open--
}

// take counts a message, and takes its time over it.
func (c *sinkConn) take() {
	if c.mode.many == nil {
		return
	}
	time.Sleep(c.mode.takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally().Transactions++
}
