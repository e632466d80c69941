// Package lab is a small Internet inside one process: a name server, SMTP, QMTP
// and QMTPS servers, certificate authorities and the home of a qmail host, all on
// loopback and in temporary folders. The integration tests and mxf-try(8) deliver
// real messages into it with the real programs. It needs no root, no network and
// no fixed port, and Close takes everything away again.
//
//	RFC 1035, 6891   DNS over UDP and TCP, from a literal zone (Zone)
//	RFC 5321, 3207   SMTP with STARTTLS, by smtptest's server, which holds the client
//	                 to the rules (Inbox.Wrong)
//	QMTP (1997)      cr.yp.to/proto/qmtp.txt, clear and inside TLS
//	RFC 5280, 6960   certificates good and bad, stapled OCSP answers
//	qmail-rspawn     runs a qmail-remote and reads its reports (Rspawn)
//
// The servers of one lab share a port number for each protocol and differ by
// their address, 127.0.0.2 and up, as the exchangers of the real world do.
package lab
