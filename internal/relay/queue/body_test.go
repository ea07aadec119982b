package queue

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func TestTextIsPutInFrontOfABody(t *testing.T) {
	for name, n := range map[string]int{"none": 0, "small": 100, "as large as fits in memory": InlineBody, "in a file": InlineBody + 1, "large": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			b := &Body{spool: t.TempDir()}
			body := strings.Repeat("x", n)
			if _, err := io.WriteString(b, body); err != nil {
				t.Fatal(err)
			}
			for _, head := range []string{"second: 2\r\n", "first: 1\r\n"} {
				if err := b.Prepend([]byte(head)); err != nil {
					t.Fatal(err)
				}
			}
			want := "first: 1\r\nsecond: 2\r\n" + body + "end"
			if _, err := io.WriteString(b, "end"); err != nil {
				t.Fatal(err)
			}
			got := string(b.mem)
			if b.file != nil {
				r, err := b.rewind()
				if err != nil {
					t.Fatal(err)
				}
				all, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				got = string(all)
			}
			if got != want || b.Size() != int64(len(want)) {
				t.Errorf("%d bytes, said to be %d, want %d", len(got), b.Size(), len(want))
			}
			b.Discard()
			left, err := os.ReadDir(b.spool)
			if err != nil || len(left) > 0 {
				t.Errorf("left in the spool: %v, %v", left, err)
			}
		})
	}
}

func TestABodyThatCannotBeCopiedIsNotEnqueued(t *testing.T) {
	b := &Body{spool: t.TempDir()}
	if _, err := io.WriteString(b, strings.Repeat("x", InlineBody)); err != nil {
		t.Fatal(err)
	}
	b.spool += "/nowhere"
	if err := b.Prepend([]byte("a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := b.Prepend([]byte("a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second time: %v", err)
	}
}
