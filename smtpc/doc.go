// Package smtpc is the client's side of SMTP: one connection, one message, from
// the greeting to QUIT, and its outcome as the reports of qmail-remote(8).
//
//	RFC 5321        SMTP
//	RFC 1870        SIZE
//	RFC 2034, 3463  enhanced status codes (read, not needed)
//	RFC 2920        PIPELINING
//	RFC 3207        STARTTLS
//	RFC 5890        A-labels
//	RFC 6152        8BITMIME
//	RFC 6531        SMTPUTF8
//
// A conversation waits for the server as rarely as its extensions allow: with
// PIPELINING the commands of the transaction leave in one write. Not one byte of
// the message leaves before 354, so CHUNKING (RFC 3030) is not used: a server that
// refuses a chunk without reading it takes the text for commands. Whatever can be
// long is written by a goroutine while replies are read in order, so that no server
// can block the client by not reading, or by not answering.
//
// The package knows neither TLS nor descriptors: it is given a connection, and a
// function that makes a TLS connection of it.
package smtpc
