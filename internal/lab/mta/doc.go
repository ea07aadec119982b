// Package mta runs the attack table on any mail server that sends: Postfix,
// Exim, whatever can be told a resolver and a CA file.
//
// [Open] makes the small Internet real for other programs: in a network
// namespace ([netns]) its hosts listen at their own addresses and ports, and its
// resolver at [Resolver]. [Field.Run] hands the server under test the messages of
// the table by SMTP, with honest ones before them so that it may cache what it
// caches, watches what arrives where, waits through its retries, ends the attacks
// and looks whether what was held leaves. All of it is seen from outside: nothing
// is asked of the server but to take mail and send it.
//
// Time is real here. What takes hours in the table (a policy that expires) is not
// waited for; the first state is judged, and the report says so.
package mta
