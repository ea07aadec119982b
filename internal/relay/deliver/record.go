package deliver

import (
	"errors"
	"slices"
	"time"
)

const (
	// maxRecordings is how many destinations are in transcript mode at once.
	maxRecordings = 100
	// MaxRecording is how long a destination is in transcript mode at most.
	MaxRecording = 7 * 24 * time.Hour

	// maxFullLines and maxFullTranscript take the place of maxLines and
	// maxTranscript in transcript mode: a transaction with 1000 recipients fits.
	maxFullLines      = 4000
	maxFullTranscript = 256 << 10
)

// ErrRecordings is returned where as many destinations are in transcript mode as
// there may be.
var ErrRecordings = errors.New("100 destinations are in transcript mode already")

// Recording is a destination in transcript mode: everything that is said in its
// attempts is kept in their stories.
type Recording struct {
	Domain string    `json:"domain"` // A-labels
	Until  time.Time `json:"until"`
}

// Record puts a destination into transcript mode until a time, or, with one that
// is over, ends that.
func (d *Deliverer) Record(domain string, until time.Time) error {
	for {
		old := d.records.Load()
		list := slices.DeleteFunc(d.Recordings(), func(r Recording) bool { return r.Domain == domain })
		if until.After(d.opts.Now()) {
			if len(list) >= maxRecordings {
				return ErrRecordings
			}
			list = append(list, Recording{domain, until})
		}
		if d.records.CompareAndSwap(old, &list) {
			return nil
		}
	}
}

// Recordings lists the destinations in transcript mode, in the order in which
// they were put there.
func (d *Deliverer) Recordings() []Recording {
	now, list := d.opts.Now(), []Recording{}
	if all := d.records.Load(); all != nil {
		for _, r := range *all {
			if r.Until.After(now) {
				list = append(list, r)
			}
		}
	}
	return list
}

// recorded reports whether a destination is in transcript mode.
func (d *Deliverer) recorded(domain string) bool {
	all := d.records.Load()
	return all != nil && slices.ContainsFunc(*all, func(r Recording) bool { return r.Domain == domain && r.Until.After(d.opts.Now()) })
}
