// Package start saves time in a program that lives for some milliseconds and does one
// thing. It runs Go code on one processor: one conversation has nothing to run beside
// itself, and a second processor would be woken in vain, again and again. And it grows the
// stack of the main goroutine once.
//
// An init function does both, because main is too late: other packages have allocated
// memory on both processors by then, and to give one up costs some fifty page faults. Go
// initialises packages in the order of their paths, as far as imports allow. So this one
// imports nothing that needs more than the runtime; that puts it before sync, syscall and
// all that need these.
package start

import (
	"runtime"

	"nightmare.mail/mxf/remote/stack"
)

func init() {
	runtime.GOMAXPROCS(1)
	stack.Grow()
}
