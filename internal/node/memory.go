package node

import (
	"context"
	"runtime/debug"
	gometrics "runtime/metrics"
	"time"
)

const (
	// quietFor is how long little must have been allocated before memory is given
	// back, and quietBytes how little.
	quietFor   = time.Minute
	quietBytes = 16 << 20
	// allocated counts the bytes that the process has allocated in all.
	allocated = "/gc/heap/allocs:bytes"
)

// giveBack returns to the system what a burst of work has left behind, once it is
// over: room that the collector keeps for the next one, and cached pages of the
// database. Under work nothing is done, as it would be asked for again at once.
func (n *Node) giveBack(ctx context.Context) error {
	tick := time.NewTicker(quietFor)
	defer tick.Stop()
	var q quiet
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s := []gometrics.Sample{{Name: allocated}}
		gometrics.Read(s)
		if !q.now(s[0].Value.Uint64()) {
			continue
		}
		if err := n.db.Shrink(ctx); err != nil {
			n.log.Debug("the database's cache was not made smaller", "err", err)
		}
		debug.FreeOSMemory()
	}
}

// quiet tells when a burst of work is over.
type quiet struct {
	last uint64 // what had been allocated when it was looked at
	busy bool   // since memory was given back
}

// now is told what has been allocated in all, and reports whether to give back.
func (q *quiet) now(total uint64) bool {
	calm := total-q.last < quietBytes
	q.last = total
	over := calm && q.busy
	q.busy = !calm
	return over
}
