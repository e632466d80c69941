// Package rspawn is the parent of mxf-rspawn: it speaks with qmail-send, and owns the
// numbers of deliveries. It must not end before qmail-send does, so it does little itself.
// One worker, a process of the same executable, carries out the deliveries; when that has
// ended, what was in it is carried out by processes of their own.
//
//	parent.go      what is done when something happens: a value, without processes
//	suspects.go    messages that were in a worker when it ended
//	start.go       the folder, the tables of dead hosts, the limit
//	input.go       commands, and the files of their messages
//	output.go      answers; numbers that are in use
//	link.go        the worker's process, and what is said to it
//	child.go       processes: started by one thread, and waited for
//	status.go      the status file
//	threads.go     threads, while there are some
//	run.go         all of it together, to the end
//
// Each delivery is answered once, because [parent] answers those in its list of live ones
// alone, and takes them off that list as it does.
//
//	qmail-rspawn.c, spawn.c of qmail 1.03   what qmail-send relies on
//	mxf-rspawn(8)                           all else
//	Prometheus text format 0.0.4            the status file
package rspawn
