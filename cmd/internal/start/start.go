// Package start makes a program cheap that lives for some milliseconds and has one thing
// to do: it runs Go code on one processor, since there is nothing to run beside one
// conversation and a second processor would be woken for nothing, again and again; and
// the stack of its main goroutine grows once.
//
// Both are done by an init function because main is late: what packages allocate while
// they initialise lies with both processors by then, and giving one of them up costs some
// fifty page faults. Go initialises packages in the order of their paths, as far as
// imports allow. So this one must import nothing that needs more than the runtime, which
// puts it before sync, syscall and all that need these.
package start

import (
	"runtime"

	"nightmare.mail/mxf/remote/stack"
)

func init() {
	runtime.GOMAXPROCS(1)
	stack.Grow()
}
