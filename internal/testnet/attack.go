package testnet

import (
	"errors"
	"fmt"
	"slices"
)

// ErrUnknownAttack is returned for an attack that there is not.
var ErrUnknownAttack = errors.New("no such attack")

// Attack is one thing that the attacker does to a domain, or that the domain's
// own operator does to it by mistake. Which of them make up a row of the attack
// table says [Row].
type Attack string

// Attacks on the SMTP session with any MX host of the domain.
const (
	StripSTARTTLS    Attack = "strip-starttls"      // STARTTLS is taken out of the EHLO reply
	STARTTLSTempFail Attack = "starttls-454"        // STARTTLS is answered 454
	STARTTLSPermFail Attack = "starttls-502"        // STARTTLS is answered 502
	KillHandshake    Attack = "kill-handshake"      // the connection is reset at the client's hello; clear text passes
	DowngradeVersion Attack = "downgrade-version"   // the host gets to speak TLS 1.1 at best
	DowngradeCipher  Attack = "downgrade-cipher"    // the host gets to speak RC4 only
	MITMSelfSigned   Attack = "mitm-self-signed"    // the attacker ends TLS with a self-signed certificate for the host's name
	MITMOtherName    Attack = "mitm-other-name"     // …with a good certificate for a name of his own
	MITMFalseCA      Attack = "mitm-false-ca"       // …with a certificate from a CA that nobody trusts
	MITMMisissued    Attack = "mitm-misissued"      // …with a certificate for the host's name from a trusted CA
	MITMExpired      Attack = "mitm-expired"        // …with an expired certificate for the host's name
	MITMOldTLS       Attack = "mitm-old-tls"        // …mis-issued, at TLS 1.0
	ShowExpired      Attack = "show-expired"        // the host's own key in an expired certificate
	ShowWrongName    Attack = "show-wrong-name"     // the host's own key in a certificate for another name
	ShowCNOnly       Attack = "show-cn-only"        // the host's own key in a certificate with the name in the CN only
	FakeCapabilities Attack = "fake-capabilities"   // the EHLO reply in clear gets SIZE 10 and REQUIRETLS
	InjectReplies    Attack = "inject-replies"      // replies follow the 220 to STARTTLS in the same segment
	ForgeGreeting    Attack = "forge-greeting-554"  // the greeting is a 554
	ForgeEHLO        Attack = "forge-ehlo-550"      // EHLO is answered 550
	ForgeRCPT        Attack = "forge-rcpt-550"      // no STARTTLS, and recipients are answered 550
	ForgeBusy        Attack = "forge-greeting-421"  // the greeting is a 421
	HijackRoute      Attack = "hijack-route"        // the host's address leads to the attacker, who has a certificate of his own
	PlainTextTap     Attack = "plain-text-tap"      // the attacker only listens: STARTTLS passes
	DeadMX           Attack = "mx-unreachable"      // no MX host answers
	Smother          Attack = "mx-silent-after-220" // the host never speaks after STARTTLS's 220
)

// Attacks on the DNS. In a signed zone the resolver sees through the forged
// ones and answers SERVFAIL.
const (
	SpoofMX       Attack = "spoof-mx"        // the MX answer is the attacker's host alone
	SpoofNullMX   Attack = "spoof-null-mx"   // the MX answer is the null MX: the domain takes no mail
	RogueMX       Attack = "rogue-mx"        // the attacker's host is added before the real ones
	SpoofAddrs    Attack = "spoof-addresses" // the MX hosts' addresses are the attacker's
	WildcardAbuse Attack = "wildcard-abuse"  // the MX answer is a host of the attacker's under the domain's own name
	WildcardDepth Attack = "wildcard-depth"  // …one label deeper than a pattern below the domain's name allows
	HideTXT       Attack = "hide-txt"        // _mta-sts is answered NXDOMAIN
	DropTXT       Attack = "drop-txt"        // _mta-sts is not answered
	ServFailTXT   Attack = "servfail-txt"    // _mta-sts is answered SERVFAIL
	ReplayTXT     Attack = "replay-txt"      // _mta-sts stays as it is when the attack begins
	HideTLSRPT    Attack = "hide-tlsrpt"     // _smtp._tls is answered NXDOMAIN
	ServFailTLSA  Attack = "servfail-tlsa"   // the hosts' TLSA lookups are answered SERVFAIL
	BogusTLSA     Attack = "bogus-tlsa"      // …fail to validate
	DropTLSA      Attack = "drop-tlsa"       // …are not answered
	ServFailMX    Attack = "servfail-mx"     // the MX lookup is answered SERVFAIL
	DropAll       Attack = "drop-dns"        // no lookup of the domain or its hosts is answered
)

