// Package runs has what the bench and its launcher tell each other. The launcher is a
// process of its own because the kernel counts the memory of the process that starts a
// program into the program's peak.
package runs

import "time"

// A Job is a list of programs to run, one after the other or several at a time.
type Job struct {
	Bind     [2]string // if both are set: first mount one folder over the other
	Environ  []string
	Stdin    string // a file, which each run opens anew
	Parallel int    // 0 is 1
	Runs     [][]string
	Environs [][]string // of each run, in place of Environ; nil: they do not differ
}

// A Result is what one run took and said.
type Result struct {
	Wall   time.Duration
	CPU    time.Duration // user and system, of the whole process tree
	Peak   int64         // resident memory, bytes
	Exit   int
	Output string // the beginning of what came from descriptors 1 and 2
}
