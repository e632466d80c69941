// Package stack has goroutines of a short-lived process grow their stacks once.
//
// A goroutine begins with 2 KB, and each time that is too little its stack is copied to
// one of twice the size. Each size that occurs costs a delivery up to eight page faults,
// in which all memory of that size is laid out, and each copy goes through tables that
// nothing else has read yet.
package stack

// room is what a lookup, a connection or a conversation needs at least: with it the
// runtime chooses 16 KB.
const room = 12 << 10

// Grow has the stack of the calling goroutine grow in one step. It does so by calling a
// function whose frame is large: the runtime looks for room when a function is entered.
// None of that room is touched.
func Grow() { enter(false) }

//go:noinline
func enter(use bool) byte {
	if !use {
		return 0
	}
	var frame [room]byte
	for i := range frame {
		frame[i] = frame[i/2] + byte(i)
	}
	return frame[room/2]
}