// Attacks on the policy host.
const (
	BlockPolicyHost      Attack = "policy-refused"      // connections are refused
	BlackHolePolicyHost  Attack = "policy-black-hole"   // connections are not answered
	HidePolicyHost       Attack = "policy-nxdomain"     // its name is answered NXDOMAIN
	PolicySelfSigned     Attack = "policy-self-signed"  // its certificate is…
	PolicyUntrusted      Attack = "policy-untrusted"    //
	PolicyExpired        Attack = "policy-expired"      //
	PolicyWrongName      Attack = "policy-wrong-name"   //
	PolicyCNOnly         Attack = "policy-cn-only"      //
	PolicyOldTLS         Attack = "policy-old-tls"      // TLS 1.1 at best
	PolicyRedirect       Attack = "policy-redirect"     // a 302 to a host that has the policy
	PolicyNotFound       Attack = "policy-404"          //
	PolicyHTML           Attack = "policy-html"         // a page with status 200
	PolicyMediaType      Attack = "policy-media-type"   // the policy as application/octet-stream
	PolicyHuge           Attack = "policy-huge"         // 1 GB
	PolicySlow           Attack = "policy-slow"         // an octet a second
	PolicyHang           Attack = "policy-hang"         // the request is not answered
	PoisonPolicy         Attack = "poison-policy"       // the attacker's policy under a mis-issued certificate, and a new id
	TakeOverPolicyHost   Attack = "take-over-policy"    // the policy host's alias leads to the attacker, who has a good certificate for it
	BlockReportCollector Attack = "reports-unreachable" // the HTTPS rua does not answer
)

// What a domain's operator does to himself.
const (
	MoveMX          Attack = "move-mx"          // the MX is a new host, the policy says the old one
	UncoveredBackup Attack = "uncovered-backup" // a backup MX that the policy does not cover, and the primary is down
	DeletePolicy    Attack = "delete-policy"    // record and policy are gone and the MX is a new host
	ULabelMX        Attack = "u-label-mx"       // the policy has the MX in Unicode
	StaleTLSA       Attack = "stale-tlsa"       // the TLSA records are of a key the hosts no longer have
)

// stager sets an attack up. Each list's functions make one family.
type stager func(d *Domain) undo

// attacks returns how each attack is staged.
func attacks() map[Attack]stager {
	all := make(map[Attack]stager)
	for _, family := range []map[Attack]stager{sessionAttacks(), nameAttacks(), policyAttacks(), mistakes()} {
		for a, s := range family {
			all[a] = s
		}
	}
	return all
}

// Attacks returns every attack there is, in the order of their names.
func Attacks() []Attack {
	var names []Attack
	for a := range attacks() {
		names = append(names, a)
	}
	slices.Sort(names)
	return names
}

// staged is an attack that is on.
type staged struct {
	attack Attack
	undo   undo
}

// On switches attacks on, each for all of the domain's MX hosts as they are
// now. One that is on stays on. What the system under test has in its caches
// stays there. An unknown attack is an error of the Net ([Net.Err]).
func (d *Domain) On(list ...Attack) {
	known := attacks()
	d.switching.Lock()
	defer d.switching.Unlock()
	for _, a := range list {
		stage, ok := known[a]
		if !ok {
			d.n.trouble(fmt.Errorf("switch on %q for %s: %w", a, d.Name, ErrUnknownAttack))
			continue
		}
		if slices.ContainsFunc(d.staged, func(s staged) bool { return s.attack == a }) {
			continue
		}
		d.staged = append(d.staged, staged{a, stage(d)})
	}
}

