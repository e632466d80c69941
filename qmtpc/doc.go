// Package qmtpc speaks QMTP, the Quick Mail Transfer Protocol, as a client. It sends
// one package on a connection that somebody else made, and returns what the server
// answered.
//
//	https://cr.yp.to/proto/qmtp.txt          QMTP, port 209
//	https://cr.yp.to/proto/netstrings.txt    netstrings
//
// A package is written in one go: the message, the sender, the recipients. The
// server then answers once for each recipient. The package is written in the
// background while answers are read, because a server may answer, or give up, before
// it has read all of it.
//
// QMTP has no greeting, no commands and no extensions, and this client sends one
// package on a connection. So there is no session to open: a [Mail] is prepared, and
// [Send] sends it. The caller's context limits how long that may take; see [ErrFuse].
//
// The recipients of a package may belong to several deliveries: see [Outcome.Of].
//
// QMTP inside TLS (qmtps, port 6209) is the same protocol. Send then gets the inner
// connection.
package qmtpc
