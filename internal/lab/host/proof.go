package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"strings"

	"blitiri.com.ar/go/spf"
	"github.com/emersion/go-msgauth/dkim"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// Resolver looks names up for SPF and DKIM; [net.Resolver] does.
type Resolver = spf.DNSResolver

// claim is a message that asks for a test.
type claim struct {
	from    smtp.Path
	client  netip.Addr
	hello   string
	start   string // the address it was sent to
	header  []field
	message []byte
}

// prove returns what shows that the message is from its return path, since that
// is who gets the answer: SPF or DKIM. An error is an [*smtp.Error].
func (c claim) prove(ctx context.Context, resolver Resolver) (string, error) {
	result, err := spf.CheckHostWithSender(c.client.AsSlice(), c.hello, c.from.String(), spf.WithContext(ctx), spf.WithResolver(resolver))
	if result == spf.Pass {
		return "SPF", nil
	}
	signed, temporary := c.signed(ctx, resolver)
	if signed {
		return "DKIM", nil
	}
	if result == spf.TempError || temporary {
		return "", smtp.Errorf(451, smtp.Enhanced{4, 7, 24}, "SPF and DKIM of %s cannot be looked up now: %v", c.from.Domain, reason(err))
	}
	return "", smtp.Errorf(550, smtp.Enhanced{5, 7, 23},
		"SPF of %s says %s for %s, and no DKIM signature of it covers From and To: only a proven address is answered", c.from.Domain, result, c.client)
}

func reason(err error) error {
	if err == nil {
		return errors.New("a name server does not answer")
	}
	return err
}

// signed reports whether the domain of the return path signed the message and to
// whom it goes. Without To, a signed message of someone could be sent here again
// by others, to have him answered.
func (c claim) signed(ctx context.Context, resolver Resolver) (signed, temporary bool) {
	if !names(c.header, "from", c.from.String()) || !names(c.header, "to", c.start) || signable(c.header) != nil {
		return false, false
	}
	found, err := dkim.VerifyWithOptions(bytes.NewReader(c.message), &dkim.VerifyOptions{
		MaxVerifications: maxSignature,
		LookupTXT:        func(name string) ([]string, error) { return resolver.LookupTXT(ctx, name) },
	})
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) {
		return false, false
	}
	for _, v := range found {
		switch {
		case v.Err == nil && aligned(c.from.Domain, v.Domain) && covers(v.HeaderKeys, "to") && covers(v.HeaderKeys, "from"):
			return true, false
		case v.Err != nil && dkim.IsTempFail(v.Err) && aligned(c.from.Domain, v.Domain):
			temporary = true
		}
	}
	return false, temporary
}

// names reports whether a field is there once and has one address, which is this.
func names(header []field, name, address string) bool {
	found := values(header, name)
	if len(found) != 1 {
		return false
	}
	list, err := mail.ParseAddressList(found[0])
	return err == nil && len(list) == 1 && strings.EqualFold(list[0].Address, address)
}

// aligned reports whether a signature of a domain speaks for another: it is the
// same or its parent.
func aligned(domain, signer string) bool {
	domain, signer = strings.ToLower(domain), strings.ToLower(signer)
	return domain == signer || strings.HasSuffix(domain, "."+signer)
}

func covers(keys []string, field string) bool {
	for _, k := range keys {
		if strings.EqualFold(k, field) {
			return true
		}
	}
	return false
}

// addressed returns the tests that a message's header names the addresses of: to
// these it was sent, whether it arrives or not.
func (s Site) addressed(message []byte, token string) []string {
	header, _, _ := bytes.Cut(message[:min(len(message), maxHeader)], []byte("\r\n\r\n"))
	header = bytes.ToLower(header)
	var found []string
	tests, _ := s.Tests()
	for _, t := range tests {
		if bytes.Contains(header, []byte(s.address(token, t))) {
			found = append(found, t.Name)
		}
	}
	return found
}

// address is a run's address at a test.
func (s Site) address(token string, t Test) string { return fmt.Sprintf("%s@%s", token, s.domainOf(t)) }
