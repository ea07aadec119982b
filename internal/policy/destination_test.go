package policy

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
)

// destination asks for a destination that must be there.
func (w *world) destination(domain string) verify.Destination {
	w.Helper()
	d, err := w.Destination(w.Context(), domain)
	if err != nil {
		w.Fatalf("destination %s: %v", domain, err)
	}
	return d
}

// mail sets up a domain with MX hosts that have an address each.
func (w *world) mail(domain string, secure bool, hosts ...string) {
	w.dns.mx(domain, secure, hosts...)
	for i, host := range hosts {
		w.dns.addr(host, secure, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}).String())
	}
}

func names(mxs []resolve.MX) []string {
	var list []string
	for _, mx := range mxs {
		list = append(list, mx.Host)
	}
	return list
}

func TestADestinationHasItsMXHostsBestPreferenceFirst(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.set("MX example.com", resolve.Answer[resolve.MX]{Canonical: "example.com", Records: []resolve.MX{
			{Preference: 20, Host: "b.example.com"}, {Preference: 10, Host: "a.example.com"}, {Preference: 30, Host: ""},
		}})
		d := w.destination("Example.COM.")
		if got := names(d.MX); d.Domain != "example.com" || !slices.Equal(got, []string{"a.example.com", "b.example.com"}) {
			w.Errorf("got %q of %s", got, d.Domain)
		}
	})
}

func TestRFC7672_2_2_1_PreferenceOutranksSecurity(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.mail("example.com", true, "plain.example.com", "dane.example.com")
		w.dns.tlsa("dane.example.com", usableTLSA())
		d := w.destination("example.com")
		if got := names(d.MX); !slices.Equal(got, []string{"plain.example.com", "dane.example.com"}) {
			w.Errorf("got %q", got)
		}
		if h := w.Host(w.Context(), d, "plain.example.com"); h.Unreachable != "" || h.Demand.Cell != "2/absent/none" {
			w.Errorf("got %+v", h)
		}
	})
}

func TestADomainWithoutMXIsItsOwnHost(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		d := w.destination("example.com")
		if !d.ImplicitMX || !slices.Equal(names(d.MX), []string{"example.com"}) {
			w.Errorf("got %+v", d)
		}
	})
}

func TestANullMXTakesNoMail(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.mx("example.com", false, "")
		if d := w.destination("example.com"); !d.NullMX || len(d.MX) != 0 {
			w.Errorf("got %+v", d)
		}
	})
}

func TestOfAThousandMXHostsAFewAreLookedAt(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		answer := resolve.Answer[resolve.MX]{}
		for i := range 1000 {
			answer.Records = append(answer.Records, resolve.MX{Preference: uint16(i), Host: string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + ".example.com"})
		}
		w.dns.set("MX example.com", answer)
		if d := w.destination("example.com"); len(d.MX) != MaxMX || d.MX[0].Preference != 0 {
			w.Errorf("got %d", len(d.MX))
		}
	})
}

func TestRFC7672_2_1_2_MailWaitsIfTheMXHostsCannotBeLookedUp(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.fail("MX example.com")
		d := w.destination("example.com")
		if d.Hold == nil || d.Hold.Cell != "mx/failed" || d.Hold.Why == "" || d.Hold.Do == "" {
			w.Errorf("got %+v", d.Hold)
		}
	})
}

func TestADomainThatDoesNotExistIsAnErrorForGood(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.dns.set("MX example.com", &resolve.NotFound{Name: "example.com", Type: "MX", NXDomain: true})
		_, err := w.Destination(w.Context(), "example.com")
		var missing *resolve.NotFound
		if !errors.As(err, &missing) || !missing.NXDomain {
			w.Errorf("got %v", err)
		}
	})
}

func TestThatADomainUnderEnforceDoesNotExistIsHeld(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.sts("example.com")
		w.dns.set("MX example.com", &resolve.NotFound{Name: "example.com", Type: "MX", NXDomain: true})
		if d := w.destination("example.com"); d.Hold == nil || d.Hold.Cell != "mx/missing/enforce" {
			w.Errorf("got %+v", d.Hold)
		}
		w.dns.set("MX example.com", &resolve.NotFound{Name: "example.com", Type: "MX", NXDomain: true, Authentic: true})
		if _, err := w.Destination(w.Context(), "example.com"); !resolve.IsNotFound(err) {
			w.Errorf("proven by DNSSEC: got %v", err)
		}
	})
}

