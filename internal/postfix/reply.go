package postfix

import (
	"fmt"
	"strings"

	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
)

// The two forms of a reply. Postfix knows the TLS-RPT attributes from 3.10 on,
// and defers mail when an older one sees them, so each form has a map name.
const (
	formPlain      = 0
	formAttributes = 1
)

// Map names, as they stand behind "socketmap:inet:HOST:PORT:" in main.cf.
const (
	MapPlain      = "pawl"        // Postfix 3.4 and newer
	MapAttributes = "pawl-tlsrpt" // Postfix 3.10 and newer
)

// maxReason is how much of the reason in a TEMP reply Postfix logs.
const maxReason = 200

// plainReply and attributesReply make the framed bytes of an answer; they are
// made once an answer and kept with it.
func plainReply(a *verify.Answer) []byte      { return netstring(replyText(a, formPlain)) }
func attributesReply(a *verify.Answer) []byte { return netstring(replyText(a, formAttributes)) }

func replyText(a *verify.Answer, form int) string {
	switch a.Kind {
	case verify.AnswerNotFound:
		return "NOTFOUND "
	case verify.AnswerDANE, verify.AnswerDANEOnly, verify.AnswerMay, verify.AnswerEncrypt:
		return "OK " + a.Kind.String()
	case verify.AnswerSecure:
		return secureText(a, form)
	default:
		return tempText(a.Reason)
	}
}

// tempText defers mail with 4.7.5 and puts the reason into the mail log.
func tempText(reason string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, reason)
	if clean == "" {
		clean = "pawl gave no reason; see its log"
	}
	if len(clean) > maxReason {
		clean = strings.ToValidUTF8(clean[:maxReason-len("...")], "") + "..."
	}
	return "TEMP " + clean
}

// secureText is "secure match=…": the names a certificate must carry one of.
// Without a name that Postfix can be given mail waits; never is a list cut short.
func secureText(a *verify.Answer, form int) string {
	if len(a.Match) == 0 {
		return tempText("no MX host of " + a.Domain + " may be used; look at `pawl explain " + a.Domain + "`")
	}
	for _, p := range a.Match {
		if !isPattern(p) {
			return tempText(fmt.Sprintf("%.100q is not a name that an MX host of %s can have; correct the override or ask the owner of the policy", p, a.Domain))
		}
	}
	text := "OK secure match=" + matchList(a.Match) + " servername=hostname"
	if len(text) > maxReply {
		return tempText("the policy of " + a.Domain + " names more MX hosts than Postfix takes in one reply; ask its owner to publish fewer patterns")
	}
	if form != formAttributes || a.Policy == nil {
		return text
	}
	attributes := stsAttributes(a)
	if len(text)+len(attributes) > maxReply {
		return text // enforcement first: the report then lacks the policy
	}
	return text + attributes
}

// isPattern reports whether a pattern is a name, or "*." and a name, in the
// letters that names have here: nothing else may get into a reply, which blanks
// and colons part.
func isPattern(p string) bool {
	name := strings.TrimPrefix(p, "*.")
	clean, err := resolve.Name(name)
	return err == nil && clean == name
}

// matchList writes patterns as Postfix takes them: "*.b.test" becomes ".b.test".
// Before 3.10.5 Postfix lets that match any depth; from then on the
// mx_host_pattern attributes enforce the one label of RFC 8461 §4.1. Where the MX
// hosts are known an answer names them, and has no patterns (decisions table 3).
func matchList(patterns []string) string {
	var b strings.Builder
	for i, p := range patterns {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strings.TrimPrefix(p, "*"))
	}
	return b.String()
}

// stsAttributes are what Postfix 3.10 and newer puts into TLS-RPT datagrams. From
// 3.10.5 on it uses only MX hosts that a mx_host_pattern fits, so these are what
// may be used; the policy itself stands in the policy strings. There is no
// policy_failure among them, even where a refresh failed: it makes Postfix fail
// every certificate, and a cached policy must be applied (RFC 8461 §3.3).
func stsAttributes(a *verify.Answer) string {
	var b strings.Builder
	b.WriteString(" policy_type=sts policy_domain=" + a.Domain)
	for _, p := range a.Match {
		b.WriteString(" mx_host_pattern=" + p)
	}
	for _, s := range a.Policy.Strings() {
		b.WriteString(" { policy_string = " + s + " }")
	}
	return b.String()
}
