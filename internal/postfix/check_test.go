package postfix_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/postfix"
)

func TestVersionsAsPostfixPrintsThem(t *testing.T) {
	for text, want := range map[string]postfix.Version{
		"3.7.11":                  {Major: 3, Minor: 7, Patch: 11},
		"3.10.13\n":               {Major: 3, Minor: 10, Patch: 13},
		"mail_version = 3.5.25":   {Major: 3, Minor: 5, Patch: 25},
		"3.11-20250113-nonprod":   {Major: 3, Minor: 11},
		"3.10.0-RC1":              {Major: 3, Minor: 10},
		"":                        {},
		"3":                       {},
		"postfix":                 {},
		"3.x.1":                   {},
		"3.7.11.2":                {},
		"3.-7":                    {},
		"3.99999999999999999.1":   {},
		"mail_version":            {},
		"mail_version = ":         {},
		"config_directory = 3.10": {},
	} {
		got, err := postfix.ParseVersion(text)
		if got != want || (err != nil) != (want == postfix.Version{}) || err != nil && !errors.Is(err, postfix.ErrVersion) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func version(t testing.TB, text string) postfix.Version {
	t.Helper()
	v, err := postfix.ParseVersion(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMainCFForEachVersion(t *testing.T) {
	common := map[string]string{
		"smtp_dns_support_level": "dnssec", "smtp_tls_security_level": "dane",
		"smtp_tls_CAfile": "/etc/ssl/certs/ca-certificates.crt", "smtp_tls_mandatory_protocols": ">=TLSv1.2",
	}
	const plain, attributes = "socketmap:inet:127.0.0.1:8461:pawl", "socketmap:inet:127.0.0.1:8461:pawl-tlsrpt"
	for text, want := range map[string]map[string]string{
		"3.4.0":   {"smtp_tls_policy_maps": plain, "smtp_tls_dane_insecure_mx_policy": "dane", "smtp_tls_mandatory_protocols": "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1"},
		"3.6.16":  {"smtp_tls_policy_maps": plain, "smtp_tls_dane_insecure_mx_policy": "dane"},
		"3.6.17":  {"smtp_tls_policy_maps": plain},
		"3.7.11":  {"smtp_tls_policy_maps": plain, "smtp_tls_dane_insecure_mx_policy": "dane"},
		"3.7.13":  {"smtp_tls_policy_maps": plain},
		"3.8.7":   {"smtp_tls_policy_maps": plain, "smtp_tls_dane_insecure_mx_policy": "dane"},
		"3.8.8":   {"smtp_tls_policy_maps": plain},
		"3.9.1":   {"smtp_tls_policy_maps": plain, "smtp_tls_dane_insecure_mx_policy": "dane"},
		"3.9.2":   {"smtp_tls_policy_maps": plain},
		"3.10.0":  {"smtp_tls_policy_maps": attributes},
		"3.11.0":  {"smtp_tls_policy_maps": attributes},
		"4.0.0":   {"smtp_tls_policy_maps": attributes},
		"3.10.13": {"smtp_tls_policy_maps": attributes},
	} {
		all := maps.Clone(common)
		maps.Copy(all, want)
		got := map[string]string{}
		for _, s := range postfix.MainCF(version(t, text), "127.0.0.1:8461") {
			got[s.Key] = s.Value
			if s.Why == "" || strings.Contains(s.Why, "\n") {
				t.Errorf("%s: the reason for %s is %q", text, s.Key, s.Why)
			}
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("Postfix %s (-want +got):\n%s", text, diff)
		}
	}
}

func TestTheTextForMainCFSaysWhy(t *testing.T) {
	got := postfix.Text([]postfix.Setting{{Key: "a", Value: "b", Why: "Because."}, {Key: "c", Value: "d", Why: "So."}})
	if want := "# Because.\na = b\n# So.\nc = d\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPostconfIsReadInEveryForm(t *testing.T) {
	got, err := postfix.ReadPostconf(strings.NewReader("a = b\nempty =\nfolded = x,\n    y\n\n  stray\nrelay/unix/smtp_tls_security_level = may\nnonsense\nwith = x=y\n"))
	want := map[string]string{"a": "b", "empty": "", "folded": "x, y", "relay/unix/smtp_tls_security_level": "may", "with": "x=y"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// good is what `postconf -x` prints where all is as it should be.
func good(v string) map[string]string {
	conf := map[string]string{
		"smtp_host_lookup": "dns", "disable_dns_lookups": "no", "ignore_mx_lookup_error": "no", "relayhost": "", "smtp_tls_dane_insecure_mx_policy": "dane",
		"smtp_tls_mandatory_ciphers": "medium", "tls_append_default_CA": "no", "smtp_tls_per_site": "", "smtp_fallback_relay": "", "smtp_discard_ehlo_keywords": "",
	}
	parsed, _ := postfix.ParseVersion(v)
	for _, s := range postfix.MainCF(parsed, "127.0.0.1:8461") {
		conf[s.Key] = s.Value
	}
	return conf
}

func TestCheckFindsWhatWeakens(t *testing.T) {
	const ours, ours310 = "socketmap:inet:127.0.0.1:8461:pawl", "socketmap:inet:127.0.0.1:8461:pawl-tlsrpt"
	for name, tc := range map[string]struct {
		version string
		main    map[string]string // beside what is good
		master  map[string]string
		want    []string // "level key" of what is not good
	}{
		"what pawl printed":                        {},
		"what pawl printed for 3.10":               {version: "3.10.13"},
		"a Postfix that is too old":                {version: "3.3.22", want: []string{"wrong mail_version"}},
		"no map":                                   {main: map[string]string{"smtp_tls_policy_maps": ""}, want: []string{"wrong smtp_tls_policy_maps"}},
		"another daemon's map":                     {main: map[string]string{"smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8642:QUERY"}, want: []string{"wrong smtp_tls_policy_maps"}},
		"another daemon's map name at our port":    {main: map[string]string{"smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8461:postfix"}, want: []string{"wrong smtp_tls_policy_maps"}},
		"the port by another name of loopback":     {main: map[string]string{"smtp_tls_policy_maps": "socketmap:inet:localhost:8461:pawl"}},
		"a pawl elsewhere":                         {main: map[string]string{"smtp_tls_policy_maps": "socketmap:inet:192.0.2.1:8461:pawl"}, want: []string{"note smtp_tls_policy_maps"}},
		"the map with attributes and an old one":   {main: map[string]string{"smtp_tls_policy_maps": ours310}, want: []string{"wrong smtp_tls_policy_maps"}},
		"the map without attributes and a new one": {version: "3.10.13", main: map[string]string{"smtp_tls_policy_maps": ours}, want: []string{"weak smtp_tls_policy_maps"}},
		"a table before the map":                   {main: map[string]string{"smtp_tls_policy_maps": "hash:/etc/postfix/tls_policy, " + ours}, want: []string{"weak smtp_tls_policy_maps"}},
		"a table behind the map":                   {main: map[string]string{"smtp_tls_policy_maps": ours + " hash:/etc/postfix/tls_policy"}, want: []string{"note smtp_tls_policy_maps"}},
		"level may":                                {main: map[string]string{"smtp_tls_security_level": "may"}, want: []string{"weak smtp_tls_security_level"}},
		"no level":                                 {main: map[string]string{"smtp_tls_security_level": ""}, want: []string{"weak smtp_tls_security_level"}},
		"level encrypt":                            {main: map[string]string{"smtp_tls_security_level": "encrypt"}, want: []string{"note smtp_tls_security_level"}},
		"no DNSSEC":                                {main: map[string]string{"smtp_dns_support_level": ""}, want: []string{"wrong smtp_dns_support_level"}},
		"no DNS":                                   {main: map[string]string{"disable_dns_lookups": "yes"}, want: []string{"wrong disable_dns_lookups"}},
		"hosts from elsewhere":                     {main: map[string]string{"smtp_host_lookup": "native"}, want: []string{"wrong smtp_host_lookup"}},
		"hosts from elsewhere as well":             {main: map[string]string{"smtp_host_lookup": "dns, native"}},
		"MX lookup errors ignored":                 {main: map[string]string{"ignore_mx_lookup_error": "yes"}, want: []string{"wrong ignore_mx_lookup_error"}},
		"names completed":                          {main: map[string]string{"smtp_dns_resolver_options": "res_defnames, res_dnsrch"}, want: []string{"wrong smtp_dns_resolver_options"}},
		"no authorities":                           {main: map[string]string{"smtp_tls_CAfile": ""}, want: []string{"wrong smtp_tls_CAfile"}},
		"authorities in a folder":                  {main: map[string]string{"smtp_tls_CAfile": "", "smtp_tls_CApath": "/etc/ssl/certs"}, want: []string{"note smtp_tls_CApath"}},
		"authorities of OpenSSL":                   {main: map[string]string{"smtp_tls_CAfile": "", "tls_append_default_CA": "yes"}},
		"trust anchors of one's own":               {main: map[string]string{"smtp_tls_trust_anchor_file": "/etc/postfix/ta.pem"}, want: []string{"note smtp_tls_trust_anchor_file"}},
		"unsigned MX records":                      {main: map[string]string{"smtp_tls_dane_insecure_mx_policy": "may"}, want: []string{"weak smtp_tls_dane_insecure_mx_policy"}},
		"the default protocols":                    {main: map[string]string{"smtp_tls_mandatory_protocols": ">=TLSv1"}, want: []string{"weak smtp_tls_mandatory_protocols"}},
		"old protocols excluded one by one":        {main: map[string]string{"smtp_tls_mandatory_protocols": "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1"}},
		"one old protocol forgotten":               {main: map[string]string{"smtp_tls_mandatory_protocols": "!SSLv2, !SSLv3, !TLSv1"}, want: []string{"weak smtp_tls_mandatory_protocols"}},
		"new protocols listed":                     {main: map[string]string{"smtp_tls_mandatory_protocols": "TLSv1.2 TLSv1.3"}},
		"an old protocol listed":                   {main: map[string]string{"smtp_tls_mandatory_protocols": "TLSv1.2, TLSv1.1"}, want: []string{"weak smtp_tls_mandatory_protocols"}},
		"every protocol":                           {main: map[string]string{"smtp_tls_mandatory_protocols": ""}, want: []string{"weak smtp_tls_mandatory_protocols"}},
		"weak ciphers":                             {main: map[string]string{"smtp_tls_mandatory_ciphers": "export"}, want: []string{"weak smtp_tls_mandatory_ciphers"}},
		"wildcards of any depth":                   {version: "3.10.13", main: map[string]string{"smtp_tls_enforce_sts_mx_patterns": "no"}, want: []string{"weak smtp_tls_enforce_sts_mx_patterns"}},
		"no reports":                               {version: "3.10.13", main: map[string]string{"smtp_tlsrpt_enable": "no"}, want: []string{"note smtp_tlsrpt_enable"}},
		"a relay host":                             {main: map[string]string{"relayhost": "[relay.example.com]"}, want: []string{"note relayhost"}},
		"a relay for what fails":                   {main: map[string]string{"smtp_fallback_relay": "[relay.example.com]"}, want: []string{"weak smtp_fallback_relay"}},
		"the table of old":                         {main: map[string]string{"smtp_tls_per_site": "hash:/etc/postfix/tls_per_site"}, want: []string{"note smtp_tls_per_site"}},
		"STARTTLS not seen":                        {main: map[string]string{"smtp_discard_ehlo_keywords": "chunking, STARTTLS"}, want: []string{"wrong smtp_discard_ehlo_keywords"}},
		"a service without TLS":                    {master: map[string]string{"slow/unix/smtp_tls_security_level": "none", "slow/unix/smtp_tls_policy_maps": "", "relay/unix/syslog_name": "postfix/relay"}, want: []string{"wrong slow/unix: smtp_tls_policy_maps", "weak slow/unix: smtp_tls_security_level"}},
		"a service that says the same":             {master: map[string]string{"slow/unix/smtp_tls_security_level": "dane"}},
		"a server is no client":                    {master: map[string]string{"smtp/inet/smtpd_tls_security_level": "may"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := tc.version
			if v == "" {
				v = "3.7.11"
			}
			main := good(v)
			maps.Copy(main, tc.main)
			var got []string
			for _, f := range postfix.Check(version(t, v), main, tc.master, "127.0.0.1:8461") {
				if f.Level == postfix.Good {
					continue
				}
				got = append(got, f.Level.String()+" "+f.Key)
				if f.Text == "" || f.Do == "" || !strings.HasSuffix(f.Do, ".") {
					t.Errorf("%s says %q, do %q", f.Key, f.Text, f.Do)
				}
				if f.OK() != (f.Level == postfix.Note) {
					t.Errorf("%s: OK is %v", f.Key, f.OK())
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzReadPostconf(f *testing.F) {
	f.Add("a = b\n c\n")
	f.Add("mail_version = 3.7.11\nsmtp_tls_policy_maps = socketmap:inet:[::1]:8461:pawl, hash:x\nx/unix/smtp_tls_policy_maps=socketmap:inet:\n")
	f.Fuzz(func(t *testing.T, text string) {
		conf, err := postfix.ReadPostconf(strings.NewReader(text))
		if err != nil {
			return
		}
		v, err := postfix.ParseVersion(conf["mail_version"])
		if err != nil {
			v = postfix.Version{Major: 3, Minor: 10}
		}
		if len(postfix.Check(v, conf, conf, "127.0.0.1:8461")) == 0 {
			t.Error("nothing was found, not even what is good")
		}
	})
}
