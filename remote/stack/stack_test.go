package stack

import (
	"testing"
	"unsafe"
)

// A stack that has grown does not move when half of room is used.
func TestGrow(t *testing.T) {
	for _, grown := range []bool{false, true} {
		moved := make(chan bool)
		go func() {
			if grown {
				Grow()
			}
			var here byte
			before := uintptr(unsafe.Pointer(&here))
			use(6)
			moved <- uintptr(unsafe.Pointer(&here)) != before
		}()
		if got := <-moved; got == grown {
			t.Errorf("grown %v: the stack has moved: %v", grown, got)
		}
	}
}

// use takes n KB of stack, and a little.
//
//go:noinline
func use(n int) byte {
	var kb [1 << 10]byte
	kb[n] = byte(n)
	if n > 1 {
		kb[0] = use(n - 1)
	}
	return kb[0] + kb[n]
}
