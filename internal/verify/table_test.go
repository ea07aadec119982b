package verify_test

import (
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/verify"
	"github.com/pawl-mail/pawl/mtasts"
)

// want is what a cell of the table says of one thing that a host shows: how the
// mail goes, and each policy's result as TLS-RPT is told, "ok" for success.
type want struct {
	how  outcome.Transport
	tlsa outcome.ResultType
	sts  outcome.ResultType
}

const ok outcome.ResultType = "ok"

// TestDecisionTable2 walks each cell of decision table 2 with each way in which a
// host can show itself.
func TestDecisionTable2(t *testing.T) {
	p := newPKI(t)
	tls11 := shown(p.good, p.intermediate)
	tls11.State.Version = tls.VersionTLS11
	shows := map[string]verify.Seen{
		"good":        shown(p.good, p.intermediate),
		"other key":   shown(issue(t, p.intermediate, server(host)), p.intermediate),
		"self-signed": shown(p.selfSigned),
		"expired":     shown(p.expired, p.intermediate),
		"other name":  shown(p.otherName, p.intermediate),
		"cn only":     shown(p.cnOnly, p.intermediate),
		"tls 1.1":     tls11,
		"no starttls": {},
		"refused":     {STARTTLSOffered: true, Reply: "454 4.7.0 TLS not available"},
		"killed":      {STARTTLSOffered: true, HandshakeErr: io.ErrUnexpectedEOF},
	}
	const (
		no, clear, encrypted, verified = outcome.NotSent, outcome.Clear, outcome.Encrypted, outcome.Verified
		mismatch                       = outcome.CertificateHostMismatch
		tooOld                         = outcome.CertificateExpired
		untrusted                      = outcome.CertificateNotTrusted
		failure                        = outcome.ValidationFailure
		noTLS                          = outcome.StartTLSNotSupported
		invalid                        = outcome.TLSAInvalid
	)
	// The key of the certificates that are good, expired, misnamed … is the
	// host's own: the TLSA records name them all.
	known := func() *verify.DANEDemand { return tlsa(t, p.good, p.expired, p.otherName, p.cnOnly) }
	daneOnly := map[string]want{
		"good": {verified, ok, ""}, "other key": {no, untrusted, ""}, "self-signed": {no, untrusted, ""},
		"expired": {verified, ok, ""}, "other name": {verified, ok, ""}, "cn only": {verified, ok, ""},
		"tls 1.1": {no, failure, ""}, "no starttls": {no, noTLS, ""}, "refused": {no, noTLS, ""}, "killed": {no, failure, ""},
	}
	daneAndSTSReported := map[string]want{
		"good": {verified, ok, ok}, "other key": {no, untrusted, ok}, "self-signed": {no, untrusted, untrusted},
		"expired": {verified, ok, tooOld}, "other name": {verified, ok, mismatch}, "cn only": {verified, ok, mismatch},
		"tls 1.1": {no, failure, failure}, "no starttls": {no, noTLS, noTLS}, "refused": {no, noTLS, noTLS}, "killed": {no, failure, failure},
	}
	both := map[string]want{
		"good": {verified, ok, ok}, "other key": {no, untrusted, ok}, "self-signed": {no, untrusted, untrusted},
		"expired": {no, ok, tooOld}, "other name": {no, ok, mismatch}, "cn only": {no, ok, mismatch},
		"tls 1.1": {no, failure, failure}, "no starttls": {no, noTLS, noTLS}, "refused": {no, noTLS, noTLS}, "killed": {no, failure, failure},
	}
	cells := map[string]struct {
		demand verify.Demand
		want   map[string]want
	}{
		"2/usable/none": {
			verify.Demand{Level: verify.Authenticated, EnforceDANE: true, DANE: known(), MXSecure: true}, daneOnly,
		},
		"2/usable/testing": {
			verify.Demand{Level: verify.Authenticated, EnforceDANE: true, DANE: known(), MXSecure: true, STS: sts(mtasts.Testing)},
			daneAndSTSReported,
		},
		"2/usable/enforce": {
			verify.Demand{Level: verify.Authenticated, EnforceDANE: true, DANE: known(), MXSecure: true, STS: sts(mtasts.Enforce)},
			daneAndSTSReported,
		},
		"2/usable/enforce/both": {
			verify.Demand{Level: verify.Authenticated, EnforceDANE: true, EnforceSTS: true, DANE: known(), MXSecure: true, STS: sts(mtasts.Enforce)},
			both,
		},
		"2/usable/enforce/mx-insecure": {
			verify.Demand{Level: verify.Authenticated, EnforceDANE: true, EnforceSTS: true, DANE: known(), STS: sts(mtasts.Enforce)},
			both,
		},
		"2/unusable/none": {
			verify.Demand{Level: verify.Encrypted, EnforceDANE: true, DANE: unusable(t, p.good), MXSecure: true},
			map[string]want{
				"good": {encrypted, invalid, ""}, "other key": {encrypted, invalid, ""}, "self-signed": {encrypted, invalid, ""},
				"expired": {encrypted, invalid, ""}, "other name": {encrypted, invalid, ""}, "cn only": {encrypted, invalid, ""},
				"tls 1.1": {encrypted, invalid, ""}, "no starttls": {no, noTLS, ""}, "refused": {no, noTLS, ""}, "killed": {no, failure, ""},
			},
		},
		"2/unusable/testing": {
			verify.Demand{Level: verify.Encrypted, EnforceDANE: true, DANE: unusable(t, p.good), MXSecure: true, STS: sts(mtasts.Testing)},
			map[string]want{
				"good": {verified, invalid, ok}, "other key": {verified, invalid, ok}, "self-signed": {encrypted, invalid, untrusted},
				"expired": {encrypted, invalid, tooOld}, "other name": {encrypted, invalid, mismatch}, "cn only": {encrypted, invalid, mismatch},
				"tls 1.1": {encrypted, invalid, failure}, "no starttls": {no, noTLS, noTLS}, "refused": {no, noTLS, noTLS}, "killed": {no, failure, failure},
			},
		},
		"2/unusable/enforce": {
			verify.Demand{Level: verify.Authenticated, EnforceDANE: true, EnforceSTS: true, DANE: unusable(t, p.good), MXSecure: true, STS: sts(mtasts.Enforce)},
			map[string]want{
				"good": {verified, invalid, ok}, "other key": {verified, invalid, ok}, "self-signed": {no, invalid, untrusted},
				"expired": {no, invalid, tooOld}, "other name": {no, invalid, mismatch}, "cn only": {no, invalid, mismatch},
				"tls 1.1": {no, invalid, failure}, "no starttls": {no, noTLS, noTLS}, "refused": {no, noTLS, noTLS}, "killed": {no, failure, failure},
			},
		},
		"2/absent/none": {
			verify.Demand{Level: verify.Opportunistic},
			map[string]want{
				"good": {encrypted, "", ""}, "other key": {encrypted, "", ""}, "self-signed": {encrypted, "", ""},
				"expired": {encrypted, "", ""}, "other name": {encrypted, "", ""}, "cn only": {encrypted, "", ""},
				"tls 1.1": {encrypted, "", ""}, "no starttls": {clear, "", ""}, "refused": {clear, "", ""}, "killed": {clear, "", ""},
			},
		},
		"2/absent/testing": {
			verify.Demand{Level: verify.Opportunistic, STS: sts(mtasts.Testing)},
			map[string]want{
				"good": {verified, "", ok}, "other key": {verified, "", ok}, "self-signed": {encrypted, "", untrusted},
				"expired": {encrypted, "", tooOld}, "other name": {encrypted, "", mismatch}, "cn only": {encrypted, "", mismatch},
				"tls 1.1": {encrypted, "", failure}, "no starttls": {clear, "", noTLS}, "refused": {clear, "", noTLS}, "killed": {clear, "", failure},
			},
		},
		"2/absent/enforce": {
			verify.Demand{Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)},
			map[string]want{
				"good": {verified, "", ok}, "other key": {verified, "", ok}, "self-signed": {no, "", untrusted},
				"expired": {no, "", tooOld}, "other name": {no, "", mismatch}, "cn only": {no, "", mismatch},
				"tls 1.1": {no, "", failure}, "no starttls": {no, "", noTLS}, "refused": {no, "", noTLS}, "killed": {no, "", failure},
			},
		},
	}
	// A failed lookup makes the host unreachable before it comes to a demand. If
	// it came to one all the same, it would pass for nothing.
	for mode, policy := range map[string]*verify.STSDemand{"none": nil, "testing": sts(mtasts.Testing), "enforce": sts(mtasts.Enforce)} {
		failed := maps.Clone(daneOnly)
		for name := range failed {
			failed[name] = want{no, outcome.DNSSECInvalid, ""}
			if policy != nil {
				failed[name] = want{no, outcome.DNSSECInvalid, daneAndSTSReported[name].sts}
			}
		}
		cell := cells["2/failed/"+mode]
		cell.demand = verify.Demand{Level: verify.Authenticated, EnforceDANE: true, DANE: failedLookup(), STS: policy, MXSecure: true}
		cell.want = failed
		cells["2/failed/"+mode] = cell
	}
	for name, cell := range cells {
		t.Run(name, func(t *testing.T) {
			demand := cell.demand
			demand.Host, demand.Domain, demand.Cell = host, "example.com", name
			if got, wanted := slices.Sorted(maps.Keys(cell.want)), slices.Sorted(maps.Keys(shows)); !slices.Equal(got, wanted) {
				t.Fatalf("the cell says what to do with %q, and a host can show %q", got, wanted)
			}
			for show, seen := range shows {
				v := verify.Judge(demand, seen, p.roots, now)
				if diff := cmp.Diff(cell.want[show], wantOf(v), cmp.AllowUnexported(want{})); diff != "" {
					t.Errorf("%s (-want +got):\n%s%s", show, diff, v.Why)
				}
				if v.Pass != (v.Transport != outcome.NotSent) {
					t.Errorf("%s: pass is %v and the transport %q", show, v.Pass, v.Transport)
				}
				if v.Cell != name || v.WouldHold || v.Bounce != "" {
					t.Errorf("%s: cell %q, would hold %v, bounce %q", show, v.Cell, v.WouldHold, v.Bounce)
				}
				if !v.Pass && (v.Section == "" || v.Do == "") {
					t.Errorf("%s: a refusal without section (%q) or advice (%q)", show, v.Section, v.Do)
				}
			}
		})
	}
}

