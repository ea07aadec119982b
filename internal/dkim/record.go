package dkim

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxString is the longest string of a TXT record, in octets (RFC 1035 §3.3).
const maxString = 255

// Record is the text of the key's TXT record.
func (k Key) Record() (string, error) {
	p, err := k.public()
	if err != nil {
		return "", err
	}
	service := ""
	if k.Service == TLSRPT {
		service = "s=tlsrpt; " // RFC 8460 §3
	}
	return fmt.Sprintf("v=DKIM1; k=%s; h=sha256; %sp=%s", k.Algorithm(), service, p), nil
}

// Zone is the record as a line of a zone file, cut into strings as long as one
// may be (RFC 6376 §3.6.2.2).
func (k Key) Zone() (string, error) {
	text, err := k.Record()
	if err != nil {
		return "", err
	}
	var strs []string
	for chunk := range slices.Chunk([]byte(text), maxString) {
		strs = append(strs, `"`+string(chunk)+`"`)
	}
	if len(strs) == 1 {
		return k.Name() + ". IN TXT " + strs[0], nil
	}
	return k.Name() + ". IN TXT (\n\t" + strings.Join(strs, "\n\t") + " )", nil
}

// The ways in which what is published can differ from a key.
var (
	ErrRecord      = errors.New("the record cannot be read")
	ErrRevoked     = errors.New("the record's p= is empty: the key is revoked (RFC 6376 §3.6.1)")
	ErrOtherKey    = errors.New("another key is published")
	ErrUnusable    = errors.New("the record does not let the key sign this mail")
	ErrManyRecords = errors.New("there is more than one record (RFC 6376 §3.6.2.2)")
	ErrTestMode    = errors.New("the record says t=y: verifiers treat the mail as if it were not signed (RFC 6376 §3.6.1)")
)

// Published holds the TXT records found at the key's name against the key.
func (k Key) Published(texts []string) error {
	if len(texts) != 1 {
		return fmt.Errorf("%w: %d", ErrManyRecords, len(texts))
	}
	tags, err := parseTags(texts[0])
	if err != nil {
		return err
	}
	ours, err := k.public()
	if err != nil {
		return err
	}
	switch {
	case tags.has("v") && tags["v"] != "DKIM1":
		return fmt.Errorf("%w: it begins with v=%.40q where v=DKIM1 belongs", ErrRecord, tags["v"])
	case !tags.has("p"):
		return fmt.Errorf("%w: it has no p= with the public key", ErrRecord)
	case tags["p"] == "":
		return ErrRevoked
	case tags.value("k", string(RSA)) != string(k.Algorithm()):
		return fmt.Errorf("%w: k=%.40q, and the key here is %s", ErrOtherKey, tags.value("k", string(RSA)), k.Algorithm())
	case tags["p"] != ours:
		return fmt.Errorf("%w: its p= is not the public half of the key here", ErrOtherKey)
	case tags.has("h") && !tags.lists("h", "sha256"):
		return fmt.Errorf("%w: h=%.40q leaves sha256 out", ErrUnusable, tags["h"])
	case tags.has("s") && !tags.lists("s", "*") && !tags.lists("s", string(k.Service)):
		return fmt.Errorf("%w: s=%.40q leaves %s out", ErrUnusable, tags["s"], k.Service)
	case tags.lists("t", "y"):
		return ErrTestMode
	}
	return nil
}

// tags are those of a tag list.
type tags map[string]string

func (t tags) has(name string) bool { _, ok := t[name]; return ok }

func (t tags) value(name, absent string) string {
	if v, ok := t[name]; ok {
		return v
	}
	return absent
}

// lists reports whether a tag's value, a list with colons, has an item.
func (t tags) lists(name, item string) bool {
	return slices.Contains(strings.Split(t[name], ":"), item)
}

// maxTags caps the tags of a record.
const maxTags = 50

// parseTags reads a tag list (RFC 6376 §3.2). White space in a value means
// nothing in the tags that are looked at.
func parseTags(text string) (tags, error) {
	found := tags{}
	for spec := range strings.SplitSeq(text, ";") {
		name, value, ok := strings.Cut(spec, "=")
		name = strings.Trim(name, " \t\r\n")
		switch {
		case strings.Trim(spec, " \t\r\n") == "":
			continue // behind the last semicolon
		case !ok || !tagName(name):
			return nil, fmt.Errorf("%w: %.40q is not a tag", ErrRecord, spec)
		case found.has(name): // §3.2: the whole list is invalid
			return nil, fmt.Errorf("%w: the tag %.40q stands there twice", ErrRecord, name)
		case len(found) == maxTags:
			return nil, fmt.Errorf("%w: it has more than %d tags", ErrRecord, maxTags)
		}
		found[name] = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(value)
	}
	if p := found["p"]; p != "" {
		if _, err := base64.StdEncoding.DecodeString(p); err != nil {
			return nil, fmt.Errorf("%w: its p= is not base64", ErrRecord)
		}
	}
	return found, nil
}

func tagName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '_') {
			return false
		}
	}
	return s != ""
}
