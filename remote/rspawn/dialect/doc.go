// Package dialect is what qmail-send and the program that carries out its deliveries say
// to each other: the limit, commands, answers. It also makes an answer of the reports of
// a delivery. It reads and writes bytes, and opens nothing.
//
//	qmail-rspawn.c, spawn.c of qmail 1.03   limit, command, answer; reports become letter and text
//	big-concurrency patch                   numbers of two bytes, the low one first
//	qmail-ldap                              number 0xBEEF with empty strings is a reload
//	mxf-rspawn(8)                           what is said on 0 and 1; every fault is temporary
package dialect
