package smtp_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// readData reads one message from wire with a buffer of the given size, and
// returns what follows it.
func readData(wire io.Reader, size int) (content, rest string, err error) {
	r := smtp.NewReader(wire)
	data := r.Data()
	var got bytes.Buffer
	buf := make([]byte, size)
	for err == nil {
		var n int
		n, err = data.Read(buf)
		got.Write(buf[:n])
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	after, _ := io.ReadAll(r)
	return got.String(), string(after), err
}

func TestOnlyTheTrueEndEndsAMessage(t *testing.T) {
	// Every variant is followed by a second message that an attacker would like
	// to see taken for one, and then by the true end.
	const inner = "MAIL FROM:<admin@a.test>\r\n.\r\n"
	const after = "QUIT\r\n"
	for _, tt := range []struct {
		name, end string
		ends      bool // at the variant itself
	}{
		{"CR LF dot CR LF", "\r\n.\r\n", true},
		{"LF dot LF", "\n.\n", false},
		{"LF dot CR LF", "\n.\r\n", false},
		{"LF dot CR", "\n.\r", false},
		{"CR dot CR", "\r.\r", false},
		{"CR dot LF", "\r.\n", false},
		{"CR dot CR LF", "\r.\r\n", false},
		{"CR LF dot LF", "\r\n.\n", false},
		{"CR LF dot CR", "\r\n.\r", false},
		{"CR LF dot CR CR LF", "\r\n.\r\r\n", false},
		{"CR LF NUL dot CR LF", "\r\n\x00.\r\n", false},
		{"CR LF dot NUL CR LF", "\r\n.\x00\r\n", false},
		{"CR NUL LF dot CR LF", "\r\x00\n.\r\n", false},
		{"LF LF dot CR LF", "\n\n.\r\n", false},
		{"CR CR dot CR LF", "\r\r.\r\n", false},
		{"LF CR dot LF CR", "\n\r.\n\r", false},
		{"CR LF LF dot CR LF", "\r\n\n.\r\n", false},
		{"CR LF CR dot CR LF", "\r\n\r.\r\n", false},
		{"CR LF dot LF CR LF", "\r\n.\n\r\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire := "Subject: x\r\n\r\nhello" + tt.end + inner + after
			wantRest := after
			if tt.ends {
				wantRest = inner + after
			}
			content, rest, err := readData(strings.NewReader(wire), 4096)
			if rest != wantRest {
				t.Errorf("after the message comes %q, want %q", rest, wantRest)
			}
			if tt.ends {
				if err != nil || content != "Subject: x\r\n\r\nhello\r\n" {
					t.Errorf("got %q, %v", content, err)
				}
				return
			}
			var refusal *smtp.Error
			if !errors.As(err, &refusal) || refusal.Code != 550 || refusal.Enhanced != (smtp.Enhanced{5, 6, 11}) {
				t.Errorf("error %v, want 550 5.6.11", err)
			}
		})
	}
}

func TestAnExtraCRBeforeTheEndDoesNotHideIt(t *testing.T) {
	_, rest, err := readData(strings.NewReader("a\r\r\n.\r\nQUIT\r\n"), 4096)
	if rest != "QUIT\r\n" {
		t.Errorf("after the message comes %q", rest)
	}
	if err == nil || err.Error() != "550 5.6.11 the message holds a bare CR: end every line in CR LF" {
		t.Errorf("error %v", err)
	}
}

func TestDotStuffingIsUndone(t *testing.T) {
	for _, tt := range []struct{ wire, content string }{
		{".\r\n", ""},
		{"\r\n.\r\n", "\r\n"},
		{"..\r\n.\r\n", ".\r\n"},
		{"...\r\n.\r\n", "..\r\n"},
		{".a\r\n.\r\n", "a\r\n"},
		{"a.\r\n.b.\r\n..\r\n.\r\n", "a.\r\nb.\r\n.\r\n"},
		{"a\r\n..\r\n..\r\n...x\r\nz\r\n.\r\n", "a\r\n.\r\n.\r\n..x\r\nz\r\n"},
	} {
		for size := 1; size < 9; size++ {
			content, rest, err := readData(strings.NewReader(tt.wire+"NEXT"), size)
			if content != tt.content || rest != "NEXT" || err != nil {
				t.Errorf("%q read by %d: %q, rest %q, %v; want %q", tt.wire, size, content, rest, err, tt.content)
			}
		}
	}
}

