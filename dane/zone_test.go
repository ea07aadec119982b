package dane_test

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/pawl-mail/pawl/dane"
)

// The zones of this file are signed by BIND's dnssec-signzone, served by named,
// and validated by unbound, whose only trust anchors are signed.test and
// nsec3.test. LEAF, ROOT and SELF stand for records made of the test's certificates.
const signedZone = `
$TTL 300
@                  SOA ns hostmaster 1 3600 600 86400 300
@                  NS ns
ns                 A 127.0.0.1

mx                 A 192.0.2.1
mx                 AAAA 2001:db8::1
_25._tcp.mx        TLSA LEAF
_25._tcp.mx        TLSA 1 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

ta                 A 192.0.2.2
_25._tcp.ta        CNAME tlsa201._dane
tlsa201._dane      TLSA ROOT

none               A 192.0.2.3
none               AAAA 2001:db8::3
unusable           A 192.0.2.4
_25._tcp.unusable  TLSA 1 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
wild               A 192.0.2.5
*.wild             TLSA LEAF
full               A 192.0.2.6
_25._tcp.full      TLSA WHOLE

; their signatures are broken after signing
bogus              A 192.0.2.10
_25._tcp.bogus     TLSA LEAF
expired            A 192.0.2.11
_25._tcp.expired   TLSA LEAF
bogusaddr          A 192.0.2.12
_25._tcp.bogusaddr TLSA LEAF
baddenial          A 192.0.2.13
baddenial          AAAA 2001:db8::13
bogusalias         CNAME mx

; aliases
alias              CNAME mx
alias2             CNAME alias
ownrecord          CNAME none
_25._tcp.ownrecord TLSA LEAF
middle1            CNAME middle2
middle2            CNAME none
_25._tcp.middle2   TLSA LEAF
old                DNAME new
mx.new             A 192.0.2.20
_25._tcp.mx.new    TLSA LEAF
toplain            CNAME mx.plain
_25._tcp.toplain   TLSA LEAF
toplain2           CNAME mx.plain
tobogus            CNAME bogus
_25._tcp.tobogus   TLSA LEAF
dangling           CNAME nowhere

; a child zone, delegated without DS
plain              NS ns
`

const plainZone = `
$TTL 300
@            SOA ns.signed.test. hostmaster.signed.test. 1 3600 600 86400 300
@            NS ns.signed.test.
mx           A 192.0.2.30
_25._tcp.mx  TLSA LEAF
alias        CNAME mx.signed.test.
_25._tcp.alias TLSA LEAF
`

const nsec3Zone = `
$TTL 300
@            SOA ns.signed.test. hostmaster.signed.test. 1 3600 600 86400 300
@            NS ns.signed.test.
mx           A 192.0.2.40
_25._tcp.mx  TLSA LEAF
none         A 192.0.2.41
`

const unsignedZone = `
$TTL 300
@            SOA ns.signed.test. hostmaster.signed.test. 1 3600 600 86400 300
@            NS ns.signed.test.
mx           A 192.0.2.50
_25._tcp.mx  TLSA LEAF
`

