package policy

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// state is what is known of one domain's MTA-STS at one moment. A state is
// never changed once it is shared: what is learnt makes a new one. Times are
// Unix microseconds, so that many states are small and compare cheaply; 0 is
// never.
type state struct {
	policy  *mtasts.Policy // the cached policy, nil if none; without its unknown fields
	id      string         // of the record that policy was fetched under
	fetched int64
	expires int64

	looked int64  // the record was asked for
	check  int64  // and is to be asked for again
	text   string // the error, where the record could not be looked up or is invalid

	fail  *failure // the policy host failed; nil since the last success
	since int64    // the record cannot be looked up since then, nothing being cached; 0: it can
	tried int64    // the last such failure

	refresh int64 // the background looks at the domain again
	used    int64 // a day on which someone asked

	facts  stsFacts // the last word of table 1, and what it was asked with
	use    use
	record record // what the last lookup came to, on whichever node
	said   said
	secure bool // the record's answer was authentic
	unread bool // the database did not answer: nothing of this is stored
}

// failure is one or more failures in a row to get a policy over HTTPS.
type failure struct {
	at      int64
	id      string // of the record that was followed: the back-off is per id (RFC 8461 §3.3)
	count   int
	outcome outcome.Failure
}

// said is what has been told of a domain already, so that each is told once.
type said uint8

const (
	saidVanished said = 1 << iota
	saidHeld
	saidReleased
)

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// live reports whether a policy is cached and younger than its max_age
// (RFC 8461 §3.2).
func (s *state) live(now int64) bool { return s.policy != nil && now < s.expires }

// cache is what table 1 is told of the cache.
func (s *state) cache(now int64) cached {
	switch {
	case s.policy == nil:
		return cacheNone
	case now < s.expires:
		return cacheLive
	default:
		return cacheExpired
	}
}

// current reports whether the state answers at now without being looked at
// again. A live policy answers even when its check is due.
func (s *state) current(now int64) bool { return now < s.check && (s.policy == nil || now < s.expires) }

// backedOff reports whether HTTPS failed for id less than backOff ago.
func (s *state) backedOff(id string, now int64, backOff time.Duration) bool {
	return s.fail != nil && s.fail.id == id && now < s.fail.at+backOff.Microseconds()
}

// successor is the state that the next look starts from.
func (s *state) successor() *state {
	next := *s
	next.unread = false
	return &next
}

// adopt takes over a policy that HTTPS just gave. Without a valid record the id
// stays what it was.
func (s *state) adopt(f mtasts.Fetched, id string, now int64) {
	s.policy = compact(f.Policy)
	if id != "" {
		s.id = id
	}
	s.fetched = now
	s.expires = now + f.Policy.MaxAge.Microseconds()
	s.fail = nil
}

// compact is the policy with nothing that is not needed, and in memory of its
// own: the strings of a parsed policy hold on to all that was fetched.
func compact(p mtasts.Policy) *mtasts.Policy {
	c := &mtasts.Policy{Mode: mtasts.None, MaxAge: p.MaxAge, MX: make([]string, len(p.MX))}
	for _, mode := range []mtasts.Mode{mtasts.Enforce, mtasts.Testing} {
		if p.Mode == mode {
			c.Mode = mode
		}
	}
	all := strings.Join(p.MX, "")
	for i, mx := range p.MX {
		c.MX[i], all = all[:len(mx)], all[len(mx):]
	}
	return c
}

// failed counts one more failure of the policy host.
func (s *state) failed(id string, now int64, f outcome.Failure) *failure {
	next := &failure{at: now, id: id, count: 1, outcome: f}
	if s.fail != nil {
		next.count = s.fail.count + 1
	}
	return next
}

// sameRow reports whether t would be stored as s is. What a lookup says that
// changes nothing is not worth a write.
func (s *state) sameRow(t *state) bool {
	return s.policy == t.policy && s.id == t.id && s.fetched == t.fetched && s.expires == t.expires &&
		s.fail == t.fail && s.since == t.since && t.tried-s.tried < triedEvery.Microseconds() &&
		s.refresh == t.refresh && day(s.used) == day(t.used) && s.said == t.said &&
		s.recordKind() == t.recordKind()
}

// recordKind is what is stored of the last lookup: whether there is a record.
func (s *state) recordKind() record {
	if s.record == recordSameID {
		return recordNewID
	}
	return s.record
}

