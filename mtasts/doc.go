// Package mtasts reads, matches and fetches MTA-STS policies: RFC 8461, with
// its errata.
//
// A domain says by MTA-STS that mail to it goes over authenticated TLS. A
// sender finds that out in this order:
//
//  1. It looks up the TXT records at [RecordName] and hands them to
//     [SelectRecord]. The id of the [Record] tells whether a cached policy is
//     still the current one.
//  2. If not, [Fetcher.Fetch] gets the [Policy] over HTTPS from [PolicyHost].
//  3. For each MX host that mail might go to, [Policy.Match] tells whether the
//     policy allows it. The host's certificate is then the sender's to check.
//
// Looking up DNS, caching policies and acting on them are left to the caller.
// Nothing here is global or changes: resolver, dialler, roots and clock come in
// through the [Fetcher].
//
// Parsing follows the grammar to the letter. What the grammar refuses makes the
// whole record or policy invalid, and the error says where and why. What it
// allows but hardly anyone means (a key given twice, a name in Unicode) is
// accepted and told as a [Warning] by [InspectRecord] and [InspectPolicy].
//
// Every error of the package has two methods for TLS reports: ResultType, the
// result type of RFC 8460 §4.3, and FailureReason, a [Code] that is short,
// stable, and different for each thing that can be wrong.
package mtasts