// wantOf reads a verdict in the form of the table.
func wantOf(v verify.Verdict) want {
	w := want{how: v.Transport}
	for _, p := range v.Policies {
		result := ok
		if p.Failure != nil {
			result = p.Failure.Result
		}
		switch p.Type {
		case outcome.TLSA:
			w.tlsa = result
		case outcome.STS:
			w.sts = result
		}
	}
	return w
}

func TestObserveLetsMailGoAndSaysThatItWouldBeHeld(t *testing.T) {
	p := newPKI(t)
	enforce := verify.Demand{Host: host, Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce), Observe: true}
	for name, c := range map[string]struct {
		seen      verify.Seen
		how       outcome.Transport
		wouldHold bool
		result    outcome.ResultType
	}{
		"a good host":                  {shown(p.good, p.intermediate), outcome.Verified, false, ok},
		"a self-signed certificate":    {shown(p.selfSigned), outcome.Encrypted, true, outcome.CertificateNotTrusted},
		"STARTTLS stripped":            {verify.Seen{}, outcome.Clear, true, outcome.StartTLSNotSupported},
		"a handshake that was killed":  {verify.Seen{STARTTLSOffered: true, HandshakeErr: io.EOF}, outcome.Clear, true, outcome.ValidationFailure},
		"a certificate for other name": {shown(p.otherName, p.intermediate), outcome.Encrypted, true, outcome.CertificateHostMismatch},
	} {
		v := verify.Judge(enforce, c.seen, p.roots, now)
		if !v.Pass || v.Transport != c.how || v.WouldHold != c.wouldHold || wantOf(v).sts != c.result {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestRFC8689_3_TLSRequiredNoLiftsPoliciesAndTheyAreStillReported(t *testing.T) {
	p := newPKI(t)
	waived := verify.Demand{
		Host: host, Level: verify.Authenticated, Waived: true, MXSecure: true,
		EnforceSTS: true, STS: sts(mtasts.Enforce), EnforceDANE: true, DANE: tlsa(t, p.good),
	}
	v := verify.Judge(waived, shown(p.selfSigned), p.roots, now)
	want := want{outcome.Encrypted, outcome.CertificateNotTrusted, outcome.CertificateNotTrusted}
	if diff := cmp.Diff(want, wantOf(v), cmp.AllowUnexported(want)); diff != "" || !v.Pass || !v.WouldHold {
		t.Errorf("(-want +got):\n%s%+v", diff, v)
	}
	v = verify.Judge(waived, verify.Seen{}, p.roots, now)
	if !v.Pass || v.Transport != outcome.Clear || !v.WouldHold {
		t.Errorf("without STARTTLS: %+v", v)
	}
}

func TestRFC8689_4_1_RequireTLSBeatsTLSRequiredNo(t *testing.T) {
	p := newPKI(t)
	d := verify.Demand{
		Host: host, Level: verify.Authenticated, Waived: true, RequireTLS: true, MXSecure: true, EnforceSTS: true, STS: sts(mtasts.Enforce),
	}
	d.STS.Matched = false // the certificate is good, only the policy is not met
	if v := verify.Judge(d, shown(p.good, p.intermediate), p.roots, now); v.Pass {
		t.Errorf("the header field lifted the policy: %+v", v)
	}
}

func TestRFC8689_4_2_1_RequireTLS(t *testing.T) {
	p := newPKI(t)
	plain := verify.Demand{Host: host, RequireTLS: true, MXSecure: true}
	withDANE := plain
	withDANE.DANE, withDANE.EnforceDANE, withDANE.Level = tlsa(t, p.selfSigned), true, verify.Authenticated
	withSTS := plain
	withSTS.STS, withSTS.EnforceSTS, withSTS.Level = sts(mtasts.Enforce), true, verify.Authenticated
	observed := withSTS
	observed.Observe = true
	insecure := plain
	insecure.MXSecure = false
	for name, c := range map[string]struct {
		demand verify.Demand
		seen   verify.Seen
		how    outcome.Transport
		bounce string
		reason string
	}{
		"PKIX with a DNS-ID is enough":                       {plain, shown(p.good, p.intermediate), outcome.Verified, "", ""},
		"a CN alone is refused":                              {plain, shown(p.cnOnly, p.intermediate), outcome.NotSent, "5.7.10", ""},
		"self-signed is refused without any policy":          {plain, shown(p.selfSigned), outcome.NotSent, "5.7.10", ""},
		"no STARTTLS is refused without any policy":          {plain, verify.Seen{}, outcome.NotSent, "5.7.10", ""},
		"the MX must be found by DNSSEC or match a policy":   {insecure, shown(p.good, p.intermediate), outcome.NotSent, "5.7.10", ""},
		"DANE is enough, whoever issued the certificate":     {withDANE, shown(p.selfSigned), outcome.Verified, "", ""},
		"a trusted authority does not outvote a TLSA record": {withDANE, shown(p.good, p.intermediate), outcome.NotSent, "5.7.10", ""},
		"STS with a good host":                               {withSTS, shown(p.good, p.intermediate), outcome.Verified, "", ""},
		"STS with an expired certificate":                    {withSTS, shown(p.expired, p.intermediate), outcome.NotSent, "5.7.10", ""},
		"observe does not lift the sender's demand":          {observed, shown(p.expired, p.intermediate), outcome.NotSent, "5.7.10", ""},
	} {
		v := verify.Judge(c.demand, c.seen, p.roots, now)
		if v.Transport != c.how || v.Bounce != c.bounce || v.Pass != (c.how != outcome.NotSent) || v.WouldHold {
			t.Errorf("%s: %+v", name, v)
		}
	}
	// A policy alone that fails is transient: the message is not to go back for it.
	unmatched := withSTS
	unmatched.STS = &verify.STSDemand{PolicyDomain: "example.com", Policy: policyOf(mtasts.Enforce)}
	if v := verify.Judge(unmatched, shown(p.good, p.intermediate), p.roots, now); v.Pass || v.Bounce != "" {
		t.Errorf("MX not in the policy, found by DNSSEC: %+v", v)
	}
}

func TestRFC7672_2_2_1_DANEWithAnInsecureMXIsNeverCalledVerified(t *testing.T) {
	p := newPKI(t)
	d := verify.Demand{Host: host, Level: verify.Authenticated, EnforceDANE: true, DANE: tlsa(t, p.selfSigned)}
	v := verify.Judge(d, shown(p.selfSigned), p.roots, now)
	if !v.Pass || v.Transport != outcome.Encrypted || v.Policies[0].Failure != nil {
		t.Errorf("%+v", v)
	}
}

func TestRFC8461_2_STSDoesNotOverrideAFailingDANECheck(t *testing.T) {
	p := newPKI(t)
	d := verify.Demand{
		Host: host, Level: verify.Authenticated, MXSecure: true, EnforceDANE: true, DANE: tlsa(t, p.selfSigned), STS: sts(mtasts.Enforce),
	}
	v := verify.Judge(d, shown(p.good, p.intermediate), p.roots, now)
	want := want{outcome.NotSent, outcome.CertificateNotTrusted, ok}
	if got := wantOf(v); got != want || v.Source != verify.FromDANE {
		t.Errorf("got %+v, want %+v (%s)", got, want, v.Why)
	}
}

func TestAnOperatorsLevelWithoutPolicy(t *testing.T) {
	p := newPKI(t)
	encrypted := verify.Demand{Host: host, Level: verify.Encrypted}
	secure := verify.Demand{Host: host, Level: verify.Authenticated}
	local := verify.Demand{Host: host, Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)}
	local.STS.Local = true
	for name, c := range map[string]struct {
		demand verify.Demand
		seen   verify.Seen
		how    outcome.Transport
	}{
		"encrypted, self-signed":              {encrypted, shown(p.selfSigned), outcome.Encrypted},
		"encrypted, no STARTTLS":              {encrypted, verify.Seen{}, outcome.NotSent},
		"authenticated, good":                 {secure, shown(p.good, p.intermediate), outcome.Verified},
		"authenticated, self-signed":          {secure, shown(p.selfSigned), outcome.NotSent},
		"the operator's own list, good":       {local, shown(p.good, p.intermediate), outcome.Verified},
		"the operator's own list, other name": {local, shown(p.otherName, p.intermediate), outcome.NotSent},
	} {
		v := verify.Judge(c.demand, c.seen, p.roots, now)
		if v.Transport != c.how {
			t.Errorf("%s: %+v", name, v)
		}
		if len(v.Policies) != 1 || v.Policies[0].Type != outcome.NoPolicy || v.Policies[0].Failure != nil {
			t.Errorf("%s: reported as %+v, though no policy was published", name, v.Policies)
		}
	}
}

func TestADemandWithoutItsPolicyPassesNothing(t *testing.T) {
	p := newPKI(t)
	for name, d := range map[string]verify.Demand{
		"MTA-STS":                         {EnforceSTS: true},
		"DANE":                            {EnforceDANE: true},
		"DANE, and there are no records":  {EnforceDANE: true, DANE: &verify.DANEDemand{}},
		"authentication by unusable TLSA": {EnforceDANE: true, DANE: unusable(t, p.good), Level: verify.Authenticated},
	} {
		d.Host = host
		v := verify.Judge(d, shown(p.good, p.intermediate), p.roots, now)
		if v.Pass || v.Why == "" {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// A state without a complete handshake, or with an error beside it, is no session.
func TestAnUnfinishedHandshakeIsNoTLS(t *testing.T) {
	p := newPKI(t)
	unfinished := shown(p.good, p.intermediate)
	unfinished.State.HandshakeComplete = false
	broken := shown(p.good, p.intermediate)
	broken.HandshakeErr = errors.New("broken")
	for name, seen := range map[string]verify.Seen{"unfinished": unfinished, "with an error": broken} {
		d := verify.Demand{Host: host, Level: verify.Authenticated, EnforceSTS: true, STS: sts(mtasts.Enforce)}
		if v := verify.Judge(d, seen, p.roots, now); v.Pass || v.Session != nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