func TestRFC8461_8_4_AHostThatFailsThePolicyStaysInItsPlaceAsIfUnreachable(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", week("mx.example.com"))
		w.mail("example.com", false, "evil.example.net", "mx.example.com")
		d := w.destination("example.com")
		if d.Source != verify.FromSTS || !slices.Equal(names(d.MX), []string{"evil.example.net", "mx.example.com"}) {
			w.Errorf("got %s %q", d.Source, names(d.MX))
		}
		h := w.Host(w.Context(), d, "mx.example.com")
		if h.Unreachable != "" || !h.Demand.EnforceSTS || h.Demand.Level != verify.Authenticated || !h.Demand.STS.Matched || !h.Demand.MXSecure ||
			h.Demand.Cell != "2/absent/enforce" || h.Demand.Domain != "example.com" || len(h.Addrs) != 1 {
			w.Errorf("got %+v", h)
		}
		h = w.Host(w.Context(), d, "evil.example.net")
		if h.Unreachable == "" || !h.ByPolicy || h.Demand.Cell != "2/absent/enforce/mx-mismatch" || h.Demand.MXSecure {
			w.Errorf("got %+v", h)
		}
		if len(h.Policies) != 1 || h.Policies[0].Type != outcome.STS || h.Policies[0].Failure.Result != outcome.ValidationFailure || h.Policies[0].Failure.Reason != "mx-mismatch" {
			w.Errorf("reported as %+v", h.Policies)
		}
	})
}

func TestRFC8461_5_UnderTestingAHostIsCheckedAndStopsNothing(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("example.com", "one", policyText("testing", "604800", "mx.example.com"))
		w.mail("example.com", false, "other.example.net")
		h := w.Host(w.Context(), w.destination("example.com"), "other.example.net")
		if h.Unreachable != "" || h.Demand.STS == nil || h.Demand.STS.Matched || h.Demand.EnforceSTS || !h.Demand.PlaintextAllowed() {
			w.Errorf("got %+v", h)
		}
	})
}

func TestHostWithDANE(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.mail("example.com", true, "mx.example.com")
		w.dns.tlsa("mx.example.com", usableTLSA())
		h := w.Host(w.Context(), w.destination("example.com"), "mx.example.com")
		if h.Demand.DANE == nil || !h.Demand.EnforceDANE || h.Demand.Cell != "2/usable/none" || h.Demand.PlaintextAllowed() {
			w.Fatalf("got %+v", h)
		}
		ref := h.Demand.DANE.Reference
		if ref.BaseDomain != "mx.example.com" || !slices.Equal(ref.Names, []string{"example.com"}) {
			w.Errorf("names %+v", ref)
		}
	})
}

func TestRFC7672_2_1_1_WithoutATrustedResolverThereIsNoDANE(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.mail("example.com", true, "mx.example.com")
		w.dns.tlsa("mx.example.com", usableTLSA())
		h := w.Host(w.Context(), w.destination("example.com"), "mx.example.com")
		if h.Demand.DANE != nil || h.Demand.Cell != "2/absent/none" {
			w.Errorf("got %+v", h)
		}
		if n := w.dns.count("TLSA _25._tcp.mx.example.com"); n != 0 {
			w.Errorf("TLSA records were asked for %d times", n)
		}
		for range 3 {
			w.destination("example.com")
			w.Host(w.Context(), w.destination("example.com"), "mx.example.com")
		}
		w.wantEvents("resolver-untrusted") // said once
	})
}

func TestRFC7672_2_1_2_AHostWhoseTLSALookupFailsIsUnreachableByPolicy(t *testing.T) {
	for _, sts := range []string{"", "testing", "enforce"} {
		t.Run("sts "+sts, func(t *testing.T) {
			inWorld(t, Options{DANE: true}, func(w *world) {
				w.dns.trust()
				if sts != "" {
					w.publish("example.com", "one", policyText(sts, "604800", "mx.example.com"))
				}
				w.mail("example.com", true, "mx.example.com")
				w.dns.fail("TLSA _25._tcp.mx.example.com")
				h := w.Host(w.Context(), w.destination("example.com"), "mx.example.com")
				if h.Unreachable == "" || !h.ByPolicy || h.Demand.PlaintextAllowed() {
					w.Errorf("got %+v", h)
				}
				if len(h.Policies) != 1 || h.Policies[0].Type != outcome.TLSA || h.Policies[0].Failure.Result != outcome.DNSSECInvalid {
					w.Errorf("reported as %+v", h.Policies)
				}
			})
		})
	}
}

