// Package wire is what the parent of mxf-rspawn and its worker say to each other, over a
// pair of Unix stream sockets. Nothing from the other end makes this one fail but with an
// error: every length has a limit.
//
// A frame is its length (4 bytes, without these), its kind (1) and what the kind says.
// Numbers have 4 or 8 bytes, the high one first; a text is its length (4) and its bytes.
// The descriptor of a message comes with the first byte of its frame (SCM_RIGHTS).
//
//	parent to worker   Delivery, Order (forget, report, stop, cut)
//	worker to parent   Hello, Answer, LastByte, NotSent, Dropped, Alive, Counters
//	unix(7), cmsg(3)   descriptors over sockets
//	mxf-rspawn(8)      what parent and worker do
package wire
