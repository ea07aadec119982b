package smtp_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pawl-mail/pawl/internal/smtp"
)

func TestLinesAreRead(t *testing.T) {
	long := strings.Repeat("x", 1500)
	wire := "EHLO a.test\r\n\r\nNOOP " + long + "\r\nQUIT\r\n"
	for name, src := range map[string]io.Reader{
		"at once":        strings.NewReader(wire),
		"octet by octet": iotest.OneByteReader(strings.NewReader(wire)),
	} {
		r := smtp.NewReader(src)
		for _, want := range []string{"EHLO a.test", "", "NOOP " + long, "QUIT"} {
			line, err := r.ReadLine(smtp.MaxCommandLine)
			if string(line) != want || err != nil {
				t.Errorf("%s: %q, %v; want %q", name, line, err, want)
			}
		}
		if line, err := r.ReadLine(smtp.MaxCommandLine); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end %q, %v", name, line, err)
		}
	}
}

func TestRFC5321_2_3_8_OnlyCRLFEndsALine(t *testing.T) {
	for _, wire := range []string{
		"NOOP\n", "\n", "NO\rOP\r\n", "\rNOOP\r\n", "NOOP\r\r\n", "MAIL FROM:<a@a.test>\nRCPT TO:<b@b.test>\r\n",
	} {
		line, err := smtp.NewReader(strings.NewReader(wire)).ReadLine(smtp.MaxCommandLine)
		if !errors.Is(err, smtp.ErrBareLine) {
			t.Errorf("%q: %q, %v", wire, line, err)
		}
	}
}

func TestALineOfTheLimitIsReadAndOneMoreIsNot(t *testing.T) {
	for _, limit := range []int{16, 2048, 12288} {
		fits := strings.Repeat("x", limit-2) + "\r\n"
		if line, err := smtp.NewReader(strings.NewReader(fits)).ReadLine(limit); err != nil || len(line) != limit-2 {
			t.Errorf("limit %d: %d octets, %v", limit, len(line), err)
		}
		if _, err := smtp.NewReader(strings.NewReader("x" + fits)).ReadLine(limit); !errors.Is(err, smtp.ErrLineTooLong) {
			t.Errorf("limit %d and one more: %v", limit, err)
		}
		endless := &repeat{wire: []byte("x")}
		if _, err := smtp.NewReader(endless).ReadLine(limit); !errors.Is(err, smtp.ErrLineTooLong) {
			t.Errorf("limit %d without end: %v", limit, err)
		}
	}
}

func TestALineCutShortIsAnUnexpectedEnd(t *testing.T) {
	for _, wire := range []string{"NOOP", "NOOP\r"} {
		if _, err := smtp.NewReader(strings.NewReader(wire)).ReadLine(100); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", wire, err)
		}
	}
}

func TestAReaderThatGivesNothingIsNotReadForEver(t *testing.T) {
	if _, err := smtp.NewReader(nothing{}).ReadLine(100); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v", err)
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }

func TestWhatFollowsAMessageIsStillThere(t *testing.T) {
	// The commands behind a message are read with it, into its large buffer.
	batch := strings.Repeat("RCPT TO:<someone@example.com>\r\n", 500)
	r := smtp.NewReader(strings.NewReader("DATA\r\nhello\r\n.\r\n" + batch + "DATA\r\nagain\r\n.\r\nQUIT\r\n"))
	wantLine(t, r, "DATA")
	wantData(t, r, "hello\r\n")
	for range 500 {
		wantLine(t, r, "RCPT TO:<someone@example.com>")
	}
	wantLine(t, r, "DATA")
	wantData(t, r, "again\r\n")
	wantLine(t, r, "QUIT")
}

func wantLine(t *testing.T, r *smtp.Reader, want string) {
	t.Helper()
	if line, err := r.ReadLine(smtp.MaxCommandLine); string(line) != want || err != nil {
		t.Fatalf("got %q, %v; want %q", line, err, want)
	}
}

func wantData(t *testing.T, r *smtp.Reader, want string) {
	t.Helper()
	var got bytes.Buffer
	if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, r.Data(), make([]byte, 64<<10)); err != nil || got.String() != want {
		t.Fatalf("got %q, %v; want %q", got.String(), err, want)
	}
}

func TestResetDropsWhatIsBuffered(t *testing.T) {
	r := smtp.NewReader(strings.NewReader("STARTTLS\r\nRSET\r\nMAIL FROM:<evil@a.test>\r\n"))
	wantLine(t, r, "STARTTLS")
	if n := r.Buffered(); n != 31 {
		t.Errorf("%d octets buffered, want 31", n)
	}
	r.Reset(strings.NewReader("EHLO a.test\r\n"))
	wantLine(t, r, "EHLO a.test")
}

func FuzzLine(f *testing.F) {
	f.Add([]byte("EHLO a\r\nNOOP\r\n"), uint16(40))
	f.Add([]byte("a\nb\r\n"), uint16(40))
	f.Add([]byte("\r\r\n"), uint16(4))
	f.Fuzz(func(t *testing.T, wire []byte, limit uint16) {
		limit = limit%4000 + 2
		want := refLines(string(wire), int(limit))
		for _, src := range []io.Reader{bytes.NewReader(wire), iotest.OneByteReader(bytes.NewReader(wire))} {
			r := smtp.NewReader(src)
			for _, w := range want {
				line, err := r.ReadLine(int(limit))
				if err != nil || string(line) != w {
					t.Fatalf("%q: got %q, %v; want %q", wire, line, err, w)
				}
			}
			if line, err := r.ReadLine(int(limit)); err == nil {
				t.Fatalf("%q: a line too many: %q", wire, line)
			}
		}
	})
}

// refLines returns the lines up to the first that is not one.
func refLines(wire string, limit int) []string {
	var lines []string
	for {
		line, rest, ok := strings.Cut(wire, "\n")
		text, ended := strings.CutSuffix(line, "\r")
		if !ok || !ended || strings.Contains(text, "\r") || len(line)+1 > limit {
			return lines
		}
		lines, wire = append(lines, text), rest
	}
}
