package rspawn

import (
	"runtime"
	"sync"
)

const (
	// processors is on how many of them this process runs. It does little, and each wants a thread.
	processors = 2
	// threads is how many there are from the beginning. What blocks has one each: reading commands,
	// writing answers, two looks after the status file, starting processes, and waiting for the
	// end of qmail-send; the runtime has four; the rest is for calls that the system does not
	// finish at once, such as opening messages, and closing them.
	threads = 24
)

// readyThreads has the runtime make threads now, and keep them. Where the user has no more
// processes, the runtime ends this one when it wants another thread; a program that cannot be started
// for the same reason is but a delivery that is made later.
func readyThreads() {
	runtime.GOMAXPROCS(min(processors, runtime.GOMAXPROCS(0)))
	var here, gone sync.WaitGroup
	leave := make(chan struct{})
	for range threads {
		here.Add(1)
		gone.Add(1)
		go func() {
			defer gone.Done()
			runtime.LockOSThread() // it has its thread for itself, though it sleeps
			defer runtime.UnlockOSThread()
			here.Done()
			<-leave
		}()
	}
	here.Wait()
	close(leave)
	gone.Wait()
}