// sameAnswer reports whether t makes the same answers as s.
func (s *state) sameAnswer(t *state) bool {
	return s.policy == t.policy && s.mode() == t.mode() && (s.policy != nil || s.record == t.record) &&
		s.fail == t.fail && s.since == t.since
}

// triedEvery is how much later a failure is before it is stored again.
const triedEvery = 10 * time.Minute

// day is the day of a time.
func day(us int64) int64 { return us / (24 * time.Hour).Microseconds() }

// mode is what the policy that holds asks for.
func (s *state) mode() mode {
	switch {
	case s.use == useHold:
		return modeUnknown
	case s.use == useNothing || s.policy == nil:
		return modeNone
	}
	switch s.policy.Mode {
	case mtasts.Enforce:
		return modeEnforce
	case mtasts.Testing:
		return modeTesting
	default:
		return modeNone // RFC 8461 §5: as though it does not have any active policy
	}
}

// weight is about how many bytes the state takes, for the bound of the memory cache.
func (s *state) weight() uint32 {
	const fixed = 896 // the state, its slot, the cache's node, an answer and a reply: measured
	w := fixed + len(s.id) + len(s.text)
	if s.policy != nil {
		for _, mx := range s.policy.MX {
			w += 16 + 3*len(mx) // the pattern, and its place in a reply
		}
	}
	return uint32(w)
}

// sts shows the state as the answer for a domain.
func (s *state) sts(domain string, cached bool) verify.STS {
	answer := verify.STS{Domain: domain, Cached: cached, Unknown: s.use == useHold, Cell: s.facts.cell()}
	if s.policy != nil && (s.use == useCached || s.use == useFetched) {
		answer.Found = true
		answer.Policy = *s.policy
		answer.ID = s.id
		answer.Fetched = fromMicro(s.fetched)
		answer.Expires = fromMicro(s.expires)
	}
	if s.fail != nil {
		answer.Failure = s.reported(domain)
	}
	return answer
}

// reported is the failure of discovery as TLS-RPT knows it (RFC 8460 §4.4).
func (s *state) reported(domain string) *outcome.Policy {
	p := &outcome.Policy{Type: outcome.STS, Domain: domain, Failure: &s.fail.outcome}
	if s.policy != nil {
		p.Strings, p.MXHosts = s.policy.Strings(), s.policy.MX
	}
	return p
}

// steps is the reasoning behind the state, as data.
func (s *state) steps(domain string) []verify.Step {
	steps := make([]verify.Step, 0, 3)
	if s.looked != 0 {
		steps = append(steps, verify.Step{
			At: fromMicro(s.looked), Asked: "TXT _mta-sts." + domain, Answer: s.recordAnswer(), Authentic: s.secure,
		})
	}
	if s.fail != nil {
		steps = append(steps, verify.Step{
			At: fromMicro(s.fail.at), Asked: "GET " + policyURL(domain),
			Answer: string(s.fail.outcome.Result) + ": " + s.fail.outcome.Info,
			Note:   "asked again five minutes after a failure at the earliest (RFC 8461 §3.3)",
		})
	}
	last := verify.Step{At: fromMicro(s.looked), Asked: "MTA-STS of " + domain, Cell: s.facts.cell(), Answer: s.useAnswer()}
	if s.policy != nil && s.use == useCached {
		last.Asked = "cache"
		last.Note = "fetched " + fromMicro(s.fetched).Format(time.RFC3339) + ", holds until " + fromMicro(s.expires).Format(time.RFC3339)
	}
	return append(steps, last)
}

func (s *state) recordAnswer() string {
	switch s.record {
	case recordSameID:
		return "valid, id as cached"
	case recordNewID:
		return "valid, new id"
	case recordNone:
		return "none: " + s.text
	case recordUnknown:
		return "could not be looked up: " + s.text
	default:
		return "not asked yet"
	}
}

func (s *state) useAnswer() string {
	switch {
	case s.use == useHold:
		return "not known: mail waits"
	case s.use == useNothing || s.policy == nil:
		return "no policy"
	default:
		return "mode " + string(s.policy.Mode) + ", id " + s.id
	}
}

func policyURL(domain string) string { return "https://mta-sts." + domain + "/.well-known/mta-sts.txt" }

// slot is a domain's place in memory: its state, and the answer made of it for
// Postfix.
type slot struct {
	state   atomic.Pointer[state]
	answers [routes]atomic.Pointer[held]
	day     atomic.Int64 // the last day on which use was noted

	renewing atomic.Bool // the answer is being made anew behind
}
