package node

import "testing"

func TestMemoryIsGivenBackOnceAfterABurst(t *testing.T) {
	var q quiet
	var total uint64
	for i, c := range []struct {
		allocated uint64
		want      bool
	}{
		{64 << 20, false}, // the start
		{512 << 20, false},
		{quietBytes - 1, true}, // over
		{1 << 20, false},       // nothing more to give
		{quietBytes, false},
		{0, true},
	} {
		total += c.allocated
		if got := q.now(total); got != c.want {
			t.Errorf("minute %d: %v, want %v", i+1, got, c.want)
		}
	}
}
