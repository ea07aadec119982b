package dane

// The result types of RFC 8460 §4.3 that an [*Error] can have.
const (
	certificateHostMismatch = "certificate-host-mismatch" // §4.3.1: the names do not adhere to the DANE policy
	certificateExpired      = "certificate-expired"       // §4.3.1
	certificateNotTrusted   = "certificate-not-trusted"   // §4.3.1: unknown authority, chain errors, name constraints
	validationFailure       = "validation-failure"        // §4.3.1: what fits nowhere else
	tlsaInvalid             = "tlsa-invalid"              // §4.3.2.1: no record of the RRset is valid
	dnssecInvalid           = "dnssec-invalid"            // §4.3.2.1: the resolver returned no valid records
	daneRequired            = "dane-required"             // §4.3.2.1: DANE is demanded, and there are no TLSA records
)

// The values of [Error.Reason]: short, stable, and sent as failure-reason-code.
const (
	ReasonAddressLookup   = "address-lookup-failed"     // dnssec-invalid
	ReasonCNAMELookup     = "cname-lookup-failed"       // dnssec-invalid
	ReasonTLSALookup      = "tlsa-lookup-failed"        // dnssec-invalid
	ReasonNoAddress       = "no-address"                // validation-failure
	ReasonBadHost         = "invalid-host-name"         // validation-failure
	ReasonNoRecords       = "no-tlsa-records"           // dane-required
	ReasonTooManyRecords  = "too-many-tlsa-records"     // tlsa-invalid
	ReasonUnusable        = "tlsa-unusable"             // tlsa-invalid
	ReasonNoCertificate   = "no-certificate"            // validation-failure
	ReasonMismatch        = "tlsa-mismatch"             // certificate-not-trusted
	ReasonAnchorMissing   = "trust-anchor-not-in-chain" // certificate-not-trusted
	ReasonAnchorIsLeaf    = "trust-anchor-is-leaf"      // certificate-not-trusted
	ReasonChainTooLong    = "chain-too-long"            // certificate-not-trusted
	ReasonChainInvalid    = "chain-invalid"             // certificate-not-trusted
	ReasonNameConstraint  = "name-constraint"           // certificate-not-trusted
	ReasonNotServerUse    = "not-for-server-use"        // certificate-not-trusted
	ReasonNotYetValid     = "certificate-not-yet-valid" // certificate-not-trusted
	ReasonExpired         = "certificate-expired"       // certificate-expired
	ReasonNameMismatch    = "no-name-matches"           // certificate-host-mismatch
	ReasonCommonNameAlone = "common-name-alone"         // certificate-host-mismatch
)

// Error says why DANE does not authenticate a server, or cannot tell whether it
// should. [Find], [Set.Require] and [Verify] return no other error.
type Error struct {
	Host   string // the TLSA base domain, or the host where there is none yet
	Result string // result type of RFC 8460 §4.3, as "certificate-not-trusted"
	Reason string // one of the Reason constants
	Err    error  // what happened in words; wraps what the resolver or crypto/x509 said
}

// Error says what happened, and to which host.
func (e *Error) Error() string { return e.Host + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// ResultType returns the result type that TLS-RPT has for it (RFC 8460 §4.3).
func (e *Error) ResultType() string { return e.Result }

// FailureReason returns the failure-reason-code for TLS-RPT (RFC 8460 §4.3), one
// of the Reason constants.
func (e *Error) FailureReason() string { return e.Reason }

// Advice says in one sentence what the server's operator should do.
func (e *Error) Advice() string {
	switch e.Reason {
	case ReasonAddressLookup, ReasonCNAMELookup, ReasonTLSALookup:
		return "Check that the host's name servers answer, and that its DNSSEC signatures are valid and not expired."
	case ReasonNoAddress, ReasonBadHost:
		return "Let the MX record name a host that has an address."
	case ReasonNoRecords, ReasonUnusable:
		return "Publish a TLSA record \"3 1 1\" with the SHA-256 digest of the server's public key, in a signed zone."
	case ReasonTooManyRecords:
		return "Keep only the TLSA records of the present and the next key."
	case ReasonNoCertificate:
		return "Configure a certificate on the server."
	case ReasonMismatch:
		return "Publish a TLSA record for the key in use, or install the key that the record names."
	case ReasonAnchorMissing:
		return "Add the certificate that the TLSA record names to the chain that the server sends."
	case ReasonAnchorIsLeaf:
		return "Publish the server's own certificate with usage 3 instead of 2."
	case ReasonNotYetValid:
		return "Check the certificate's start date and the clocks."
	case ReasonExpired:
		return "Renew the certificate."
	case ReasonNameMismatch, ReasonCommonNameAlone:
		return "Issue the certificate with the host's name as a subjectAltName."
	default: // the chain is broken in one of its ways
		return "Install a server certificate with a sound chain up to the one that the TLSA record names."
	}
}
