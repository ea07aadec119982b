package smtp

import (
	"math"
	"strconv"
	"strings"
)

// Body is the value of the BODY parameter of MAIL (RFC 6152 §2).
type Body string

// The bodies that can be declared. BINARYMIME (RFC 3030) is not among them:
// all content here is lines.
const (
	Body7Bit Body = "7BIT"
	Body8Bit Body = "8BITMIME"
)

// Ret is the value of the RET parameter of MAIL (RFC 3461 §4.3).
type Ret string

// What of the message a delivery status notification returns.
const (
	RetFull Ret = "FULL"
	RetHdrs Ret = "HDRS"
)

// Mail is a MAIL command.
type Mail struct {
	From       Path
	Size       int64  // declared, 0 if not (RFC 1870 §6)
	Body       Body   // "" if not declared, which means 7BIT
	UTF8       bool   // SMTPUTF8 (RFC 6531 §3.4)
	Ret        Ret    // "" if not given
	EnvID      string // decoded; "" if not given (RFC 3461 §4.4)
	RequireTLS bool   // RFC 8689 §2
	Auth       string // decoded AUTH=, "<>" included; "" if not given (RFC 4954 §5)
}

// Rcpt is a RCPT command.
type Rcpt struct {
	To     Path
	Notify Notify
	ORcpt  ORcpt
}

// Notify is the NOTIFY parameter of RCPT (RFC 3461 §4.1). The zero value means
// that none was given.
type Notify uint8

// What a sender asks to be notified of. NotifyNever stands alone.
const (
	NotifySuccess Notify = 1 << iota
	NotifyFailure
	NotifyDelay
	NotifyNever
)

// notifyWords are in the order in which they are written.
func notifyWord(n Notify) string {
	switch n {
	case NotifySuccess:
		return "SUCCESS"
	case NotifyFailure:
		return "FAILURE"
	case NotifyDelay:
		return "DELAY"
	case NotifyNever:
		return "NEVER"
	}
	return ""
}

// String returns the value as sent, as "SUCCESS,DELAY", or "".
func (n Notify) String() string {
	var words []string
	for bit := NotifySuccess; bit <= NotifyNever; bit <<= 1 {
		if n&bit != 0 {
			words = append(words, notifyWord(bit))
		}
	}
	return strings.Join(words, ",")
}

// ParseNotify reads a NOTIFY value; it reports false if it breaks the grammar.
func ParseNotify(s string) (Notify, bool) {
	var n Notify
	for word := range strings.SplitSeq(s, ",") {
		found := Notify(0)
		for bit := NotifySuccess; bit <= NotifyNever; bit <<= 1 {
			if strings.EqualFold(word, notifyWord(bit)) {
				found = bit
			}
		}
		if found == 0 || n&found != 0 {
			return 0, false
		}
		n |= found
	}
	if n&NotifyNever != 0 && n != NotifyNever {
		return 0, false
	}
	return n, true
}

// ParseMail reads the argument of a MAIL command, "FROM:<a@b.example> SIZE=1",
// under the extensions that hold. An error is always an [*Error].
func ParseMail(arg string, offer Offer) (Mail, error) {
	var m Mail
	rest, ok := cutFold(arg, "FROM:")
	if !ok {
		return m, Errorf(501, Enhanced{5, 5, 4}, "after MAIL comes FROM:<address>")
	}
	var err error
	if m.From, rest, err = cutPath(strings.TrimLeft(rest, " "), offer.UTF8); err != nil {
		return m, pathError(err, Enhanced{5, 1, 7})
	}
	if m.From.Domain == "" && m.From.Local != "" {
		return m, pathError(addressError("no @ after the local part"), Enhanced{5, 1, 7})
	}
	err = eachParameter(rest, func(keyword, value string) error { return m.set(keyword, value, offer) })
	if err != nil {
		return m, err
	}
	if !m.UTF8 && !m.From.IsASCII() {
		return m, pathError(ErrNonASCII, Enhanced{5, 1, 7})
	}
	return m, nil
}

// ParseRcpt reads the argument of a RCPT command, "TO:<a@b.example> NOTIFY=NEVER",
// under the extensions that hold; offer.UTF8 says whether the transaction is
// one of SMTPUTF8. An error is always an [*Error].
func ParseRcpt(arg string, offer Offer) (Rcpt, error) {
	var r Rcpt
	rest, ok := cutFold(arg, "TO:")
	if !ok {
		return r, Errorf(501, Enhanced{5, 5, 4}, "after RCPT comes TO:<address>")
	}
	var err error
	if r.To, rest, err = cutPath(strings.TrimLeft(rest, " "), offer.UTF8); err != nil {
		return r, pathError(err, Enhanced{5, 1, 3})
	}
	if r.To.IsNull() {
		return r, pathError(addressError("the null path is no recipient"), Enhanced{5, 1, 3})
	}
	return r, eachParameter(rest, func(keyword, value string) error { return r.set(keyword, value, offer) })
}

func pathError(err error, enhanced Enhanced) *Error {
	if err == ErrNonASCII { //nolint:errorlint // it comes from this package, bare
		// RFC 6531 §3.5
		return Errorf(553, Enhanced{5, 6, 7}, "the address holds characters beyond ASCII: give MAIL the parameter SMTPUTF8")
	}
	return Errorf(501, enhanced, "%v", err)
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// eachParameter takes *(SP esmtp-param) apart (RFC 5321 §4.1.2) and refuses a
// parameter that comes twice.
func eachParameter(s string, set func(keyword, value string) error) error {
	if s != "" && s[0] != ' ' {
		return Errorf(501, Enhanced{5, 5, 4}, "text after the address without a blank")
	}
	const most = 16 // more than there are
	var seen [most]string
	n := 0
	for param := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ' ' }) {
		keyword, value, hasValue := strings.Cut(param, "=")
		if !isKeyword(keyword) || hasValue && !isParameterValue(value) {
			return Errorf(501, Enhanced{5, 5, 4}, "malformed parameter")
		}
		keyword = strings.ToUpper(keyword)
		if n == most {
			return Errorf(501, Enhanced{5, 5, 4}, "too many parameters")
		}
		for _, earlier := range seen[:n] {
			if earlier == keyword {
				return Errorf(501, Enhanced{5, 5, 4}, "parameter %s given twice", keyword)
			}
		}
		seen[n] = keyword
		n++
		if !hasValue {
			value = noValue
		}
		if err := set(keyword, value); err != nil {
			return err
		}
	}
	return nil
}