func TestReallySignedZoneThroughAValidatingResolver(t *testing.T) {
	root := newCA(t, "root", nil)
	leaf := newLeaf(t, root, names("mx.signed.test", "ta.signed.test"))
	forged := newLeaf(t, newCA(t, "root", nil), names("mx.signed.test", "ta.signed.test"))
	resolver, log := startDNS(t, strings.NewReplacer(
		"LEAF", tlsa(t, 3, 1, 1, leaf).String(),
		"ROOT", tlsa(t, 2, 0, 1, root).String(),
		"WHOLE", tlsa(t, 3, 0, 0, leaf).String(),
	))

	for _, tt := range []struct {
		name, host string
		state      dane.State
		base       string
		reason     string // of a failure
		patience   time.Duration
	}{
		{name: "TLSA records", host: "mx.signed.test", state: dane.Usable, base: "mx.signed.test"},
		{name: "TLSA records by a CNAME: the base domain stays", host: "ta.signed.test", state: dane.Usable, base: "ta.signed.test"},
		{name: "TLSA record of a wildcard", host: "wild.signed.test", state: dane.Usable, base: "wild.signed.test"},
		{name: "a whole certificate", host: "full.signed.test", state: dane.Usable, base: "full.signed.test"},
		{name: "unusable records only", host: "unusable.signed.test", state: dane.Unusable, base: "unusable.signed.test"},
		{name: "no TLSA record, proven by NSEC", host: "none.signed.test", state: dane.Absent},
		{name: "records in a zone with NSEC3", host: "mx.nsec3.test", state: dane.Usable, base: "mx.nsec3.test"},
		{name: "no TLSA record, proven by NSEC3", host: "none.nsec3.test", state: dane.Absent},
		{name: "no such host", host: "nowhere.signed.test", state: dane.Failed, reason: dane.ReasonNoAddress},

		{name: "bogus TLSA signature", host: "bogus.signed.test", state: dane.Failed, reason: dane.ReasonTLSALookup},
		{name: "expired TLSA signature", host: "expired.signed.test", state: dane.Failed, reason: dane.ReasonTLSALookup},
		{name: "bogus address signature", host: "bogusaddr.signed.test", state: dane.Failed, reason: dane.ReasonAddressLookup},
		{name: "bogus denial of TLSA", host: "baddenial.signed.test", state: dane.Failed, reason: dane.ReasonTLSALookup},
		{name: "bogus CNAME signature", host: "bogusalias.signed.test", state: dane.Failed, reason: dane.ReasonAddressLookup},

		{name: "unsigned child zone", host: "mx.plain.signed.test", state: dane.Absent},
		{name: "zone without trust anchor", host: "mx.unsigned.test", state: dane.Absent},
		{name: "alias in an unsigned zone of a signed host", host: "alias.plain.signed.test", state: dane.Absent},

		{name: "secure alias, records at the target", host: "alias.signed.test", state: dane.Usable, base: "mx.signed.test"},
		{name: "secure alias of an alias", host: "alias2.signed.test", state: dane.Usable, base: "mx.signed.test"},
		{name: "secure alias by DNAME", host: "mx.old.signed.test", state: dane.Usable, base: "mx.new.signed.test"},
		{name: "secure alias, records at its own name", host: "ownrecord.signed.test", state: dane.Usable, base: "ownrecord.signed.test"},
		{name: "secure alias, records at an intermediate name", host: "middle1.signed.test", state: dane.Absent},
		{name: "secure alias, bogus records at the target", host: "tobogus.signed.test", state: dane.Failed, reason: dane.ReasonTLSALookup},
		{name: "secure alias of an insecure host, records at its own name", host: "toplain.signed.test", state: dane.Usable, base: "toplain.signed.test"},
		{name: "secure alias of an insecure host, no records", host: "toplain2.signed.test", state: dane.Absent},
		{name: "alias of nothing", host: "dangling.signed.test", state: dane.Failed, reason: dane.ReasonNoAddress},
		{name: "servers do not answer", host: "mx.silent.test", state: dane.Failed, reason: dane.ReasonAddressLookup, patience: time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(tt.patience, time.Minute))
			defer cancel()
			set, err := dane.Find(ctx, resolver, tt.host, 25)
			if set.State != tt.state || set.BaseDomain != tt.base {
				t.Fatalf("got %v at %q (%v), want %v at %q; steps %+v", set.State, set.BaseDomain, err, tt.state, tt.base, set.Steps)
			}
			var de *dane.Error
			if tt.reason != "" && (!errors.As(err, &de) || de.Reason != tt.reason) {
				t.Fatalf("got %v, want %s; steps %+v", err, tt.reason, set.Steps)
			}
			if set.State != dane.Usable {
				return
			}
			ref := set.Reference(dane.NextHop{Domain: "signed.test", MX: true, Secure: true})
			if _, err := dane.Verify([]*x509.Certificate{leaf.cert, root.cert}, set.Records, ref, now); err != nil {
				t.Errorf("the right certificate: %v", err)
			}
			if m, err := dane.Verify([]*x509.Certificate{forged.cert, root.cert}, set.Records, ref, now); err == nil {
				t.Errorf("a forged certificate matched %v", m.Record)
			}
		})
	}
	// The failures were those of the signatures, and not of something else.
	for _, want := range []string{
		"validation failure <_25._tcp.bogus.signed.test. TLSA IN>: signature crypto failed",
		"validation failure <_25._tcp.expired.signed.test. TLSA IN>: signature expired",
		"validation failure <bogusaddr.signed.test. A IN>: signature crypto failed",
		"validation failure <bogusalias.signed.test. A IN>: signature crypto failed",
		"validation failure <_25._tcp.baddenial.signed.test. TLSA IN>:",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("unbound did not log %q; it logged\n%s", want, log)
		}
	}
}

