package deliver

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// attemptTime is how long an attempt goes on to further hosts and addresses, from
// when it is known what they are.
const attemptTime = 10 * time.Minute

// cellMXFailed is the cell of a hold that no policy is the reason of: the MX
// hosts could not be looked up.
const cellMXFailed = "mx/failed"

// attempt is one attempt at one delivery.
type attempt struct {
	*mail
	d      *Deliverer
	began  time.Time
	asked  time.Time // when it was first known which hosts there are
	fresh  bool      // DNS is asked anew
	route  *Route    // nil: the mail goes to the domain's own hosts
	full   bool      // all that is said is kept
	said   string    // the last reply that mattered
	dest   verify.Destination
	open   []int // recipients that are left to deliver, by index
	result queue.Result

	walked
	met bool // a host took part in a mail transaction
}

// walked is what one walk through the hosts came to.
type walked struct {
	byPolicy bool // a policy kept a host from being used…
	held     bool // …in a way that only makes the mail wait
	soft     bool // something else did that may be otherwise later
	alone    bool // a host failed this message for what it alone is or asks for
	ours     bool // pawl broke it off: that says nothing of the destination
	word     *word

	why, do string     // where it did not come to a host
	telling *queue.Try // the try that says best why mail is left, or how it went
	weight  weight     // of that try
}

// word is something said for good about all that is left. It holds if every
// host says the like.
type word struct {
	status string // enhanced code
	reply  string // the host's, if it said it; else status and why are one
	why    string // empty: what the telling try says, behind before
	before string
	do     string
	// settled: it was said over a connection that was good enough, so that it
	// does not depend on what DNS and policy say.
	settled bool
}

// weight says how much a try has to tell.
type weight int

const (
	ofTheNet     weight = iota + 1 // it was not reached, or had no time
	ofTheHost                      // it was spoken to, or must not be, and is no good
	ofTheMessage                   // it decided about the message
	ofSuccess                      // it took it
)

// run walks through the hosts. Nothing fails for good by what DNS or a policy
// said before both have been asked anew (RFC 8461 §5.1), and the hosts with them.
func (a *attempt) run(ctx context.Context) {
	if len(a.open) == 0 {
		return
	}
	a.walk(ctx)
	if len(a.open) > 0 && a.final() && !a.word.settled && !a.fresh && !over(ctx) {
		a.fresh, a.walked = true, walked{}
		a.walk(ctx)
	}
}

// walk goes from the destination to its hosts.
func (a *attempt) walk(ctx context.Context) {
	if !a.ask(ctx) {
		return
	}
	if a.asked.IsZero() {
		a.asked = a.d.opts.Now()
	}
	mx := order(a.dest.MX, a.d.opts.Hostname)
	if mx.self && len(mx.hosts) == 0 {
		a.dnsSays("5.4.6", "the best MX host of "+a.dest.Domain+" is this host itself ("+a.d.opts.Hostname+"), which has no mailboxes",
			"Name another host as the MX, or give this one another hostname in the configuration.")
		return
	}
	for i, host := range mx.hosts {
		if over(ctx) || i > 0 && a.late(ctx) {
			a.soft = true
			return
		}
		if a.host(ctx, host) || len(a.open) == 0 {
			return
		}
	}
	a.soft = a.soft || mx.more // a word for good must be that of all
}

// late reports whether there is no time for another connection.
func (a *attempt) late(ctx context.Context) bool {
	return over(ctx) || a.d.opts.Now().Sub(a.asked) > attemptTime
}

// over reports whether ctx has ended: a connection notices its deadline before
// the context does.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// ask asks policy about the destination. It reports whether there are hosts to
// be tried.
func (a *attempt) ask(ctx context.Context) bool {
	var err error
	switch p := a.d.opts.Policies; {
	case a.route != nil:
		a.dest, err = p.Via(ctx, a.route.Host, a.route.Port, a.route.MX, a.fresh)
	case a.fresh:
		a.dest, err = p.DestinationFresh(ctx, a.Domain)
	default:
		a.dest, err = p.Destination(ctx, a.Domain)
	}
	a.result.Story.Destination = &a.dest
	switch hold := a.dest.Hold; {
	case err != nil && !over(ctx) && resolve.IsNotFound(err) && a.route == nil:
		a.word = &word{status: "5.1.2", why: err.Error(), do: "Check the address."}
	case err != nil:
		a.soft = true
		a.why, a.do = err.Error(), "It is tried again by itself; `pawl explain "+a.Domain+"` shows how the lookups go."
	case hold != nil && (!a.waived() || len(a.dest.MX) == 0):
		a.held, a.byPolicy = true, hold.Cell != cellMXFailed
		a.why, a.do = hold.Why, hold.Do
	case a.dest.NullMX: // RFC 7505 §4.1
		a.dnsSays("5.1.10", a.dest.Domain+" takes no mail: its MX record is the null MX (RFC 7505)", "Check the address.")
	case len(a.dest.MX) == 0:
		a.soft = true
		a.why, a.do = a.Domain+" has no MX host that could be tried", "`pawl explain "+a.Domain+"` shows what DNS says."
	default:
		return true
	}
	return false
}