// noValue stands for a parameter without "="; no value can hold it.
const noValue = "\x00"

// isParameterValue is esmtp-value (RFC 5321 §4.1.2 and RFC 6531 §3.3).
func isParameterValue(s string) bool {
	for _, r := range s {
		if r <= ' ' || r == '=' || isControl(r) || r == '\ufffd' {
			return false
		}
	}
	return s != ""
}

func unknownParameter(keyword string) *Error {
	// RFC 5321 §4.1.1.11
	return Errorf(555, Enhanced{5, 5, 4}, "parameter %s is not offered here", keyword)
}

func badValue(keyword string) *Error {
	return Errorf(501, Enhanced{5, 5, 4}, "malformed value of parameter %s", keyword)
}

func (m *Mail) set(keyword, value string, offer Offer) error {
	var ok bool
	switch {
	case keyword == "SIZE" && offer.Size:
		m.Size, ok = parseSize(value)
	case keyword == "BODY" && offer.EightBit:
		m.Body = Body(strings.ToUpper(value))
		if m.Body == "BINARYMIME" {
			return Errorf(555, Enhanced{5, 6, 3}, "BODY=BINARYMIME is not offered here")
		}
		ok = m.Body == Body7Bit || m.Body == Body8Bit
	case keyword == "SMTPUTF8" && offer.UTF8:
		m.UTF8, ok = true, value == noValue
	case keyword == "RET" && offer.DSN:
		m.Ret = Ret(strings.ToUpper(value))
		ok = m.Ret == RetFull || m.Ret == RetHdrs
	case keyword == "ENVID" && offer.DSN:
		m.EnvID, ok = DecodeXtext(value)
		ok = ok && m.EnvID != "" && len(m.EnvID) <= MaxEnvID && isPrintableASCII(m.EnvID)
	case keyword == "REQUIRETLS" && offer.RequireTLS:
		m.RequireTLS, ok = true, value == noValue
	case keyword == "REQUIRETLS":
		// RFC 8689 §2: only in a session that is under TLS.
		return Errorf(555, Enhanced{5, 5, 4}, "parameter REQUIRETLS is not offered here, it needs TLS first")
	case keyword == "AUTH" && offer.Auth:
		m.Auth, ok = parseAuth(value)
	default:
		return unknownParameter(keyword)
	}
	if !ok {
		return badValue(keyword)
	}
	return nil
}

func (r *Rcpt) set(keyword, value string, offer Offer) error {
	var ok bool
	switch {
	case keyword == "NOTIFY" && offer.DSN:
		r.Notify, ok = ParseNotify(value)
	case keyword == "ORCPT" && offer.DSN:
		r.ORcpt, ok = ParseORcpt(value)
	default:
		return unknownParameter(keyword)
	}
	if !ok {
		return badValue(keyword)
	}
	return nil
}

// parseSize reads 1*20DIGIT (RFC 1870 §5). What does not fit is as large as can be.
func parseSize(s string) (int64, bool) {
	if s == "" || len(s) > 20 {
		return 0, false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}

// parseAuth reads the value of AUTH=: a mailbox or "<>" in xtext (RFC 4954 §5).
func parseAuth(value string) (string, bool) {
	s, ok := DecodeXtext(value)
	if !ok || s == "" {
		return "", false
	}
	if s == "<>" {
		return s, true
	}
	_, err := ParseMailbox(s, true)
	return s, err == nil
}

// Append appends the MAIL command without CR LF, with those of its parameters
// that the other end offers.
func (m Mail) Append(b []byte, offer Offer) []byte {
	b = append(b, "MAIL FROM:<"...)
	b = append(append(b, m.From.String()...), '>')
	if m.Size > 0 && offer.Size {
		b = strconv.AppendInt(append(b, " SIZE="...), m.Size, 10)
	}
	if m.Body != "" && offer.EightBit {
		b = append(append(b, " BODY="...), m.Body...)
	}
	if m.UTF8 && offer.UTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	if offer.DSN {
		if m.Ret != "" {
			b = append(append(b, " RET="...), m.Ret...)
		}
		if m.EnvID != "" {
			b = AppendXtext(append(b, " ENVID="...), m.EnvID)
		}
	}
	if m.RequireTLS && offer.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if m.Auth != "" && offer.Auth {
		b = AppendXtext(append(b, " AUTH="...), m.Auth)
	}
	return b
}

// Append appends the RCPT command without CR LF, with those of its parameters
// that the other end offers; offer.UTF8 says whether the transaction is one of
// SMTPUTF8.
func (r Rcpt) Append(b []byte, offer Offer) []byte {
	b = append(b, "RCPT TO:<"...)
	b = append(append(b, r.To.String()...), '>')
	if offer.DSN {
		if r.Notify != 0 {
			b = append(append(b, " NOTIFY="...), r.Notify.String()...)
		}
		if r.ORcpt.Type != "" {
			b = r.ORcpt.Append(append(b, " ORCPT="...), offer.UTF8)
		}
	}
	return b
}
