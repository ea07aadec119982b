package verify

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/mtasts"
)

// AnswerKind is the kind of answer that Postfix is given for a whole domain
// (decisions table 3).
type AnswerKind uint8

// The kinds of answers. AnswerMay and AnswerEncrypt come from an override only.
const (
	AnswerNotFound AnswerKind = iota // no more than the operator's own level
	AnswerDANE                       // "dane": hosts with TLSA records are held to them
	AnswerDANEOnly                   // "dane-only": only hosts with usable TLSA records are used
	AnswerSecure                     // "secure match=…": an MTA-STS policy, or an override's list
	AnswerTemp                       // mail waits, for the reason given
	AnswerMay                        // "may": the operator lifted every demand
	AnswerEncrypt                    // "encrypt": TLS without authentication, as the operator says
	AnswerKinds                      // how many there are
)

var answerNames = [...]string{"notfound", "dane", "dane-only", "secure", "temp", "may", "encrypt"}

// String returns the level as Postfix spells it, or "notfound" or "temp".
func (k AnswerKind) String() string {
	if k >= AnswerKinds {
		return "unknown"
	}
	return answerNames[k]
}

// MarshalText writes the kind by its name.
func (k AnswerKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a kind's name.
func (k *AnswerKind) UnmarshalText(text []byte) error {
	for kind, name := range answerNames {
		if name == string(text) {
			*k = AnswerKind(kind)
			return nil
		}
	}
	return fmt.Errorf("%.20q is not a kind of answer", text)
}

// AnswerForms is how many forms of reply an answer keeps: without and with the
// attributes that Postfix knows from 3.10 on.
const AnswerForms = 2

// Answer is what Postfix is told about one domain. It is shared by all who ask
// and must not be changed.
type Answer struct {
	Domain string     `json:"domain"`
	Kind   AnswerKind `json:"kind"`
	// Match, of a secure answer, holds patterns as a policy writes them
	// ("mx.a.test", "*.b.a.test"), or the names of the hosts that may be used.
	Match []string `json:"match,omitempty"`
	// Policy is the MTA-STS policy that holds, nil where none does. An
	// override's list is not one.
	Policy  *mtasts.Policy   `json:"policy,omitempty"`
	Failure *outcome.Failure `json:"failure,omitempty"` // the policy could not be fetched or refreshed: policy_failure
	Reason  string           `json:"reason"`            // why this answer, for the mail log: one line
	Cell    string           `json:"cell"`
	// Override says which override decided, with its reason and author.
	Override string `json:"override,omitempty"`
	// Observe: the answer is NOTFOUND because the destination is only observed;
	// Would is the answer it would have been.
	Observe    bool       `json:"observe,omitempty"`
	Would      AnswerKind `json:"would,omitempty"`
	At         time.Time  `json:"at"`
	ValidUntil time.Time  `json:"valid_until"` // asked again after that

	replies [AnswerForms]atomic.Pointer[[]byte]
}

// Reply returns the bytes that build makes of the answer. They are made once
// for each form (0 to AnswerForms-1) and kept with the answer, so that a cached
// answer costs one write.
func (a *Answer) Reply(form int, build func(*Answer) []byte) []byte {
	if b := a.replies[form].Load(); b != nil {
		return *b
	}
	b := build(a)
	a.replies[form].Store(&b)
	return b
}
