package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/tlsrpt"
)

const (
	// settle is how long after a day's end its reports are planned: by then every
	// node has written what it counted.
	settle = time.Minute
	// planEvery is how often it is looked for outcomes that came in late.
	planEvery = time.Hour
	// maxAge is how old a day may be to be reported still, as after a long stop.
	maxAge = 7 * 24 * time.Hour
	// tryFor is how long a report is tried (RFC 8460 §5.5).
	tryFor = 24 * time.Hour
	// retryFirst is the wait after the first failure; it doubles up to retryMax.
	retryFirst = 15 * time.Minute
	retryMax   = 6 * time.Hour
	// askAgain is how long it takes to ask again what became of a mail.
	askAgain = 5 * time.Minute
	// round is how long the reporter sleeps at the most: the clock may leap.
	round = time.Minute
	// claimed is how many reports are taken at once, workers how many are worked on.
	claimed = 1024
	workers = 128
	// leaseFor is how long a process may take for what it has claimed.
	leaseFor = 15 * time.Minute
)

// Identity is who reports. All of it is mandatory: without it no report is built.
type Identity struct {
	Organization string // organization-name
	Contact      string // contact-info: a mailbox at Domain
	Domain       string // the submitter, which signs by DKIM
}

// Signer signs mail by DKIM. Implementations are safe for concurrent use.
type Signer interface {
	// Sign returns the message with a signature of domain in front of it, made
	// with a key for the service type ("tlsrpt", RFC 8460 §3). An error means
	// that there is no such key, or none that can be used.
	Sign(domain, service string, message []byte) ([]byte, error)
}

// Poster submits a report over HTTPS, as [tlsrpt.Poster] does.
type Poster interface {
	Post(ctx context.Context, to tlsrpt.Destination, report []byte) (tlsrpt.Answer, error)
}

// Mail is a report on its way as a message.
type Mail struct {
	Org  string
	ID   string // a UUID, the same for the same mail
	From string
	To   string // a mailbox
	Data []byte // signed, in wire form
}

// Mailer puts mail on its way, by the relay's queue or by another MTA. It must
// go despite TLS failures (RFC 8689 §3: TLS-Required: No), and its sessions must
// not be counted. Implementations are safe for concurrent use.
type Mailer interface {
	// Send hands a message over. Of one that was handed over before it makes no
	// second, as far as it can know.
	Send(ctx context.Context, m Mail) (Handed, error)
	// Fate says what became of a message that Send left open, or did not come back
	// from. The error wraps ErrNotHanded if it certainly is not there, and
	// ErrForgotten if that will never be known; after others it is asked again.
	Fate(ctx context.Context, org, id string) (Handed, error)
}

// Handed is how far a message has come.
type Handed struct {
	Done   bool   // the other side has had the last word
	OK     bool   // and took it
	Answer string // what it said
}

// ErrRefused is wrapped by an error of [Mailer.Send] for mail that will not be
// taken later either.
var ErrRefused = errors.New("the mail was refused for good")

// Errors of [Mailer.Fate].
var (
	ErrNotHanded = errors.New("the mail was not handed over")
	ErrForgotten = errors.New("whether the mail was handed over is not known")
)

// Resolver looks up TLSRPT records, as [resolve.Resolver] does.
type Resolver interface {
	TXT(ctx context.Context, name string) (resolve.Answer[string], error)
}

// Caps limit what goes to one host in a UTC day, retries included, so that
// nobody can make us flood it by naming it in many records (RFC 8460 §7).
type Caps struct {
	Reports int64
	Bytes   int64
}

// ReporterOptions are what a [Reporter] needs.
type ReporterOptions struct {
	DB       *db.DB
	Identity Identity
	Window   time.Duration // over which the reports of a day are spread (RFC 8460 §4.1)
	Keep     time.Duration // how long outcomes and reports are kept
	Caps     Caps
	OwnMTA   bool // mail goes through an MTA that may count it
	Resolver Resolver
	Signer   Signer
	Poster   Poster
	Mailer   Mailer
	Now      func() time.Time
	After    func(time.Duration) <-chan time.Time
	Log      *slog.Logger
	Random   func() float64 // within [0, 1); nil: at random
}

// Reporter builds and sends the reports of each UTC day once it is over. What it
// has done is in the database, so that several nodes share the work, and neither
// a restart nor a clock that is set back makes a report go out twice.
//
// A report goes through these states: waiting until a moment within the window
// after the day's end; then its domain's TLSRPT record is looked up and the
// report is built and stored, or skipped; sending while it is tried at each
// destination, for 24 hours; sent once one of them took it, or failed.
type Reporter struct {
	o     ReporterOptions
	owner string // of leases: this process
	wake  chan struct{}

	planning sync.Mutex
	planned  time.Time // when it was last looked for days without reports

	pruned string // the day on which was last forgotten

	mu      sync.Mutex
	trouble string // why nothing is sent now
}

// NewReporter returns a reporter; it works while [Reporter.Run] runs.
func NewReporter(o ReporterOptions) *Reporter {
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return &Reporter{o: o, owner: db.NewID(), wake: make(chan struct{}, 1)}
}

// ErrNotReady is wrapped by the error of [Reporter.Ready].
var ErrNotReady = errors.New("TLS reports are not sent")

// Ready says what keeps reports from being built, nil if nothing does.
func (r *Reporter) Ready() error {
	id := r.o.Identity
	switch {
	case id.Organization == "" || id.Contact == "" || id.Domain == "":
		return fmt.Errorf("%w: tlsrpt.organization, tlsrpt.contact and tlsrpt.domain are to be set", ErrNotReady)
	case r.o.Signer == nil:
		return fmt.Errorf("%w: there is no DKIM key for %s", ErrNotReady, id.Domain)
	}
	// RFC 8460 §3: mail lacking a signature MUST be ignored by who gets it.
	if _, err := r.o.Signer.Sign(id.Domain, service, []byte("From: "+id.Contact+"\r\n\r\n")); err != nil {
		return fmt.Errorf("%w: they cannot be signed for %s: %w", ErrNotReady, id.Domain, err)
	}
	return nil
}

// service is the service type of the DKIM key (RFC 8460 §3).
const service = "tlsrpt"

// Run plans, builds and sends until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	for {
		r.Round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-r.o.After(round):
		case <-r.wake:
		}
	}
}

// Round does all that is due now, and forgets what is old.
func (r *Reporter) Round(ctx context.Context) {
	err := r.prune(ctx)
	switch ready := r.Ready(); {
	case ready == nil:
		err = errors.Join(err, r.plan(ctx, false), r.work(ctx))
	case r.o.Identity != Identity{}: // else nobody asked for reports
		err = errors.Join(err, ready)
	}
	text := ""
	if err != nil && ctx.Err() == nil {
		text = err.Error()
	}
	r.mu.Lock()
	changed := text != r.trouble
	r.trouble = text
	r.mu.Unlock()
	if changed && text != "" {
		r.o.Log.Warn("TLS reports do not go out as they should", "err", err)
	}
}

// prune forgets old outcomes and reports, once a day.
func (r *Reporter) prune(ctx context.Context) error {
	today := dayOf(r.o.Now())
	if r.pruned == today {
		return nil
	}
	before := dayOf(r.o.Now().Add(-r.o.Keep))
	for _, table := range []string{"report_delivery", "report", "report_flow", "outcome_finding", "outcome"} {
		err := r.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE day < $1`, before)
			return err
		})
		if err != nil {
			return fmt.Errorf("forgetting what is older than %s: %w", before, err)
		}
	}
	r.pruned = today
	return nil
}