// startDNS signs the zones, starts the servers, and returns the resolver with its log.
func startDNS(t *testing.T, certificates *strings.Replacer) (stub, *lockedBuffer) {
	t.Helper()
	keygen, signer := program(t, "dnssec-keygen"), program(t, "dnssec-signzone")
	named, unbound := program(t, "named"), program(t, "unbound")
	z := zones{dir: t.TempDir(), keygen: keygen, signer: signer}

	z.write(t, "plain.signed.test", certificates.Replace(plainZone))
	z.write(t, "unsigned.test", certificates.Replace(unsignedZone))
	z.write(t, "signed.test", certificates.Replace(signedZone))
	z.write(t, "nsec3.test", certificates.Replace(nsec3Zone))
	z.sign(t, "nsec3.test", "nsec3.test", "-3", "-")
	z.sign(t, "signed.test", "stale", "-s", "20200101000000", "-e", "20200201000000")
	z.sign(t, "signed.test", "signed.test")
	z.spoil(t)

	authority, _ := serve(t, dns.Question{Name: "mx.signed.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET}, func(port int) *exec.Cmd {
		conf := fmt.Sprintf(`options { directory %q; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; };
			recursion no; dnssec-validation no; notify no; pid-file none; session-keyfile none; };
			controls { };`+"\n", z.dir, port)
		for _, zone := range []string{"plain.signed.test", "unsigned.test", "signed.test", "nsec3.test"} {
			conf += fmt.Sprintf("zone %q { type primary; file %q; };\n", zone, zone)
		}
		z.write(t, "named.conf", conf)
		return exec.Command(named, "-g", "-n", "1", "-c", filepath.Join(z.dir, "named.conf"))
	})
	validator, log := serve(t, dns.Question{Name: "mx.signed.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET}, func(port int) *exec.Cmd {
		conf := fmt.Sprintf(`server:
	interface: 127.0.0.1@%d
	directory: %q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	do-daemonize: no
	do-ip6: no
	num-threads: 1
	val-log-level: 2
	do-not-query-localhost: no
	module-config: "validator iterator"
	local-zone: "test." nodefault
	trust-anchor-file: "anchors"
remote-control:
	control-enable: no
`, port, z.dir)
		at := strings.Replace(authority, ":", "@", 1)
		silent := fmt.Sprintf("127.0.0.1@%d", freePort(t))
		for _, stubZone := range [][2]string{{"signed.test", at}, {"plain.signed.test", at}, {"nsec3.test", at}, {"unsigned.test", at}, {"silent.test", silent}} {
			conf += fmt.Sprintf("stub-zone:\n\tname: %q\n\tstub-addr: %s\n", stubZone[0], stubZone[1])
		}
		z.write(t, "unbound.conf", conf)
		return exec.Command(unbound, "-d", "-c", filepath.Join(z.dir, "unbound.conf"))
	})
	return stub{addr: validator}, log
}

// zones is a folder of zone files.
type zones struct{ dir, keygen, signer string }

func (z zones) path(name string) string { return filepath.Join(z.dir, name) }

func (z zones) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(z.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (z zones) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = z.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// sign signs a zone into the file out, with the zone's one key, and adds that to
// the resolver's trust anchors. The unsigned file becomes zone.unsigned.
func (z zones) sign(t *testing.T, zone, out string, options ...string) {
	t.Helper()
	source := z.path(zone + ".unsigned")
	if _, err := os.Stat(source); err != nil {
		if err := os.Rename(z.path(zone), source); err != nil {
			t.Fatal(err)
		}
		key := z.run(t, z.keygen, "-q", "-a", "ECDSAP256SHA256", "-f", "KSK", zone)
		public, err := os.ReadFile(z.path(key + ".key"))
		if err != nil {
			t.Fatal(err)
		}
		anchors, err := os.OpenFile(z.path("anchors"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer anchors.Close()
		if _, err := anchors.Write(public); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"-q", "-P", "-S", "-z", "-K", z.dir, "-o", zone, "-f", out}, options...)
	z.run(t, z.signer, append(args, source)...)
}

// spoil breaks signatures of signed.test: a bit of some, and one is replaced by
// that of the stale signing, which has expired.
func (z zones) spoil(t *testing.T) {
	t.Helper()
	bogus := map[string]uint16{
		"_25._tcp.bogus.signed.test.": dns.TypeTLSA,
		"bogusaddr.signed.test.":      dns.TypeA,
		"bogusalias.signed.test.":     dns.TypeCNAME,
		"baddenial.signed.test.":      dns.TypeNSEC,
	}
	const expired = "_25._tcp.expired.signed.test."
	var stale *dns.RRSIG
	for _, rr := range z.read(t, "stale") {
		if sig, ok := rr.(*dns.RRSIG); ok && sig.Hdr.Name == expired && sig.TypeCovered == dns.TypeTLSA {
			stale = sig
		}
	}
	var text strings.Builder
	spoiled := 0
	for _, rr := range z.read(t, "signed.test") {
		sig, ok := rr.(*dns.RRSIG)
		switch {
		case ok && sig.Hdr.Name == expired && sig.TypeCovered == dns.TypeTLSA:
			rr = stale
			spoiled++
		case ok && bogus[sig.Hdr.Name] == sig.TypeCovered:
			raw, err := base64.StdEncoding.DecodeString(sig.Signature)
			if err != nil {
				t.Fatal(err)
			}
			raw[10] ^= 1
			sig.Signature = base64.StdEncoding.EncodeToString(raw)
			spoiled++
		}
		fmt.Fprintln(&text, rr)
	}
	if stale == nil || spoiled != len(bogus)+1 {
		t.Fatalf("spoiled %d signatures, want %d", spoiled, len(bogus)+1)
	}
	z.write(t, "signed.test", text.String())
}

func (z zones) read(t *testing.T, name string) []dns.RR {
	t.Helper()
	f, err := os.Open(z.path(name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rrs []dns.RR
	parser := dns.NewZoneParser(f, "", name)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		rrs = append(rrs, rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	return rrs
}
