package mtasts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

const (
	// MaxHeaderSize caps the headers of a policy host's response.
	MaxHeaderSize = 32 << 10

	// maxFramedSize caps a body as it comes: a policy of the largest size in
	// chunks of one byte takes six bytes for each.
	maxFramedSize = 8 * MaxPolicySize
	maxInterim    = 5 // responses of status 1xx before the real one
	maxShownSize  = 1024
	textPlain     = "text/plain"
)

// answer is what a policy host's response came to.
type answer struct {
	status     int
	location   string
	mediaType  string
	body       []byte
	untilClose bool // the body ends where the connection does
	warnings   []Warning
}

// answerError is a response that is not a policy.
type answerError struct {
	code Code
	err  error
}

func (e *answerError) Error() string { return e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

var (
	errHeaderTooLarge = &answerError{HeaderTooLarge, fmt.Errorf("the headers are larger than %d bytes", MaxHeaderSize)}
	errBodyTooLarge   = &answerError{BodyTooLarge, fmt.Errorf("the body is larger than %d bytes", MaxPolicySize)}
)

// readAnswer reads one response to a GET. It reads no more of the body than a
// policy may have, and none of one that is not wanted. The answer holds what was
// seen, also with an error.
func readAnswer(r io.Reader, rule MediaTypeRule) (answer, error) {
	capped := &cappedReader{r: r, left: MaxHeaderSize, err: errHeaderTooLarge}
	buffered := bufio.NewReader(capped)
	// The body is not closed: that would read on to its end, and the whole
	// connection is closed instead.
	resp, err := readHeader(buffered) //nolint:bodyclose // as said
	if err != nil {
		return answer{}, capped.cause(malformed(err))
	}
	a := answer{
		status:     resp.StatusCode,
		location:   shorten(resp.Header.Get("Location")),
		mediaType:  shorten(resp.Header.Get("Content-Type")),
		untilClose: resp.ContentLength < 0 && len(resp.TransferEncoding) == 0,
	}
	if err := a.acceptable(resp, rule); err != nil {
		return a, err
	}
	capped.left, capped.err = maxFramedSize, errBodyTooLarge
	a.body, err = readBody(resp)
	return a, capped.cause(err)
}

// readHeader reads up to the end of the final response's headers.
func readHeader(r *bufio.Reader) (*http.Response, error) {
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(r, nil) //nolint:bodyclose // see readAnswer
		if err != nil {
			return nil, err
		}
		if resp.ProtoMajor != 1 {
			return nil, fmt.Errorf("%s is not HTTP/1.1", excerpt(resp.Proto))
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, fmt.Errorf("more than %d interim responses", maxInterim)
}

// acceptable decides by the headers whether the body may be a policy.
func (a *answer) acceptable(resp *http.Response, rule MediaTypeRule) error {
	// RFC 8461 §3.3: only 200 is valid, and redirects are never followed.
	if a.status >= 300 && a.status < 400 {
		return &answerError{HTTPRedirect, fmt.Errorf("redirected with status %d to %s", a.status, excerpt(a.location))}
	}
	if a.status != http.StatusOK {
		return &answerError{HTTPStatus, fmt.Errorf("status %d", a.status)}
	}
	for _, coding := range resp.Header.Values("Content-Encoding") {
		if coding = strings.TrimSpace(coding); coding != "" && !equalFoldASCII(coding, "identity") {
			return &answerError{ContentEncoding, fmt.Errorf("the body is encoded as %s, which was not asked for", excerpt(coding))}
		}
	}
	if !isTextPlain(resp.Header.Values("Content-Type")) {
		reason := "the media type is " + excerpt(a.mediaType) + ", not text/plain"
		if rule != WarnOfMediaType {
			return &answerError{MediaType, errors.New(reason)}
		}
		a.warnings = append(a.warnings, Warning{Code: MediaType, Text: reason})
	}
	if resp.ContentLength > MaxPolicySize {
		return errBodyTooLarge
	}
	return nil
}

// isTextPlain ignores the parameters (RFC 8461 §3.2).
func isTextPlain(contentTypes []string) bool {
	for _, value := range contentTypes {
		mediaType, _, _ := strings.Cut(value, ";")
		if !equalFoldASCII(strings.Trim(mediaType, blanks), textPlain) {
			return false
		}
	}
	return len(contentTypes) > 0
}

func readBody(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxPolicySize+1))
	switch {
	case len(body) > MaxPolicySize:
		return body[:MaxPolicySize], errBodyTooLarge
	case errors.Is(err, io.ErrUnexpectedEOF):
		return body, &answerError{BodyTruncated, errors.New("the connection ended before the body did")}
	case err != nil:
		return body, malformed(err)
	default:
		return body, nil
	}
}

// malformed marks an error as one in the response.
func malformed(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = errors.New("the connection ended before the headers did")
	}
	return &answerError{HTTPMalformed, fmt.Errorf("not a valid HTTP response: %w", err)}
}

// cappedReader reads up to a number of bytes, and fails after that. It keeps
// the error of reading, its own or the connection's, because a parser that met
// it in the middle of a line may speak of the line instead.
type cappedReader struct {
	r      io.Reader
	left   int
	err    error // for what is over the cap
	failed error
}

func (c *cappedReader) Read(p []byte) (int, error) {
	if c.left <= 0 {
		c.failed = c.err
		return 0, c.err
	}
	if len(p) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= n
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		c.failed = err
	}
	return n, err
}

// cause returns the error of reading if there was one, and err otherwise.
func (c *cappedReader) cause(err error) error {
	if err != nil && c.failed != nil {
		return c.failed
	}
	return err
}

// shorten caps a header that is kept as evidence.
func shorten(s string) string {
	if len(s) > maxShownSize {
		return strings.ToValidUTF8(s[:maxShownSize], "")
	}
	return s
}