// Off switches attacks off, those that are given or, without any, all.
// Sessions that have begun go on as they are.
func (d *Domain) Off(list ...Attack) {
	d.switching.Lock()
	defer d.switching.Unlock()
	for i := len(d.staged) - 1; i >= 0; i-- {
		if s := d.staged[i]; len(list) == 0 || slices.Contains(list, s.attack) {
			s.undo.all()
			d.staged = slices.Delete(d.staged, i, i+1)
		}
	}
}

// Active returns the attacks that are on, in the order they were switched on.
func (d *Domain) Active() []Attack {
	d.switching.Lock()
	defer d.switching.Unlock()
	var list []Attack
	for _, s := range d.staged {
		list = append(list, s.attack)
	}
	return list
}

// Variant is one way to stage a row of the attack table.
type Variant struct {
	Name    string // "" where there is only one
	Attacks []Attack
}

// Row returns the ways to stage a row of the attack table ("1", "11b"), for
// the rows that are something done to a domain; nil for the others: 37 is a
// matter of the recipient, 21, 25 and 32 of what a [Caller] says, 42 of the
// message. Row 17 is 16 on a domain with a short max_age.
func Row(number string) []Variant { return rows()[number] }

func rows() map[string][]Variant {
	v := func(name string, list ...Attack) Variant { return Variant{name, list} }
	one := func(list ...Attack) []Variant { return []Variant{{"", list}} }
	return map[string][]Variant{
		"1":   one(StripSTARTTLS),
		"2":   {v("454", STARTTLSTempFail), v("502", STARTTLSPermFail)},
		"3":   one(KillHandshake),
		"4":   {v("version", DowngradeVersion), v("cipher", DowngradeCipher)},
		"5":   one(MITMSelfSigned),
		"6":   one(ShowExpired),
		"7":   {v("wrong name", ShowWrongName), v("CN only", ShowCNOnly)},
		"8":   {v("", SpoofMX), v("null MX", SpoofNullMX)},
		"9":   one(RogueMX),
		"10":  {v("addresses", SpoofAddrs), v("route", HijackRoute)},
		"11a": one(HideTXT, StripSTARTTLS),
		"11b": {v("dropped", DropTXT, StripSTARTTLS), v("SERVFAIL", ServFailTXT, StripSTARTTLS)},
		"12":  one(ReplayTXT),
		"13": {
			v("refused", BlockPolicyHost, StripSTARTTLS), v("not answered", BlackHolePolicyHost, StripSTARTTLS),
			v("NXDOMAIN", HidePolicyHost, StripSTARTTLS), v("self-signed", PolicySelfSigned, StripSTARTTLS),
			v("untrusted", PolicyUntrusted, StripSTARTTLS), v("expired", PolicyExpired, StripSTARTTLS),
			v("wrong name", PolicyWrongName, StripSTARTTLS), v("CN only", PolicyCNOnly, StripSTARTTLS),
		},
		"14": {
			v("redirect", PolicyRedirect, StripSTARTTLS), v("404", PolicyNotFound, StripSTARTTLS), v("HTML", PolicyHTML, StripSTARTTLS),
			v("1 GB", PolicyHuge, StripSTARTTLS), v("an octet a second", PolicySlow, StripSTARTTLS),
		},
		"15": one(HideTXT, SpoofMX),
		"16": one(BlockPolicyHost, HideTXT, StripSTARTTLS),
		"17": one(BlockPolicyHost, HideTXT, StripSTARTTLS),
		"18": one(PoisonPolicy, SpoofMX),
		"19": one(MITMMisissued),
		"20": {v("a host that it fits", WildcardAbuse), v("a host one label too deep for it", WildcardDepth)},
		"22": one(InjectReplies),
		"23": one(FakeCapabilities),
		"24": {v("greeting", ForgeGreeting), v("EHLO", ForgeEHLO), v("RCPT", ForgeRCPT)},
		"27": one(MoveMX),
		"28": one(UncoveredBackup),
		"30": one(DeletePolicy),
		"31": {v("record", HideTLSRPT), v("reports", BlockReportCollector)},
		"34": one(TakeOverPolicyHost),
		"36": one(ULabelMX),
		"38": {v("SERVFAIL", ServFailTLSA), v("bogus", BogusTLSA), v("dropped", DropTLSA)},
		"41": one(StaleTLSA),
	}
}
