// Package runs is what the bench tells its launcher, and what it hears from it.
// The launcher is a process of its own because the kernel counts into a program's
// peak memory that of the process which started it.
package runs

import "time"

// A Job is a list of programs to be run, one after the other or several at a time.
type Job struct {
	Bind     [2]string // with both set: mount the first folder over the second before
	Environ  []string
	Stdin    string // a file, opened anew for each run
	Parallel int    // 0 is 1
	Runs     [][]string
}

// A Result is what came of one run.
type Result struct {
	Wall   time.Duration
	CPU    time.Duration // user and system, of the whole process tree
	Peak   int64         // resident memory, bytes
	Exit   int
	Output string // of descriptors 1 and 2, the beginning of it
}
