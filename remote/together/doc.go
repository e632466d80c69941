// Package together has what deliveries do that go in one transaction.
//
// Deliveries of the same message, sender and host meet in a [Party], until its MAIL is
// written. A [Sequence] then decides which transactions the recipients of the party go in,
// over one session and, where that ends, over the next, so that each recipient gets the answer
// that it would have had alone. The package has no connection and knows no letters: a
// [Sender] sends, and a [Deliveries] takes the answers.
//
//	what                                          source
//	who goes together, and until when             rspawn.md, "Recipients together"
//	which recipients are offered once more        rspawn.md, "Recipients together"; RFC 5321 section 4.5.3.1.10
//	what begins anew on a new connection          rspawn.md, "Connections are kept" 3 and 4
//	421: the server closes                        RFC 5321 section 3.8
//	RSET after a refusal                          RFC 5321 section 4.1.1.5
package together
