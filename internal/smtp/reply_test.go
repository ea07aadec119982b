package smtp_test

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/smtp"
)

func TestRepliesAreRead(t *testing.T) {
	for _, tt := range []struct {
		wire string
		want smtp.Reply
		text string
	}{
		{"220 mx.example.com ESMTP\r\n", smtp.Reply{Code: 220, Lines: []string{"mx.example.com ESMTP"}}, "220 mx.example.com ESMTP"},
		{"250\r\n", smtp.Reply{Code: 250, Lines: []string{""}}, "250"},
		{"250 \r\n", smtp.Reply{Code: 250, Lines: []string{""}}, "250"},
		{
			"250-mx.example.com\r\n250-SIZE 10\r\n250 DSN\r\n",
			smtp.Reply{Code: 250, Lines: []string{"mx.example.com", "SIZE 10", "DSN"}},
			"250 mx.example.com, SIZE 10, DSN",
		},
		{
			"550-5.7.1 Not for you.\r\n550 5.7.1 Ask again.\r\n",
			smtp.Reply{Code: 550, Enhanced: smtp.Enhanced{5, 7, 1}, Lines: []string{"Not for you.", "Ask again."}},
			"550 5.7.1 Not for you., Ask again.",
		},
		{
			"550-5.7.1 Not for you.\r\n550 without the code\r\n",
			smtp.Reply{Code: 550, Enhanced: smtp.Enhanced{5, 7, 1}, Lines: []string{"Not for you.", "without the code"}},
			"550 5.7.1 Not for you., without the code",
		},
		{"550 4.7.1 class differs\r\n", smtp.Reply{Code: 550, Lines: []string{"4.7.1 class differs"}}, "550 4.7.1 class differs"},
		{"550 5.7.1000 x\r\n", smtp.Reply{Code: 550, Lines: []string{"5.7.1000 x"}}, "550 5.7.1000 x"},
		{"250 2.0.0\r\n", smtp.Reply{Code: 250, Enhanced: smtp.Enhanced{2, 0, 0}, Lines: []string{""}}, "250 2.0.0"},
		{"571 odd but real\r\n", smtp.Reply{Code: 571, Lines: []string{"odd but real"}}, "571 odd but real"},
		{"250 a\x1b[31mb\xff\r\n", smtp.Reply{Code: 250, Lines: []string{"a?[31mb?"}}, "250 a?[31mb?"},
	} {
		// A small buffer shows that no line depends on its size.
		got, err := smtp.ReadReply(bufio.NewReaderSize(strings.NewReader(tt.wire), 16))
		if err != nil {
			t.Errorf("%q: %v", tt.wire, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.wire, diff)
		}
		if got.String() != tt.text {
			t.Errorf("%q: String %q, want %q", tt.wire, got.String(), tt.text)
		}
	}
}

