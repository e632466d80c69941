// Package smtpc is the client's side of SMTP. [Open] begins a conversation, from the greeting
// to the last EHLO and a login; [Session.Send] sends a [Mail] and says what became of it, an [Outcome], as
// often as wanted; [Session.Quit] ends the conversation. [Deliver] is all three for one mail.
// Between two mails a session can wait idle: [Session.Watch] and [Session.Wake].
//
// The recipients of a mail may belong to several deliveries. [Outcome.Of] is what one of them
// would have met alone, and [Mail.Again] sends the message once more, to some of them.
//
//	RFC 5321        SMTP
//	RFC 1870        SIZE
//	RFC 2034, 3463  enhanced status codes (read, not needed)
//	RFC 2920        PIPELINING
//	RFC 3207        STARTTLS
//	RFC 4954        AUTH
//	RFC 5890        A-labels
//	RFC 6152        8BITMIME
//	RFC 6531        SMTPUTF8
//	RFC 9422        LIMITS (read, and left to the caller)
//
// A conversation waits for the server as rarely as its extensions allow: with
// PIPELINING the commands of the transaction leave in one write. Not one byte of
// the message leaves before 354, so CHUNKING (RFC 3030) is not used: a server that
// refuses a chunk without reading it takes the text for commands. A goroutine writes
// whatever can be long, while replies are read in order. So no server can block the client by
// not reading, or by not answering.
//
// The package knows neither TLS nor descriptors nor the mechanisms of a login: it gets a
// connection, a function that makes a TLS connection of it, and a function that returns the
// [Mechanism] values of a [Login], which package smtpc/sasl has. It knows no reports and no exit codes either: an outcome is
// a value, and remote/report has the words for it.
//
// Errors that end a conversation are of two kinds. A [RefusedError] is the server's no, at a
// stage, for now or for good. A [BrokenError] is a conversation that could not go on: the
// connection was lost, the server fell silent ([SilenceError]) or said something that is not
// SMTP ([ProtocolError]), or the time was over (ErrFuse). Both carry what that means for the
// next attempt: ErrTLSFailed, ErrStumbled, ErrEHLOLost. A [LoginError] is a login that was
// refused, a [NoLoginError] a server at which there is no way to log in. The other errors are about the mail:
// SenderError, ErrPartialLine, MessageError for any server, SizeError and UTF8Error for
// this one.
package smtpc