func TestAMessageWithoutItsEndIsNone(t *testing.T) {
	for _, wire := range []string{"", "a", "a\r\n", "a\r\n.", "a\r\n.\r", "a\n.\n", ".", ".\r", "a\r\n.\r\r\n"} {
		if _, _, err := readData(strings.NewReader(wire), 64); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: error %v, want io.ErrUnexpectedEOF", wire, err)
		}
	}
}

func TestAReadErrorInsideAMessageIsReported(t *testing.T) {
	broken := errors.New("broken")
	wire := io.MultiReader(strings.NewReader("a\r\n"), iotest.ErrReader(broken))
	if _, _, err := readData(wire, 64); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

// refData is DATA by the book: slow, and plainly right.
func refData(wire string) (content, rest string, fault smtp.Fault, ended bool) {
	raw := ""
	if after, ok := strings.CutPrefix(wire, ".\r\n"); ok {
		return "", after, 0, true
	}
	i := strings.Index(wire, "\r\n.\r\n")
	if i < 0 {
		return "", "", 0, false
	}
	raw, rest = wire[:i+2], wire[i+5:]
	between := strings.ReplaceAll(raw, "\r\n", "")
	if strings.Contains(between, "\r") {
		fault |= smtp.BareCR
	}
	if strings.Contains(between, "\n") {
		fault |= smtp.BareLF
	}
	if strings.Contains(between, "\x00") {
		fault |= smtp.NUL
	}
	content = strings.ReplaceAll("\r\n"+raw, "\r\n.", "\r\n")[2:]
	return content, rest, fault, true
}

func checkAgainstReference(t *testing.T, wire string, size int, src io.Reader) {
	t.Helper()
	content, rest, fault, ended := refData(wire)
	gotContent, gotRest, err := readData(src, size)
	if !ended {
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%q has no end, yet %v", wire, err)
		}
		return
	}
	if fmt.Sprint(err) != fmt.Sprint(fault.Err()) {
		t.Fatalf("%q read by %d: error %v, want %v", wire, size, err, fault.Err())
	}
	if gotRest != rest {
		t.Fatalf("%q read by %d: rest %q, want %q", wire, size, gotRest, rest)
	}
	if fault == 0 && gotContent != content {
		t.Fatalf("%q read by %d: content %q, want %q", wire, size, gotContent, content)
	}
}

func TestEveryShortMessageReadsAsTheReferenceReadsIt(t *testing.T) {
	// All strings of up to seven of these characters, ended properly, whole and
	// octet by octet.
	const alphabet = "\r\n.a"
	var walk func(prefix string, left int)
	walk = func(prefix string, left int) {
		wire := prefix + "\r\n.\r\nX"
		checkAgainstReference(t, wire, 64, strings.NewReader(wire))
		checkAgainstReference(t, wire, 3, iotest.OneByteReader(strings.NewReader(wire)))
		if left == 0 {
			return
		}
		for i := range alphabet {
			walk(prefix+alphabet[i:i+1], left-1)
		}
	}
	walk("", 7)
}

func FuzzDataReader(f *testing.F) {
	for _, s := range []string{
		"a\r\n.\r\n", ".\r\n", "a\n.\n\r\n.\r\n", "..\r\n.\r\nMAIL", "\r\r\n.\r\n", "a\x00b\r\n.\r\n",
		strings.Repeat("line of text\r\n..x\r\n", 40) + ".\r\nQUIT\r\n",
	} {
		f.Add([]byte(s), uint8(3))
		f.Add([]byte(s), uint8(255))
	}
	f.Fuzz(func(t *testing.T, wire []byte, size uint8) {
		checkAgainstReference(t, string(wire), int(size)+1, bytes.NewReader(wire))
		checkAgainstReference(t, string(wire), int(size)+1, iotest.HalfReader(bytes.NewReader(wire)))
	})
}