func TestRFC7672_2_2_UnusableRecordsDemandTLSWithoutAuthentication(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.mail("example.com", true, "mx.example.com")
		w.dns.tlsa("mx.example.com", dane.Record{Usage: 1, Selector: 1, MatchingType: 1, Data: make([]byte, 32)})
		h := w.Host(w.Context(), w.destination("example.com"), "mx.example.com")
		if h.Demand.Level != verify.Encrypted || h.Demand.Cell != "2/unusable/none" || h.Demand.PlaintextAllowed() {
			w.Errorf("got %+v", h)
		}
	})
}

func TestRFC7672_2_2_2_AddressesAreLookedUpBeforeTLSAAndInsecureOnesEndIt(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.mail("example.com", false, "mx.example.com")
		w.dns.fail("TLSA _25._tcp.mx.example.com") // name servers that do not know TLSA
		h := w.Host(w.Context(), w.destination("example.com"), "mx.example.com")
		if h.Unreachable != "" || h.Demand.Cell != "2/absent/none" {
			w.Errorf("got %+v", h)
		}
		if n := w.dns.count("TLSA _25._tcp.mx.example.com"); n != 0 {
			w.Errorf("TLSA records were asked for %d times", n)
		}
	})
}

func TestRFC7672_2_2_2_ASecureCNAMEToInsecureAddressesIsLookedUpAtItsOwnName(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.dns.mx("example.com", true, "mx.example.com")
		w.dns.set("A/AAAA mx.example.com", resolve.Answer[netip.Addr]{
			Name: "mx.example.com", Canonical: "mx.example.net", Chain: []string{"mx.example.net"},
			Records: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		})
		w.dns.set("CNAME mx.example.com", resolve.Answer[string]{Records: []string{"mx.example.net"}, Authentic: true})
		w.dns.tlsa("mx.example.com", usableTLSA())
		h := w.Host(w.Context(), w.destination("example.com"), "mx.example.com")
		if h.Demand.Cell != "2/usable/none" || h.Demand.DANE.Reference.BaseDomain != "mx.example.com" {
			w.Errorf("got %+v", h)
		}
	})
}

func TestRFC7672_2_2_1_UnderAnInsecureMXThePolicyMustHoldBesideDANE(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.publish("example.com", "one", week("mx.example.com"))
		w.mail("example.com", false, "mx.example.com")
		w.mail("evil.example.net", true, "mx.evil.example.net")
		w.dns.mx("example.com", false, "mx.evil.example.net")
		w.dns.tlsa("mx.evil.example.net", usableTLSA())
		h := w.Host(w.Context(), w.destination("example.com"), "mx.evil.example.net")
		if h.Unreachable == "" || h.Demand.Cell != "2/usable/enforce/mx-insecure/mx-mismatch" || h.Demand.MXSecure {
			w.Errorf("got %+v", h)
		}
		if names := h.Demand.DANE.Reference.Names; len(names) != 0 {
			w.Errorf("an insecure MX record gave the names %q", names)
		}
	})
}

func TestAHostWithoutAddressIsUnreachableByDNSAndNotByPolicy(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		for _, trusted := range []bool{false, true} {
			if trusted {
				w.dns.trust()
			}
			w.dns.mx("example.com", true, "gone.example.com", "mx.example.com")
			w.dns.addr("mx.example.com", true, "192.0.2.1")
			d := w.destination("example.com")
			if h := w.Host(w.Context(), d, "gone.example.com"); h.Unreachable == "" || h.ByPolicy || len(h.Policies) != 0 {
				w.Errorf("trusted %v: got %+v", trusted, h)
			}
			if h := w.Host(w.Context(), d, "mx.example.com"); h.Unreachable != "" {
				w.Errorf("trusted %v: one dead MX made %s unreachable: %s", trusted, h.Name, h.Unreachable)
			}
		}
	})
}

func TestADiscoveryHoldDoesNotTouchHostsThatDANEHolds(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.dns.fail("TXT _mta-sts.example.com")
		w.mail("example.com", true, "a.example.com", "b.example.com")
		w.dns.tlsa("b.example.com", usableTLSA())
		d := w.destination("example.com")
		if d.Hold != nil || !d.STS.Unknown || d.Source != verify.FromDANE {
			w.Fatalf("got %+v", d)
		}
		if h := w.Host(w.Context(), d, "a.example.com"); h.Unreachable == "" || !h.ByPolicy || h.Demand.Cell != "2/absent/unknown" {
			w.Errorf("without DANE: got %+v", h)
		}
		if h := w.Host(w.Context(), d, "b.example.com"); h.Unreachable != "" || !h.Demand.EnforceDANE {
			w.Errorf("with DANE: got %+v", h)
		}
		w.mail("example.com", false, "a.example.com", "b.example.com")
		if d := w.destination("example.com"); d.Hold == nil {
			w.Error("not held though anyone could have written the MX records")
		}
	})
}

