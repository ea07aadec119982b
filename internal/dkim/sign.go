package dkim

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/resolve"
)

const (
	// maxHeader caps the header section of a message that is signed, in bytes.
	maxHeader = 256 << 10
	// maxFrom caps the From field.
	maxFrom = 8 << 10
	// foldAt is where a line of the field is folded, in octets.
	foldAt = 60
)

// addresses reads From. What its display names are written in does not matter.
var addresses = mail.AddressParser{WordDecoder: &mime.WordDecoder{
	CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil },
}}

// ErrUnsigned is wrapped where a message cannot be signed for what it is. It may
// go as it is; it was no key's fault.
var ErrUnsigned = errors.New("the message is not signed")

// Signer signs with a set of keys. It is safe for concurrent use. A nil Signer
// has no keys.
type Signer struct {
	keys map[owner][]Key
	now  func() time.Time
}

type owner struct {
	domain  string
	service Service
}

// NewSigner returns a signer with these keys.
func NewSigner(keys []Key, now func() time.Time) *Signer {
	s := &Signer{keys: map[owner][]Key{}, now: now}
	for _, k := range keys {
		o := owner{k.Domain, k.Service}
		s.keys[o] = append(s.keys[o], k)
	}
	return s
}

// of returns the keys that sign for a domain: its own, or those of the nearest
// domain above it that sign for subdomains.
func (s *Signer) of(domain string, service Service) []Key {
	for d := domain; ; {
		keys := s.keys[owner{d, service}]
		if d != domain {
			keys = slices.DeleteFunc(slices.Clone(keys), func(k Key) bool { return !k.Subdomains })
		}
		_, above, more := strings.Cut(d, ".")
		if len(keys) > 0 || !more {
			return keys
		}
		d = above
	}
}

// Sign returns the DKIM-Signature fields, each ending in CR LF, that belong in
// front of a message in wire form; none if there is no key for the domain. For
// the service [TLSRPT] they are by its own keys, or those for all mail where it
// has none.
func (s *Signer) Sign(domain string, service Service, message io.Reader) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	domain, err := resolve.Name(domain)
	if err != nil {
		return nil, fmt.Errorf("signing for %q: %w", domain, err)
	}
	keys := s.of(domain, service)
	if len(keys) == 0 {
		keys = s.of(domain, Email)
	}
	m := &Message{choose: func([]byte) ([]Key, error) { return keys, nil }, at: s.now()}
	if _, err := io.Copy(m, message); err != nil {
		return nil, fmt.Errorf("signing for %s: %w", domain, err)
	}
	return m.Close()
}

// Begin begins to sign a message by its author's domain; nil where there is no
// key at all, so that there is nothing to do.
func (s *Signer) Begin() *Message {
	if s == nil || len(s.keys) == 0 {
		return nil
	}
	return &Message{choose: s.forAuthor, at: s.now()}
}

// forAuthor chooses the keys by the header section: those of the domain in
// From (RFC 6376 §6.1.1 leaves the choice; DMARC compares with that domain).
func (s *Signer) forAuthor(head []byte) ([]Key, error) {
	all, err := parseHead(head)
	if err != nil {
		return nil, err
	}
	from, n := all.last("From")
	switch {
	case n == 0:
		return nil, fmt.Errorf("%w: it has no From", ErrUnsigned)
	case n > 1: // a reader may be shown the one that was not meant (RFC 6376 §8.15)
		return nil, fmt.Errorf("%w: it has %d From fields", ErrUnsigned, n)
	case len(from) > maxFrom:
		return nil, fmt.Errorf("%w: its From has %d octets", ErrUnsigned, len(from))
	}
	// Unfolded as RFC 5322 §2.2.3 has it.
	authors, err := addresses.ParseList(strings.ReplaceAll(strings.TrimSpace(from), "\r\n", ""))
	if err != nil {
		return nil, fmt.Errorf("%w: its From cannot be read: %w", ErrUnsigned, err)
	}
	domain := ""
	for _, a := range authors {
		d, err := resolve.Name(a.Address[strings.LastIndexByte(a.Address, '@')+1:])
		if err != nil || domain != "" && d != domain {
			return nil, fmt.Errorf("%w: its authors have no one domain", ErrUnsigned)
		}
		domain = d
	}
	return s.of(domain, Email), nil
}

