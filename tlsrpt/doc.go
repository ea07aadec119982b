// Package tlsrpt is SMTP TLS Reporting, RFC 8460: the record by which a domain
// asks for reports, the reports themselves, and how they are sent.
//
// A sender reports in this order:
//
//  1. It looks up the TXT records at [RecordName] and hands them to
//     [SelectRecord], which says where the domain wants its reports.
//  2. It fills in a [Report] for a UTC day and encodes it with [Report.JSON],
//     which refuses what RFC 8460 or I-JSON (RFC 7493) would not have, and
//     packs it with [Compress].
//  3. For a mailto address [Mail.Message] makes the message, which must be
//     signed by DKIM before it goes out; for https [Poster.Post] submits it.
//
// A receiver gives what arrives, JSON or gzip, to [Read], or to [Limits.Stream]
// which hands over one policy after the other. What arrives is hostile or odd
// (RFC 8460 §7): sizes, depth and counts are capped, gzip is unpacked no further
// than that, and whatever can be read is read, with a [Note] for each thing that
// was off.
//
// Looking up DNS, signing and deciding when to send are left to the caller.
// Nothing here is global or changes.
package tlsrpt
