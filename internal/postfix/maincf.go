package postfix

import "strings"

// debianCAFile is where Debian and what comes of it keep all CA certificates in
// one file. Others: /etc/pki/tls/certs/ca-bundle.crt (Fedora), /etc/ssl/cert.pem
// (BSD, Alpine).
const debianCAFile = "/etc/ssl/certs/ca-certificates.crt"

// Setting is one line of main.cf and why it is needed.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Why   string `json:"why"`
}

// String writes the setting as it stands in main.cf, under its reason.
func (s Setting) String() string { return "# " + s.Why + "\n" + s.Key + " = " + s.Value + "\n" }

// MainCF returns what main.cf needs for a version of Postfix to ask the TLS policy
// map at addr, "127.0.0.1:8461".
func MainCF(v Version, addr string) []Setting {
	list := []Setting{
		{"smtp_dns_support_level", "dnssec", "Look MX hosts and TLSA records up with DNSSEC: DANE needs it."},
		{"smtp_tls_security_level", "dane", "Where pawl asks for nothing: DANE if there is, and TLS if it is offered."},
		{"smtp_tls_policy_maps", mapURL(addr, v.Map()), mapWhy(v)},
		{"smtp_tls_CAfile", debianCAFile, "The authorities that MX hosts under MTA-STS must have their certificates from."},
		{"smtp_tls_mandatory_protocols", protocols(v), "Under a policy nothing older than TLS 1.2 (RFC 8461 section 7.2)."},
	}
	if !v.insecureMX() {
		list = append(list, Setting{"smtp_tls_dane_insecure_mx_policy", "dane", "This version would otherwise not hold hosts to DANE whose MX record is not signed."})
	}
	return list
}

// Text writes settings as a piece of main.cf.
func Text(settings []Setting) string {
	var b strings.Builder
	for _, s := range settings {
		b.WriteString(s.String())
	}
	return b.String()
}

const mapPrefix = "socketmap:inet:"

func mapURL(addr, name string) string { return mapPrefix + addr + ":" + name }

func mapWhy(v Version) string {
	if v.attributes() {
		return "Ask pawl what each destination demands, with what Postfix says of it in TLS reports."
	}
	return "Ask pawl what each destination demands."
}

func protocols(v Version) string {
	if v.minimum() {
		return ">=TLSv1.2"
	}
	return "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1"
}
