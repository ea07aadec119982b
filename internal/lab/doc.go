// Package lab proves what a sender does under attack. The attacks are data
// (attacks.yaml): rows of what an attacker does, columns of what the destination
// has, and in each cell what must become of the mail. [Run] makes each cell
// happen on a small Internet ([testnet]) with pawl's own relay as the sender:
// real DNS, HTTPS, SMTP and TLS, an attacker in the path, and a clock that the
// lab moves. What became of the mail is seen at the receiving end, and what
// TLS-RPT is told is read from the ledger.
//
// [Demo] is the same small Internet around a server that people use: mail flows
// to a few domains, and the attack has a switch.
package lab
