package control

import "fmt"

// What mxf-rspawn and qmail-send agree on: the bytes of a delivery's number, and how many
// deliveries there are at a time. Every qmail-send has room for MaxSpawnLimit1 with one byte, and
// each one with two bytes that is known for MaxSpawnLimit2.
const (
	DefaultSpawnLimit1 = 255
	DefaultSpawnLimit2 = 500
	MaxSpawnLimit1     = 255
	MaxSpawnLimit2     = 12_000
)

// A Spawn is what mxf-rspawn reads once, at its start.
type Spawn struct {
	NumberBytes int // delnumbytes: bytes of a delivery's number, 1 or 2

	// Limit is spawnlimit: 1 to MaxSpawnLimit1 with one byte, to MaxSpawnLimit2 with two. It is
	// the default if the file is malformed or cannot be read; LimitFault is an *Error then, else
	// nil.
	Limit      int
	LimitFault error

	// Concurrency is concurrencyremote as qmail-send reads it, 0 to 2^31-1: the digits at the
	// beginning of the file, else DefaultConcurrencyRemote.
	Concurrency int
}

// ReadSpawn reads delnumbytes, spawnlimit and concurrencyremote in home/control. The error is an
// *Error: delnumbytes is malformed or cannot be read.
func ReadSpawn(home string) (Spawn, error) {
	d, err := openDir(home)
	if err != nil {
		return Spawn{}, err
	}
	return d.readSpawn()
}

func (d dir) readSpawn() (s Spawn, err error) {
	s.Concurrency = int(d.asQmail("concurrencyremote", DefaultConcurrencyRemote))
	if s.NumberBytes, err = d.numberBytes(); err != nil {
		return Spawn{}, err
	}
	s.Limit, s.LimitFault = d.spawnLimit(s.NumberBytes)
	return s, nil
}

// numberBytes reads delnumbytes.
func (d dir) numberBytes() (int, error) {
	n, err := d.atLeast("delnumbytes", 1, 1, 2, "1 or 2")
	return int(n), err
}

// spawnLimit reads spawnlimit. It returns the default with an error.
func (d dir) spawnLimit(numberBytes int) (int, error) {
	missing, most, hint := DefaultSpawnLimit1, MaxSpawnLimit1, " (control/delnumbytes 2 allows more, if this qmail-send speaks it)"
	if numberBytes == 2 {
		missing, most, hint = DefaultSpawnLimit2, MaxSpawnLimit2, ""
	}
	n, err := d.atLeast("spawnlimit", int64(missing), 1, int64(most), fmt.Sprintf("a whole number of deliveries from 1 to %d%s", most, hint))
	return int(n), err
}

// atLeast is number for a file whose number is not below lowest.
func (d dir) atLeast(name string, missing, lowest, highest int64, expected string) (int64, error) {
	value, err := d.value(name)
	if value == "" || err != nil {
		return missing, err
	}
	n, ok := decimal(value, highest)
	if !ok || n < lowest {
		return missing, d.malformed(name, 1, fmt.Sprintf("expected %s, found %s", expected, found(value)))
	}
	return n, nil
}

// asQmail reads a number as qmail-send does (control_readint, scan_ulong): the digits at the
// beginning of the first line. It returns missing if there are none, or no file that can be
// read: what qmail-send makes of its own file stops no mail here. A number above maxNumber is
// maxNumber.
func (d dir) asQmail(name string, missing int64) int64 {
	d.all = nil             // a mistake would be qmail-send's
	data, _ := d.read(name) // with data in spite of what other readers refuse
	n, digits := int64(0), 0
	for digits < len(data) && '0' <= data[digits] && data[digits] <= '9' {
		n = min(n*10+int64(data[digits]-'0'), maxNumber)
		digits++
	}
	if digits == 0 {
		return missing
	}
	return n
}
