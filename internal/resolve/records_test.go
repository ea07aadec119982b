package resolve

import (
	"fmt"
	"strings"
	"testing"
)

func TestAThousandMXAreCappedAndItShows(t *testing.T) {
	var answer []string
	for i := range 1000 {
		answer = append(answer, fmt.Sprintf("example.com. 300 IN MX %d m%d.example.com.", 2000-i, i))
	}
	s := serve(t, map[string]reply{"example.com. MX": {answer: answer}})
	r := ask(t, Options{}, s)
	mx, err := r.MX(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	if len(mx.Records) != 100 || mx.Records[0] != (MX{1001, "m999.example.com"}) || mx.Records[99] != (MX{1100, "m900.example.com"}) {
		t.Errorf("got %d records from %v to %v, want the 100 of the best preference", len(mx.Records), mx.Records[0], mx.Records[len(mx.Records)-1])
	}
	if mx.Dropped != 900 {
		t.Errorf("%d were dropped, want 900", mx.Dropped)
	}
	same(t, "notes", mx.Notes, []string{"1000 MX records; the first 100 are used"}, nil)
	if n := r.Stats().Dropped; n != 900 {
		t.Errorf("%d dropped records are counted, want 900", n)
	}
}

func TestAGiantTXTIsCutAndItShows(t *testing.T) {
	giant := `example.com. 300 IN TXT "v=STSv1; id=1; a="` + strings.Repeat(` "`+strings.Repeat("x", 255)+`"`, 200)
	s := serve(t, map[string]reply{"example.com. TXT": {answer: []string{giant, `example.com. 300 IN TXT "v=spf1 -all"`}}})
	txt, err := ask(t, Options{}, s).TXT(t.Context(), "example.com")
	if err != nil || len(txt.Records) != 2 {
		t.Fatalf("got %d records, %v; want 2", len(txt.Records), err)
	}
	if got := txt.Records[0]; len(got) != maxTXTBytes || !strings.HasPrefix(got, "v=STSv1; id=1; a=xxx") {
		t.Errorf("the giant has %d bytes and begins %.20q, want %d", len(got), got, maxTXTBytes)
	}
	same(t, "the other", txt.Records[1], "v=spf1 -all", nil)
	same(t, "notes", txt.Notes, []string{"a TXT record of 51017 bytes is cut after 8192"}, nil)
}

func TestHostsThatAreNoHostNamesAreLeftOut(t *testing.T) {
	var answer []string
	for i := range 20 {
		answer = append(answer, fmt.Sprintf(`example.com. 300 IN MX %d m\%03d.example.com.`, i, i))
	}
	answer = append(answer, "example.com. 300 IN MX 99 MX_1.example.com.", "example.com. 300 IN MX 98 192.0.2.1.")
	s := serve(t, map[string]reply{"example.com. MX": {answer: answer}})
	mx, err := ask(t, Options{}, s).MX(t.Context(), "example.com")
	same(t, "MX", mx.Records, []MX{{98, "192.0.2.1"}, {99, "mx_1.example.com"}}, err)
	if mx.Dropped != 20 || len(mx.Notes) != maxNotes {
		t.Errorf("%d dropped with %d notes, want 20 with %d", mx.Dropped, len(mx.Notes), maxNotes)
	}
	same(t, "first note", mx.Notes[0], `MX "m\\000.example.com." is not a host name`, nil)
}

func TestAMappedIPv6AddressIsNoAddress(t *testing.T) {
	s := serve(t, map[string]reply{
		"mx.test. A":    {answer: []string{"mx.test. 300 IN A 192.0.2.1"}},
		"mx.test. AAAA": {answer: []string{"mx.test. 300 IN AAAA ::ffff:192.0.2.7", "mx.test. 300 IN AAAA 2001:db8::1"}},
	})
	a, err := ask(t, Options{}, s).Addrs(t.Context(), "mx.test")
	if err != nil || len(a.Records) != 2 || a.Dropped != 1 || len(a.Notes) != 1 {
		t.Errorf("got %v, %d dropped, notes %q, %v; want two addresses and a note", a.Records, a.Dropped, a.Notes, err)
	}
}
