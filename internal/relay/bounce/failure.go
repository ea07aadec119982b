package bounce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/dkim"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/resolve"
)

// ErrNoWay is returned where a bounce is due and its sender's address has no
// domain that mail could go to.
var ErrNoWay = errors.New("there is no way back to the sender")

// Options are what making bounces needs.
type Options struct {
	Hostname string // the reporting MTA
	Now      func() time.Time
	Body     func() *queue.Body // an empty body of the queue that the bounces go to
	Signer   *dkim.Signer       // signs for Hostname, if it has a key for it; nil: nothing is signed
	// Allow says whether another bounce may go to an address; nil: always. The
	// failure of a delivery whose bounce it forbids is in the queue's history only.
	Allow func(to string) bool
}

// New returns a function that makes the notification of an attempt's news, for
// [queue.Options]. It returns nil where none is due: the message came from the
// null sender, so that it is a notification itself (RFC 5321 §4.5.5), or none of
// the recipients asked for it (RFC 3461 §4.1), or the address has had its share.
func New(o Options) func(context.Context, queue.News) (*queue.Submission, error) {
	return func(_ context.Context, f queue.News) (*queue.Submission, error) {
		d := f.Delivery
		tell := told(f)
		if d.From == "" || len(tell) == 0 || o.Allow != nil && !o.Allow(d.From) {
			return nil, nil
		}
		domain, err := resolve.Name(queue.Domain(d.From))
		if err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrNoWay, d.From, err)
		}
		// Without the original a notification still says what matters.
		original, _ := f.Open()
		n := Notice{
			ID: db.NewID(), Hostname: o.Hostname, To: d.From, At: o.Now(), Arrived: d.Received, EnvID: d.EnvID,
			Until: d.Expires, Domain: d.Domain, Why: f.Why, Do: d.Do, Recipients: tell, Original: original,
		}
		s := &queue.Submission{Message: queue.Message{
			ID: n.ID, Org: d.Org,
			SMTPUTF8: !isASCII(d.From),
			// RFC 8689 §5: a notification is protected as its original was.
			RequireTLS: d.RequireTLS,
		}}
		s.EightBit = s.SMTPUTF8 // RFC 6531 §3.5
		s.Recipients = []queue.Destined{{Domain: domain, Recipient: queue.Recipient{
			Addr:   d.From,
			Notify: "NEVER", // RFC 3461 §6.2
		}}}
		s.Body = o.Body()
		if err := o.write(s.Body, n.Write()); err != nil {
			s.Body.Discard()
			return nil, fmt.Errorf("writing the bounce of delivery %s: %w", d.ID, err)
		}
		return s, nil
	}
}

// write writes a notification and, before it, its signatures.
func (o Options) write(body *queue.Body, text []byte) error {
	signatures, err := o.Signer.Sign(o.Hostname, dkim.Email, bytes.NewReader(text))
	if err != nil {
		return err
	}
	_, err = body.Write(append(signatures, text...))
	return err
}

// told chooses the recipients whose news the sender wants to hear. Who did not
// say hears of failures and delays, and of a success who asked for it (RFC 3461
// §4.1, §5.2.2).
func told(n queue.News) []Recipient {
	var tell []Recipient
	for _, r := range n.Failed {
		if r.Notify == "" || listed(r.Notify, "FAILURE") {
			code, bySMTP := status(r.Reply)
			tell = append(tell, recipient(r, Failed, code, bySMTP))
		}
	}
	for _, r := range n.Delayed {
		if r.Notify == "" || listed(r.Notify, "DELAY") {
			code, bySMTP := status(r.Reply)
			// RFC 3463 §2: what is tried again is of class 4.
			tell = append(tell, recipient(r, Delayed, "4"+code[1:], bySMTP))
		}
	}
	for _, r := range n.Relayed {
		if listed(r.Notify, "SUCCESS") {
			tell = append(tell, recipient(r, Relayed, "2.0.0", true))
		}
	}
	return tell
}

func recipient(r queue.Recipient, a Action, code string, bySMTP bool) Recipient {
	return Recipient{Action: a, Addr: r.Addr, ORcpt: r.ORcpt, Status: code, Reply: r.Reply, SMTP: bySMTP}
}

func listed(list, word string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(item), word) {
			return true
		}
	}
	return false
}

// expired is the status of what was given up (RFC 3463 §3.5: delivery time expired).
const expired = "4.4.7"

// status finds the enhanced status code in what was said of a recipient, and
// whether it was said in SMTP.
func status(said string) (code string, bySMTP bool) {
	words := strings.Fields(said)
	if len(words) > 0 && isReplyCode(words[0]) {
		bySMTP = true
		code = words[0][:1] + ".0.0"
		words = words[1:]
	}
	if len(words) > 0 {
		if e, ok := enhanced(words[0]); ok {
			return e, bySMTP
		}
	}
	if code == "" {
		code = expired
	}
	return code, bySMTP
}

func isReplyCode(s string) bool {
	return len(s) == 3 && (s[0] == '4' || s[0] == '5') && s[1] >= '0' && s[1] <= '5' && s[2] >= '0' && s[2] <= '9'
}

// enhanced reads an enhanced status code of a failure (RFC 3463 §2).
func enhanced(s string) (string, bool) {
	const parts, digits = 3, 3
	fields := strings.Split(s, ".")
	if len(fields) != parts || fields[0] != "4" && fields[0] != "5" {
		return "", false
	}
	for _, f := range fields[1:] {
		if f == "" || len(f) > digits || strings.Trim(f, "0123456789") != "" {
			return "", false
		}
	}
	return s, true
}
