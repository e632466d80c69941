// Package qmtpc speaks QMTP, the Quick Mail Transfer Protocol, as a client: one
// package over a connection that somebody else made, and what the server
// answered as a stream of qmail-remote reports.
//
//	https://cr.yp.to/proto/qmtp.txt          QMTP, port 209
//	https://cr.yp.to/proto/netstrings.txt    netstrings
//	qmail-remote(8)                          reports
//
// A package is written in one go: the message, the sender, the recipients. The
// server then answers once for each recipient. Writing goes on in the background
// of reading, because a server may answer, or give up, before it has read it all.
//
// Inside TLS the protocol is the same (qmtps, port 6209); Deliver is then given
// the inner connection and the facts that the TLS client found out.
package qmtpc