// dnsSays is something that DNS says for good. Under an enforced policy that is
// the path's word unless it is signed: the policy says that the domain takes mail.
// What is wrong with a smart host is the operator's to mend, and no fault of the
// recipient's.
func (a *attempt) dnsSays(status, why, do string) {
	if a.route != nil {
		a.soft = true
		a.why, a.do = why, "Name another host in the route to "+a.Domain+"."
		return
	}
	enforced := a.dest.STS.Found && a.dest.STS.Policy.Mode == mtasts.Enforce && !a.dest.Observe && !a.waived()
	if enforced && !a.dest.MXAuthentic {
		a.held, a.byPolicy = true, true
		a.why = "DNS says that " + why + ", but " + a.Domain + " has an MTA-STS policy in mode enforce, which says otherwise"
		a.do = "Look at the name servers of " + a.Domain + ": the answer may be forged."
		return
	}
	a.word = &word{status: status, why: why, do: do}
}

// final reports whether what is left fails for good: a word was said for good,
// and nothing that may be otherwise later kept mail from going.
func (a *attempt) final() bool { return a.word != nil && !a.soft && !a.held }

// sum sums the attempt up.
func (a *attempt) sum(ctx context.Context) {
	s := &a.result.Story
	s.Took = a.d.opts.Now().Sub(a.began)
	failed := false
	for _, r := range a.result.Recipients {
		s.OK = s.OK || r.State == queue.Delivered
		failed = failed || r.State == queue.Failed
	}
	if a.telling != nil {
		a.why, a.do = a.telling.Why, a.telling.Do
	}
	switch {
	case len(a.open) == 0:
	case over(ctx):
		a.brokenOff(ctx)
	case a.final():
		a.fail()
		failed = true
	}
	s.Why, s.Do = a.why, a.do
	if len(a.open) > 0 {
		a.result.ByPolicy = a.byPolicy
		a.result.DestinationDown = !a.met && !a.alone && !a.ours
	}
	if len(a.open) > 0 || failed {
		a.result.Why, a.result.Do = a.why, a.do
	}
}

// brokenOff explains an attempt that was not gone through with.
func (a *attempt) brokenOff(ctx context.Context) {
	if !errors.Is(ctx.Err(), context.Canceled) {
		why := "the attempt was given up because it took too long"
		if a.why != "" {
			why += "; " + a.why
		}
		a.why, a.do = why, "It is made again by itself; the hosts of "+a.Domain+" may be overloaded."
		return
	}
	a.ours = true
	a.why, a.do = "the attempt was broken off because pawl stops", "It is made again when pawl runs."
}

// fail ends all that is left by the word that was said.
func (a *attempt) fail() {
	if a.word.why != "" {
		a.why = a.word.why
	} else {
		a.why = a.word.before + a.why
	}
	a.do = a.word.do
	reply := a.word.reply
	if reply == "" {
		reply = a.word.status + " " + a.why
	}
	for _, i := range a.open {
		r := a.Recipients[i]
		r.State, r.Reply = queue.Failed, reply
		a.result.Recipients[i] = r
	}
	a.open = nil
}

// note adds a try to the story, and remembers it if it tells more than those
// before: among equals the first does, which is the preferred host's.
func (a *attempt) note(t *queue.Try, w weight) {
	t.Took = a.d.opts.Now().Sub(t.At)
	a.result.Story.Tries = append(a.result.Story.Tries, *t)
	if w > a.weight {
		a.telling, a.weight = t, w
	}
}

// heed notes what a reply asks of whoever sends too much.
func (a *attempt) heed(r smtp.Reply) {
	if r.Code == 421 || r.Class() == 4 && r.Enhanced[1] == 7 {
		a.result.Throttled = true
	}
}

// oneLine folds white space, line ends among it, into single blanks.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