func TestObserveDecidesAsIfEnforcingAndStopsNothing(t *testing.T) {
	for name, o := range map[string]Options{
		"the node": {Observe: true, DANE: true}, "the destination": {ObserveOnly: []string{"Example.com"}, DANE: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, o, func(w *world) {
				w.dns.trust()
				w.publish("example.com", "one", week("mx.example.com"))
				w.mail("example.com", true, "mx.example.com", "other.example.com", "failed.example.com")
				w.dns.fail("TLSA _25._tcp.failed.example.com")
				d := w.destination("example.com")
				h := w.Host(w.Context(), d, "mx.example.com")
				if !d.Observe || !h.Demand.Observe || !h.Demand.PlaintextAllowed() || h.Demand.Cell != "2/absent/enforce" || h.Observed != "" {
					w.Errorf("got %+v", h)
				}
				for host, cell := range map[string]string{"other.example.com": "2/absent/enforce/mx-mismatch", "failed.example.com": "2/failed/enforce"} {
					h := w.Host(w.Context(), d, host)
					if h.Unreachable != "" || h.Observed == "" || h.Demand.Cell != cell || !h.Demand.PlaintextAllowed() || len(h.Addrs) != 1 {
						w.Errorf("%s: got %+v", host, h)
					}
				}
			})
		})
	}
}

func TestObserveShowsTheHoldThatItLifts(t *testing.T) {
	inWorld(t, Options{Observe: true}, func(w *world) {
		w.dns.fail("TXT _mta-sts.example.com")
		w.mail("example.com", false, "mx.example.com")
		d := w.destination("example.com")
		if d.Hold != nil || d.WouldHold == nil || d.WouldHold.Cell != "1/unknown/not-asked/no-cache/hold" {
			w.Errorf("got %+v", d)
		}
		if h := w.Host(w.Context(), d, "mx.example.com"); h.Unreachable != "" || h.Observed == "" {
			w.Errorf("got %+v", h)
		}
	})
}

func TestRFC8689_4_2_1_TheMXNameIsSecureByDNSSECOrByThePolicy(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.mail("plain.example", false, "mx.plain.example")
		w.mail("signed.example", true, "mx.signed.example")
		w.mail("sts.example", false, "mx.sts.example", "other.sts.example")
		w.publish("sts.example", "one", policyText("testing", "604800", "mx.sts.example"))
		w.dns.addr("implicit.example", false, "192.0.2.9")
		for _, c := range []struct {
			domain, host string
			secure       bool
		}{
			{"plain.example", "mx.plain.example", false},
			{"signed.example", "mx.signed.example", true},
			{"sts.example", "mx.sts.example", true},
			{"sts.example", "other.sts.example", false},
			{"implicit.example", "implicit.example", true},
		} {
			h := w.Host(w.Context(), w.destination(c.domain), c.host)
			if h.Demand.MXSecure != c.secure {
				w.Errorf("%s: secure %v", c.host, h.Demand.MXSecure)
			}
		}
	})
}

func TestEveryAnswerCarriesItsReasoning(t *testing.T) {
	inWorld(t, Options{DANE: true}, func(w *world) {
		w.dns.trust()
		w.publish("example.com", "one", week("mx.example.com"))
		w.mail("example.com", true, "mx.example.com")
		w.dns.tlsa("mx.example.com", usableTLSA())
		d := w.destination("example.com")
		h := w.Host(w.Context(), d, "mx.example.com")
		var asked []string
		for _, s := range append(d.Steps, h.Steps...) {
			asked = append(asked, s.Asked)
			if s.Answer == "" || s.At.IsZero() {
				w.Errorf("an empty step: %+v", s)
			}
		}
		want := []string{
			"TXT _mta-sts.example.com", "MTA-STS of example.com", "MX example.com",
			"A/AAAA mx.example.com", "TLSA _25._tcp.mx.example.com", "what mx.example.com must show",
		}
		if !slices.Equal(asked, want) {
			w.Errorf("asked %q, want %q", asked, want)
		}
	})
}
