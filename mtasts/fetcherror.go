package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Stage is how far a fetch came before it failed.
type Stage string

// The stages, in their order.
const (
	StageDomain   Stage = "domain"   // the name is no domain
	StageConnect  Stage = "connect"  // looking up the policy host, connecting to it
	StageTLS      Stage = "tls"      // the handshake, the certificate
	StageResponse Stage = "response" // status, headers, body
	StagePolicy   Stage = "policy"   // what the body says
)

// FetchError says why a policy could not be fetched. Code tells what went wrong,
// Stage how far it came, and the rest is what was seen.
type FetchError struct {
	Domain string
	URL    string
	Stage  Stage
	Code   Code
	// Problems are all that is wrong with the certificate, the worst first,
	// which is Code; empty if it was not refused.
	Problems     []Code
	Certificates []*x509.Certificate // as the host sent them, its own first
	Status       int                 // of HTTP; 0: it did not come to that
	Location     string              // where a redirect pointed to
	MediaType    string              // the Content-Type header
	Err          error               // at StagePolicy a *PolicyError
}

func (e *FetchError) Error() string {
	what := "the MTA-STS policy of " + e.Domain
	switch e.Stage {
	case StageDomain:
		return fmt.Sprintf("no MTA-STS policy can be fetched: %v", e.Err)
	case StagePolicy:
		return fmt.Sprintf("%s, fetched from %s, cannot be used: %v", what, e.URL, e.Err)
	default:
		return fmt.Sprintf("%s could not be fetched from %s: %s: %v", what, e.URL, e.Code, e.Err)
	}
}

// Unwrap returns the cause.
func (e *FetchError) Unwrap() error { return e.Err }

// ResultType returns the result type of RFC 8460 §4.3.2.2: [ResultPolicyInvalid]
// for a policy that does not parse, [ResultWebPKIInvalid] for a certificate, and
// otherwise [ResultFetchError].
func (e *FetchError) ResultType() string {
	switch {
	case e.Stage == StagePolicy:
		return ResultPolicyInvalid
	case len(e.Problems) > 0:
		return ResultWebPKIInvalid
	default:
		return ResultFetchError
	}
}

// FailureReason returns the code; for [HTTPStatus] with the number, such as
// "http-status-404".
func (e *FetchError) FailureReason() string {
	if e.Code == HTTPStatus {
		return string(e.Code) + "-" + strconv.Itoa(e.Status)
	}
	return string(e.Code)
}

// Timeout reports whether the time was up.
func (e *FetchError) Timeout() bool {
	switch e.Code {
	case ConnectTimeout, TLSTimeout, ResponseTimeout:
		return true
	}
	return false
}

// interrupted returns the code for an operation that was ended from outside, or
// "".
func interrupted(ctx context.Context, err error, timeout Code) Code {
	var netErr net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return Cancelled
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return timeout
	}
	return ""
}

// because puts the context's error in the place of the one that closing the
// connection led to.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func dialError(ctx context.Context, err error) *FetchError {
	failure := &FetchError{Stage: StageConnect, Code: ConnectError, Err: err}
	var lookup *net.DNSError
	if errors.As(err, &lookup) {
		failure.Code = HostLookup
		if lookup.IsNotFound {
			failure.Code = HostNotFound
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			failure.Code = Cancelled
		}
	} else if code := interrupted(ctx, err, ConnectTimeout); code != "" {
		failure.Code = code
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		failure.Code = ConnectRefused
	}
	if failure.Code == Cancelled {
		failure.Err = because(ctx, err)
	}
	return failure
}

func (f *Fetcher) handshakeError(ctx context.Context, host string, err error) *FetchError {
	failure := &FetchError{Stage: StageTLS, Code: TLSHandshake, Err: err}
	var refused *tls.CertificateVerificationError
	if errors.As(err, &refused) {
		failure.Problems = certificateProblems(refused.UnverifiedCertificates, f.Roots, host, f.now())
		failure.Code = failure.Problems[0]
		return failure
	}
	if code := interrupted(ctx, err, TLSTimeout); code != "" {
		failure.Code, failure.Err = code, because(ctx, err)
	} else if strings.Contains(err.Error(), "protocol version") { // crypto/tls has no type for it
		failure.Code = TLSVersion
	}
	return failure
}

// exchangeError is what went wrong between request and the end of the body.
func exchangeError(ctx context.Context, err error) *FetchError {
	failure := &FetchError{Stage: StageResponse, Code: ConnectionLost, Err: err}
	var refused *answerError
	if errors.As(err, &refused) {
		failure.Code = refused.code
	} else if code := interrupted(ctx, err, ResponseTimeout); code != "" {
		failure.Code, failure.Err = code, because(ctx, err)
	}
	return failure
}

func policyFailure(a answer, err error) *FetchError {
	failure := &FetchError{Stage: StagePolicy, Err: err, Status: a.status, MediaType: a.mediaType}
	var refused *PolicyError
	if errors.As(err, &refused) {
		failure.Code = refused.Code
	}
	return failure
}