// Message is a message that is being signed: it is written to it in wire form,
// and closed. What is not to be signed after all is left to itself.
type Message struct {
	choose func(head []byte) ([]Key, error)
	at     time.Time

	head  []byte // the header section, until it has ended and for as long as somebody signs
	begun bool   // it has ended
	keys  []Key
	body  bodyHash
	err   error // why it is not signed
}

// Write takes the next bytes. It returns no error: what is amiss is told at the
// end, when the message is whole.
func (m *Message) Write(p []byte) (int, error) {
	n := len(p)
	if !m.begun {
		seen := max(0, len(m.head)-len(blankLine)+1)
		before := len(m.head)
		m.head = append(m.head, p[:min(len(p), maxHeader-len(m.head))]...)
		end := bytes.Index(m.head[seen:], []byte(blankLine))
		switch {
		case bytes.HasPrefix(m.head, []byte(crlf)):
			end = 0
		case end >= 0:
			end += seen + len(crlf)
		case len(m.head) == maxHeader:
			m.begun, m.head = true, nil
			m.err = fmt.Errorf("%w: its header section is larger than %d bytes", ErrUnsigned, maxHeader)
			return n, nil
		default:
			return n, nil
		}
		p = p[end+len(crlf)-before:]
		m.begin(m.head[:end])
	}
	if len(m.keys) > 0 {
		m.body.write(p)
	}
	return n, nil
}

const (
	crlf      = "\r\n"
	blankLine = crlf + crlf
)

// begin chooses the keys by the header section.
func (m *Message) begin(head []byte) {
	m.begun = true
	if m.keys, m.err = m.choose(head); len(m.keys) == 0 {
		m.head = nil
		return
	}
	m.head, m.body = head, newBodyHash()
}

// Close ends the message and returns its DKIM-Signature fields, each ending in
// CR LF; none if no key is for it. An error that wraps [ErrUnsigned] says why
// the message, as it is, gets none.
func (m *Message) Close() ([]byte, error) {
	if !m.begun { // a header section and nothing else (RFC 5322 §3.5)
		m.begin(m.head)
	}
	if m.err != nil || len(m.keys) == 0 {
		return nil, m.err
	}
	all, err := parseHead(m.head)
	if err != nil {
		return nil, err
	}
	names := all.names()
	if len(strings.Join(names, ":")) > maxNames {
		return nil, fmt.Errorf("%w: it has too many fields that belong there once", ErrUnsigned)
	}
	covered := all.canonical(names)
	bh := m.body.sum()
	var signatures []byte
	for _, k := range m.keys {
		field, err := k.sign(covered, names, bh, m.at)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, field...)
	}
	return signatures, nil
}

// sign makes a DKIM-Signature field (RFC 6376 §3.5): over the fields covered,
// in canonical form, and the body that bh is the hash of. There is no l= tag: a
// signature covers the body to its end (§8.2).
func (k Key) sign(covered []byte, names []string, bh []byte, at time.Time) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "DKIM-Signature: v=1; a=%s-sha256; c=relaxed/relaxed; d=%s;\r\n\ts=%s; t=%d;\r\n\th=", k.Algorithm(), k.Domain, k.Selector, at.Unix())
	column := len("\th=")
	for i, name := range names {
		if column > foldAt {
			b.WriteString("\r\n\t ")
			column = 0
		}
		b.WriteString(name)
		if i < len(names)-1 {
			b.WriteByte(':')
		}
		column += len(name) + 1
	}
	fmt.Fprintf(&b, ";\r\n\tbh=%s;\r\n\tb=", base64.StdEncoding.EncodeToString(bh))
	// §3.7: the field itself comes last, with an empty b= and without its CR LF.
	name, value, _ := strings.Cut(b.String(), ":")
	digest := sha256.Sum256(append(bytes.Clone(covered), bytes.TrimSuffix(relaxed(name, value), []byte(crlf))...))
	var opts crypto.SignerOpts = crypto.SHA256
	if k.Algorithm() == Ed25519 {
		opts = crypto.Hash(0) // RFC 8463 §3: PureEdDSA, of the hash
	}
	signature, err := k.signer.Sign(rand.Reader, digest[:], opts)
	if err != nil {
		return "", fmt.Errorf("signing by %s: %w", k.Name(), err)
	}
	for i, chunk := range slices.Collect(slices.Chunk([]byte(base64.StdEncoding.EncodeToString(signature)), foldAt)) {
		if i > 0 {
			b.WriteString("\r\n\t ")
		}
		b.Write(chunk)
	}
	b.WriteString(crlf)
	return b.String(), nil
}