func TestMalformedRepliesAreRefused(t *testing.T) {
	for name, wire := range map[string]string{
		"LF alone ends a line":      "250 ok\n",
		"a CR inside a line":        "250 a\rb\r\n",
		"CR CR LF":                  "250 ok\r\r\n",
		"no code":                   "hello\r\n",
		"a code of two digits":      "25 ok\r\n",
		"a code of four digits":     "2500 ok\r\n",
		"a code below 200":          "150 ok\r\n",
		"a code above 599":          "650 ok\r\n",
		"an empty line":             "\r\n",
		"two codes in one reply":    "250-a\r\n251 b\r\n",
		"a NUL":                     "250 a\x00b\r\n",
		"a line that is too long":   "250 " + strings.Repeat("x", smtp.MaxReplyLine) + "\r\n",
		"too many lines":            strings.Repeat("250-x\r\n", smtp.MaxReplyLines+1) + "250 x\r\n",
		"no blank after the code":   "250ok\r\n",
		"a line that never ends":    strings.Repeat("2", 100_000),
		"an HTTP server's greeting": "HTTP/1.1 400 Bad Request\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r, err := smtp.ReadReply(bufio.NewReader(strings.NewReader(wire)))
			var malformed *smtp.ReplyError
			if !errors.As(err, &malformed) {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

func TestTheEndOfInputIsToldFromTheEndInsideAReply(t *testing.T) {
	for wire, want := range map[string]error{
		"":                io.EOF,
		"250":             io.ErrUnexpectedEOF,
		"250-a\r\n":       io.ErrUnexpectedEOF,
		"250-a\r\n250 ok": io.ErrUnexpectedEOF,
	} {
		if _, err := smtp.ReadReply(bufio.NewReader(strings.NewReader(wire))); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", wire, err, want)
		}
	}
}

func TestRepliesAreWritten(t *testing.T) {
	long := strings.Repeat("word ", 120) + "end"
	for _, tt := range []struct {
		name  string
		reply smtp.Reply
		want  string
	}{
		{"one line", smtp.Reply{Code: 250, Enhanced: smtp.Enhanced{2, 0, 0}, Lines: []string{"ok"}}, "250 2.0.0 ok\r\n"},
		{"no text", smtp.Reply{Code: 250}, "250 \r\n"},
		{"several lines", smtp.Reply{Code: 550, Enhanced: smtp.Enhanced{5, 7, 1}, Lines: []string{"a", "b"}}, "550-5.7.1 a\r\n550 5.7.1 b\r\n"},
		{"a line end in the text is none", smtp.Reply{Code: 550, Lines: []string{"a\r\n250 b"}}, "550 a??250 b\r\n"},
		{"only ASCII", smtp.Reply{Code: 550, Lines: []string{"ü\x7f"}}, "550 ???\r\n"},
		{
			"a long text is broken at a blank",
			smtp.Reply{Code: 450, Enhanced: smtp.Enhanced{4, 7, 0}, Lines: []string{long}},
			"450-4.7.0 " + strings.TrimSuffix(strings.Repeat("word ", 99), " ") + "\r\n450 4.7.0 " + strings.Repeat("word ", 21) + "end\r\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(tt.reply.Append(nil))
			if got != tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
			for line := range strings.SplitAfterSeq(got, "\r\n") {
				if len(line) > 512 { // RFC 5321 §4.5.3.1.5
					t.Errorf("a line of %d octets", len(line))
				}
			}
		})
	}
}

func TestAReplyIsAnErrorFrom400On(t *testing.T) {
	for _, code := range []int{220, 250, 354} {
		if err := (smtp.Reply{Code: code}).Err(); err != nil {
			t.Errorf("%d: %v", code, err)
		}
	}
	err := smtp.Reply{Code: 451, Enhanced: smtp.Enhanced{4, 3, 0}, Lines: []string{"a", "b"}}.Err()
	var e *smtp.Error
	if !errors.As(err, &e) || !e.Temporary() || e.Error() != "451 4.3.0 a, b" {
		t.Errorf("got %v", err)
	}
	if smtp.Errorf(550, smtp.Enhanced{5, 1, 1}, "no").Temporary() {
		t.Error("550 counts as temporary")
	}
}

func TestExtensionsAreRead(t *testing.T) {
	e := smtp.ParseExtensions(smtp.Reply{Code: 250, Lines: []string{
		"mx.example.com SIZE", "size 1000", "PIPELINING", "AUTH  PLAIN LOGIN ", "AUTH=PLAIN", "8bitmime", "SIZE 5", "X-FOO a b", "bad_word", "",
	}})
	want := smtp.Extensions{"SIZE": "1000", "PIPELINING": "", "AUTH": "PLAIN LOGIN", "8BITMIME": "", "X-FOO": "a b"}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if e.MaxSize() != 1000 || !e.HasAuth("plain") || e.HasAuth("CRAM-MD5") || !e.Has(smtp.EightBitMIME) || e.Has(smtp.StartTLS) {
		t.Errorf("wrong answers of %v", e)
	}
	if diff := cmp.Diff(smtp.Offer{Size: true, EightBit: true, Auth: true}, e.Offer()); diff != "" {
		t.Errorf("offer -want +got:\n%s", diff)
	}
	if n := (smtp.Extensions{"SIZE": "x"}).MaxSize(); n != 0 {
		t.Errorf("MaxSize %d of a malformed SIZE", n)
	}
	if e := smtp.ParseExtensions(smtp.Reply{Code: 250}); len(e) != 0 {
		t.Errorf("got %v of nothing", e)
	}
}

func FuzzReply(f *testing.F) {
	f.Add("250-5.7.1 a\r\n250 b\r\n")
	f.Add("550-5.7.1 a\r\n550 5.7.1 b\r\n250 x")
	f.Add("250\r\n")
	f.Fuzz(func(t *testing.T, wire string) {
		r, err := smtp.ReadReply(bufio.NewReaderSize(strings.NewReader(wire), 16))
		if err != nil {
			return
		}
		if r.Code < 200 || r.Code > 599 || len(r.Lines) == 0 || len(r.Lines) > smtp.MaxReplyLines {
			t.Fatalf("%q gave %+v", wire, r)
		}
		checkLine(t, strings.ReplaceAll(r.String(), "\t", ""))
		out := r.Append(nil)
		again, err := smtp.ReadReply(bufio.NewReader(strings.NewReader(string(out))))
		// Long texts are broken, so a reply may have grown beyond what is read.
		if err != nil && len(out) < smtp.MaxReplyLines*256 {
			t.Fatalf("%q written as %q: %v", wire, out, err)
		}
		if err == nil && again.Code != r.Code {
			t.Fatalf("%q came back as %+v", wire, again)
		}
		smtp.ParseExtensions(r).Offer()
	})
}