func TestWhatTheDotWriterWritesTheDataReaderReads(t *testing.T) {
	for _, tt := range []struct{ content, wire string }{
		{"", ".\r\n"},
		{"a\r\n", "a\r\n.\r\n"},
		{"a", "a\r\n.\r\n"},
		{".", "..\r\n.\r\n"},
		{".\r\n.\r\n", "..\r\n..\r\n.\r\n"},
		{"a.\r\n.b\r\n..\r\n", "a.\r\n..b\r\n...\r\n.\r\n"},
	} {
		for size := 1; size <= len(tt.content)+1; size++ {
			var wire bytes.Buffer
			w := smtp.NewDotWriter(&wire)
			for rest := []byte(tt.content); len(rest) > 0; {
				n := min(size, len(rest))
				if _, err := w.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if wire.String() != tt.wire {
				t.Errorf("%q written by %d: %q, want %q", tt.content, size, wire.String(), tt.wire)
			}
		}
	}
}

func TestTheDotWriterNeverSendsABareCRorLF(t *testing.T) {
	for _, content := range []string{"a\nb\r\n", "a\n.\r\n", "a\rb", "a\r\n\r", "\n", "a\x00b"} {
		var wire bytes.Buffer
		w := smtp.NewDotWriter(&wire)
		_, err := w.Write([]byte(content))
		if err == nil {
			err = w.Close()
		}
		var refusal *smtp.Error
		if !errors.As(err, &refusal) || refusal.Code != 550 {
			t.Errorf("%q: error %v, want a refusal", content, err)
		}
		if strings.Contains(wire.String(), "\r\n.\r\n") {
			t.Errorf("%q: the message was ended: %q", content, wire.String())
		}
	}
}

func FuzzDotWriter(f *testing.F) {
	f.Add([]byte("a\r\n.b\r\n"), uint8(2))
	f.Add([]byte(".\r\n\r\n..\r\nx"), uint8(1))
	f.Fuzz(func(t *testing.T, content []byte, size uint8) {
		var wire bytes.Buffer
		w := smtp.NewDotWriter(&wire)
		for rest := content; len(rest) > 0; {
			n := min(int(size)+1, len(rest))
			if _, err := w.Write(rest[:n]); err != nil {
				return // a fault
			}
			rest = rest[n:]
		}
		if w.Close() != nil {
			return
		}
		want := string(content)
		if want != "" && !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		got, rest, err := readData(&wire, 100)
		if got != want || rest != "" || err != nil {
			t.Fatalf("%q came back as %q, rest %q, %v", content, got, rest, err)
		}
	})
}

// repeat gives the same octets again and again, as a connection would.
type repeat struct {
	wire []byte
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.wire[r.at:])
	r.at = (r.at + n) % len(r.wire)
	return n, nil
}

func BenchmarkDataReader(b *testing.B) {
	line := strings.Repeat("x", 76) + "\r\n"
	for _, bb := range []struct{ name, content string }{
		{"plain 10 KiB", strings.Repeat(line, 131)},
		{"plain 1 MiB", strings.Repeat(line, 13_443)},
		{"dot on every line", strings.Repeat("."+line, 131)},
		{"empty lines", strings.Repeat("\r\n", 5_000)},
		{"dots only", strings.Repeat("..\r\n", 2_500)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			wire := []byte(bb.content + ".\r\n")
			src := smtp.NewReader(&repeat{wire: wire})
			buf := make([]byte, 64<<10)
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				data := src.Data()
				for {
					if _, err := data.Read(buf); err != nil {
						if !errors.Is(err, io.EOF) {
							b.Fatal(err)
						}
						break
					}
				}
			}
		})
	}
}
