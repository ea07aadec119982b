package rate

import (
	"net/netip"
	"strconv"
	"testing"
	"time"
)

// clock is a time that a test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time           { return c.Time }
func (c *clock) pass(d time.Duration)     { c.Time = c.Add(d) }
func at(hour int) *clock                  { return &clock{time.Date(2026, 6, 1, hour, 0, 0, 0, time.UTC)} }
func took(t *Table, p string, n int) bool { _, ok := t.Take(p, n); return ok }

func TestABurstIsThereAtOnceAndComesBackEvenly(t *testing.T) {
	c := at(12)
	table := New(Limit{Burst: 6, Per: time.Minute}, c.now)
	for i := range 6 {
		if !took(table, "a", 1) {
			t.Fatalf("the burst ends after %d", i)
		}
	}
	wait, ok := table.Take("a", 1)
	if ok || wait != 10*time.Second {
		t.Fatalf("the seventh: %v, wait %v, want a wait of 10s", ok, wait)
	}
	c.pass(wait)
	if !took(table, "a", 1) || took(table, "a", 1) {
		t.Error("after 10s there is not exactly one")
	}
}

func TestPartiesHaveBucketsOfTheirOwn(t *testing.T) {
	table := New(Limit{Burst: 1, Per: time.Hour}, at(12).now)
	if !took(table, "a", 1) || !took(table, "b", 1) || took(table, "a", 1) {
		t.Error("a and b share a bucket, or have none")
	}
}

func TestWhatIsGivenBackCanBeTakenAgain(t *testing.T) {
	table := New(Limit{Burst: 2, Per: time.Hour}, at(12).now)
	took(table, "a", 2)
	table.GiveBack("a", 1)
	if !took(table, "a", 1) || took(table, "a", 1) {
		t.Error("not exactly one came back")
	}
	table.GiveBack("a", 100)
	if !took(table, "a", 2) || took(table, "a", 1) {
		t.Error("more came back than a bucket holds")
	}
}

func TestMoreThanABurstIsNeverThere(t *testing.T) {
	table := New(Limit{Burst: 5, Per: time.Minute}, at(12).now)
	if wait, ok := table.Take("a", 6); ok || wait != 0 {
		t.Errorf("six of five: %v, wait %v", ok, wait)
	}
	if !took(table, "a", 5) {
		t.Error("the refused one took something")
	}
}

func TestTheZeroLimitDoesNotLimit(t *testing.T) {
	table := New(Limit{}, at(12).now)
	for range 1000 {
		if !took(table, "a", 1000) {
			t.Fatal("refused")
		}
	}
	table.GiveBack("a", 1)
	if len(table.buckets) != 0 {
		t.Error("it keeps buckets")
	}
}

func TestAClockThatIsSetBackFillsNothing(t *testing.T) {
	c := at(12)
	table := New(Limit{Burst: 1, Per: time.Minute}, c.now)
	took(table, "a", 1)
	c.pass(-time.Hour)
	if took(table, "a", 1) {
		t.Error("the past filled the bucket")
	}
	c.pass(time.Minute)
	if !took(table, "a", 1) {
		t.Error("it does not fill any more")
	}
}

func TestAFloodOfNamesPushesNobodyOutAndSharesOneBucket(t *testing.T) {
	c := at(12)
	table := New(Limit{Burst: 10, Per: time.Hour}, c.now)
	table.most = 100
	took(table, "known", 10)
	let := 0
	for i := range 1000 {
		if took(table, "flood"+strconv.Itoa(i), 1) {
			let++
		}
	}
	if want := 99 + 10; let != want {
		t.Errorf("%d of the flood were let through, want %d", let, want)
	}
	if took(table, "known", 1) {
		t.Error("the flood reset a bucket")
	}
	if len(table.buckets) != 100 {
		t.Errorf("the table holds %d buckets, want its cap", len(table.buckets))
	}
	c.pass(time.Hour)
	if !took(table, "new", 10) || len(table.buckets) != 1 {
		t.Errorf("buckets that filled up are still there: %d", len(table.buckets))
	}
}

func TestAClientIsAnIPv4AddressOrAnIPv6Network(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
		"2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := Client(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Client(%s) = %s, want %s", addr, got, want)
		}
	}
}
