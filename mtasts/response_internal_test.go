package mtasts

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func FuzzReadAnswer(f *testing.F) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	for _, seed := range []string{
		head + "Content-Length: 4\r\n\r\nx: y", head + "Transfer-Encoding: chunked\r\n\r\n4;e=1\r\nx: y\r\n0\r\nT: u\r\n\r\n", head + "\r\nx: y",
		"HTTP/1.1 103 Early Hints\r\n\r\n" + head + "\r\n", "HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", "HTTP/1.0 404 Not Found\r\n\r\n",
		head + "Content-Encoding: gzip\r\n\r\n", head + "Content-Length: 99999999999999999999\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 200", "",
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, text string, lenient bool) {
		rule := RefuseMediaType
		if lenient {
			rule = WarnOfMediaType
		}
		source := &countingReader{r: strings.NewReader(text)}
		a, err := readAnswer(source, rule)
		if len(a.body) > MaxPolicySize || len(a.location) > maxShownSize || len(a.mediaType) > maxShownSize {
			t.Fatalf("kept %d bytes of body, %d of location, %d of media type", len(a.body), len(a.location), len(a.mediaType))
		}
		if source.n > MaxHeaderSize+maxFramedSize {
			t.Fatalf("read %d bytes", source.n)
		}
		if err != nil {
			var refused *answerError
			if !errors.As(err, &refused) || refused.code == "" {
				t.Fatalf("not a proper error: %#v", err)
			}
			return
		}
		if a.status != 200 || !lenient && !strings.Contains(strings.ToLower(text), "text/plain") {
			t.Fatalf("accepted: %+v", a)
		}
		// In whatever pieces it comes, the answer is the same.
		again, err := readAnswer(iotest.OneByteReader(strings.NewReader(text)), rule)
		if err != nil || string(again.body) != string(a.body) {
			t.Fatalf("byte by byte: %q (%v), at once: %q", again.body, err, a.body)
		}
	})
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
