// Package oneprocessor has the program that imports it run Go code on one processor:
// one conversation has nothing to run beside itself, and a second processor would be
// woken for nothing, again and again.
//
// It does so from an init function because main is late: what the packages allocate
// while they initialise lies with both processors by then, and giving one of them up
// costs some fifty page faults. Go initialises packages in the order of their paths, as
// far as imports allow. So this package must import runtime alone, which puts it before
// sync, syscall and whatever needs these.
package oneprocessor

import "runtime"

func init() { runtime.GOMAXPROCS(1) }
