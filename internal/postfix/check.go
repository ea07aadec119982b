package postfix

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Finding is one thing about a Postfix configuration.
type Finding struct {
	Level Level  `json:"level"`
	Key   string `json:"key"`          // the parameter; "relay/unix: …" where master.cf sets it
	Text  string `json:"text"`         // what is so
	Do    string `json:"do,omitempty"` // what to do about it
}

// OK reports whether nothing needs to be done.
func (f Finding) OK() bool { return f.Level <= Note }

// Level says how bad a finding is.
type Level int

// The levels.
const (
	Good  Level = iota // as it should be
	Note               // good to know
	Weak               // mail is delivered with less than was asked for, or could be
	Wrong              // pawl is not asked, or mail waits for nothing
)

var levelNames = [...]string{"good", "note", "weak", "wrong"}

// String returns the level's name.
func (l Level) String() string {
	if l < Good || l > Wrong {
		return "unknown"
	}
	return levelNames[l]
}

// MarshalText writes the level by its name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

const (
	maxPostconf     = 8 << 20
	maxPostconfLine = 1 << 20
)

// ReadPostconf reads "key = value" lines as postconf prints them: `postconf -x`
// for main.cf, `postconf -Px` for what master.cf sets beside it.
func ReadPostconf(r io.Reader) (map[string]string, error) {
	conf := make(map[string]string)
	scan := bufio.NewScanner(io.LimitReader(r, maxPostconf))
	scan.Buffer(nil, maxPostconfLine)
	last := ""
	for scan.Scan() {
		line := scan.Text()
		if last != "" && (strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")) { // postconf -f
			conf[last] = strings.TrimSpace(conf[last] + " " + strings.TrimSpace(line))
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if last = strings.TrimSpace(key); !ok || last == "" {
			last = ""
			continue
		}
		conf[last] = strings.TrimSpace(value)
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("reading what postconf printed: %w", err)
	}
	return conf, nil
}

// Check says what in a configuration keeps Postfix from doing what pawl tells
// it. main is what `postconf -x` prints, master what `postconf -Px` does, addr
// where the TLS policy map listens.
func Check(v Version, main, master map[string]string, addr string) []Finding {
	if !v.usable() {
		return []Finding{{
			Wrong, "mail_version", "Postfix " + v.String() + " does not know servername= in a TLS policy and would defer all mail to domains with one.",
			"Upgrade to Postfix 3.4 or later.",
		}}
	}
	findings := configuration{v, main, addr}.check()
	for _, service := range services(master) {
		overlay := maps.Clone(main)
		for k, val := range master {
			if key, ok := strings.CutPrefix(k, service+"/"); ok {
				overlay[key] = val
			}
		}
		for _, f := range (configuration{v, overlay, addr}).check() {
			if !slices.Contains(findings, f) && f.Level > Good {
				f.Key = service + ": " + f.Key
				f.Do = "In master.cf: " + f.Do
				findings = append(findings, f)
			}
		}
	}
	return findings
}

// services lists those that master.cf gives SMTP client parameters of their own.
func services(master map[string]string) []string {
	var list []string
	for k := range master {
		parts := strings.Split(k, "/")
		if len(parts) == 3 && (strings.HasPrefix(parts[2], "smtp_") || parts[2] == "disable_dns_lookups" || parts[2] == "ignore_mx_lookup_error") {
			list = append(list, parts[0]+"/"+parts[1])
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// configuration is one set of parameters, with what it is held against.
type configuration struct {
	v    Version
	conf map[string]string
	addr string
}

// check runs every rule. A rule finds nothing where there is nothing to say.
func (c configuration) check() []Finding {
	var all []Finding
	for _, rule := range []func(configuration) []Finding{
		configuration.policyMaps, configuration.level, configuration.dns, configuration.authorities,
		configuration.insecureMX, configuration.protocols, configuration.patterns, configuration.around, configuration.reports,
	} {
		all = append(all, rule(c)...)
	}
	return all
}

// words splits a list as main.cf has them.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

func (c configuration) has(key, word string) bool {
	return slices.ContainsFunc(words(c.conf[key]), func(w string) bool { return strings.EqualFold(w, word) })
}

func one(level Level, key, text, do string) []Finding { return []Finding{{level, key, text, do}} }

// policyMaps: ours must be there, by the name for this version, before all others.
func (c configuration) policyMaps() []Finding {
	const key = "smtp_tls_policy_maps"
	want := mapURL(c.addr, c.v.Map())
	list := words(c.conf[key])
	i := slices.IndexFunc(list, func(w string) bool { return isOurs(w, c.addr) })
	if i < 0 {
		return one(Wrong, key, "Postfix does not ask pawl.", "Set "+key+" = "+want+".")
	}
	all := []Finding{c.mapName(key, list[i])}
	if at, _ := splitMap(list[i]); !sameAddr(at, c.addr) {
		all = append(all, Finding{Note, key, "Postfix asks the pawl at " + at + "; this one listens on " + c.addr + ".", "Set " + key + " = " + want + " unless that is meant."})
	}
	if i > 0 {
		all = append(all, Finding{Weak, key, "Before pawl Postfix asks " + strings.Join(list[:i], ", ") + ": what is found there holds, whatever a destination demands.", "Put " + list[i] + " first, and what must differ from it into pawl's overrides (`pawl policy override add`)."})
	}
	if i < len(list)-1 {
		all = append(all, Finding{Note, key, "Where pawl asks for nothing Postfix goes on to ask " + strings.Join(list[i+1:], ", ") + ".", "Remove it if it is a policy daemon that pawl replaces."})
	}
	return all
}

// mapName holds the name of the map that is asked against the version.
func (c configuration) mapName(key, entry string) Finding {
	at, name := splitMap(entry)
	want := mapURL(at, c.v.Map())
	switch name {
	case c.v.Map():
		return Finding{Good, key, "Postfix asks pawl.", ""}
	case MapAttributes:
		return Finding{Wrong, key, "Postfix " + c.v.String() + " does not know the attributes that the map " + name + " answers with, and defers mail to domains with a policy.", "Name the map " + MapPlain + ": " + want + "."}
	case MapPlain:
		return Finding{Weak, key, "The map " + name + " is for Postfix before 3.10: TLS reports lack the policies, and a wildcard in a policy fits names of any depth.", "Name the map " + MapAttributes + ": " + want + "."}
	default:
		return Finding{Wrong, key, fmt.Sprintf("pawl has no map %.40q, and mail waits.", name), "Name the map " + c.v.Map() + ": " + want + "."}
	}
}

// splitMap takes "socketmap:inet:HOST:PORT:NAME" apart.
func splitMap(entry string) (addr, name string) {
	rest, ok := strings.CutPrefix(entry, mapPrefix)
	i := strings.LastIndexByte(rest, ':')
	if !ok || i < 0 {
		return "", ""
	}
	return rest[:i], rest[i+1:]
}

// isOurs reports whether an entry is a map of pawl's, by its address or its name.
func isOurs(entry, addr string) bool {
	at, name := splitMap(entry)
	return at != "" && (sameAddr(at, addr) || name == MapPlain || name == MapAttributes)
}

// sameAddr compares addresses, all of loopback being one.
func sameAddr(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && local(hostA) == local(hostB)
}

// local is the one name of every address that means this machine.
func local(host string) string {
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		return "localhost"
	}
	return host
}

// level: what holds where pawl says nothing.
func (c configuration) level() []Finding {
	const key = "smtp_tls_security_level"
	switch level := c.conf[key]; level {
	case "dane":
		return one(Good, key, "Where pawl asks for nothing there is DANE, and TLS where it is offered.", "")
	case "dane-only", "encrypt", "verify", "secure", "fingerprint":
		return one(Note, key, "Mail to domains that do not offer as much as "+level+" waits, policy or not.", "Set it to dane unless that is meant.")
	case "may":
		return one(Weak, key, "Where pawl asks for nothing Postfix does not look for DANE.", "Set "+key+" = dane.")
	default:
		return one(Weak, key, "Where pawl asks for nothing Postfix does not use TLS at all.", "Set "+key+" = dane.")
	}
}

// dns: what DANE, and MX lookups, need.
func (c configuration) dns() []Finding {
	var all []Finding
	if c.conf["smtp_dns_support_level"] == "dnssec" {
		all = one(Good, "smtp_dns_support_level", "Lookups are made with DNSSEC.", "")
	} else {
		all = one(Wrong, "smtp_dns_support_level", "Postfix does not look for DNSSEC: mail that must be authenticated by DANE waits.", "Set smtp_dns_support_level = dnssec.")
	}
	if c.conf["disable_dns_lookups"] == "yes" {
		all = append(all, Finding{Wrong, "disable_dns_lookups", "Postfix looks no MX hosts up.", "Remove disable_dns_lookups."})
	}
	if list := c.conf["smtp_host_lookup"]; list != "" && !c.has("smtp_host_lookup", "dns") {
		all = append(all, Finding{Wrong, "smtp_host_lookup", "Postfix finds hosts by " + list + " and not by the DNS, which turns DANE off.", "Set smtp_host_lookup = dns."})
	}
	if c.conf["ignore_mx_lookup_error"] == "yes" {
		all = append(all, Finding{Wrong, "ignore_mx_lookup_error", "Postfix delivers to the domain itself when its MX hosts cannot be looked up, which turns DANE off.", "Set ignore_mx_lookup_error = no."})
	}
	if c.has("smtp_dns_resolver_options", "res_defnames") || c.has("smtp_dns_resolver_options", "res_dnsrch") {
		all = append(all, Finding{Wrong, "smtp_dns_resolver_options", "Names are completed with the machine's own domain, which turns DANE off.", "Remove res_defnames and res_dnsrch."})
	}
	return all
}

// authorities: without any, no certificate passes under MTA-STS.
func (c configuration) authorities() []Finding {
	switch {
	case c.conf["smtp_tls_trust_anchor_file"] != "":
		return one(Note, "smtp_tls_trust_anchor_file", "Certificates must come from the trust anchors in "+c.conf["smtp_tls_trust_anchor_file"]+", and no others.", "Use smtp_tls_CAfile in its place unless that is meant.")
	case c.conf["smtp_tls_CAfile"] != "":
		return one(Good, "smtp_tls_CAfile", "Authorities are read from "+c.conf["smtp_tls_CAfile"]+".", "")
	case c.conf["smtp_tls_CApath"] != "":
		return one(Note, "smtp_tls_CApath", "Authorities are read from "+c.conf["smtp_tls_CApath"]+", which must be inside the queue directory as well if smtp(8) is chrooted.", "Set smtp_tls_CAfile = "+debianCAFile+" to be sure: it is read before the chroot.")
	case c.conf["tls_append_default_CA"] == "yes":
		return one(Good, "tls_append_default_CA", "Authorities are those of OpenSSL.", "")
	default:
		return one(Wrong, "smtp_tls_CAfile", "Postfix trusts no authority: all mail to domains with an MTA-STS policy waits.", "Set smtp_tls_CAfile = "+debianCAFile+".")
	}
}

func (c configuration) insecureMX() []Finding {
	const key = "smtp_tls_dane_insecure_mx_policy"
	if value := c.conf[key]; value != "" && value != "dane" {
		return one(Weak, key, "Hosts with TLSA records behind an unsigned MX record are held to "+value+" only.", "Set "+key+" = dane.")
	}
	return nil
}

// protocols: RFC 8461 §7.2.
func (c configuration) protocols() []Finding {
	const key = "smtp_tls_mandatory_protocols"
	var all []Finding
	if oldProtocols(c.conf[key]) {
		all = one(Weak, key, "Under a policy TLS 1.0 and 1.1 are still taken.", "Set "+key+" = "+protocols(c.v)+".")
	}
	if ciphers := c.conf["smtp_tls_mandatory_ciphers"]; ciphers == "export" || ciphers == "low" || ciphers == "null" {
		all = append(all, Finding{Weak, "smtp_tls_mandatory_ciphers", "Under a policy ciphers that can be broken are still taken.", "Remove smtp_tls_mandatory_ciphers, or set it to medium."})
	}
	return all
}

// oldProtocols reports whether a list of protocols lets TLS 1.0 or 1.1 in.
func oldProtocols(list string) bool {
	old := map[string]bool{"tlsv1": true, "tlsv1.1": true}
	only := false
	for _, w := range strings.FieldsFunc(strings.ToLower(list), func(r rune) bool { return strings.ContainsRune(", \t:", r) }) {
		switch {
		case strings.HasPrefix(w, ">="):
			if w != ">=tlsv1" && w != ">=tlsv1.1" && !strings.HasPrefix(w, ">=ssl") {
				return false
			}
		case strings.HasPrefix(w, "!"):
			delete(old, w[1:])
		case strings.HasPrefix(w, "<="):
		default: // a list of what is let in
			if !only {
				only = true
				old = map[string]bool{}
			}
			if w == "tlsv1" || w == "tlsv1.1" || strings.HasPrefix(w, "ssl") {
				old[w] = true
			}
		}
	}
	return len(old) > 0
}

func (c configuration) patterns() []Finding {
	if c.v.mxPatterns() && c.conf["smtp_tls_enforce_sts_mx_patterns"] == "no" {
		return one(Weak, "smtp_tls_enforce_sts_mx_patterns", "A wildcard in a policy fits names of any depth (RFC 8461 section 4.1 says one label).", "Remove smtp_tls_enforce_sts_mx_patterns.")
	}
	return nil
}

// around: what leads mail past the policy of its destination.
func (c configuration) around() []Finding {
	var all []Finding
	if relay := c.conf["relayhost"]; relay != "" {
		all = append(all, Finding{Note, "relayhost", "Mail goes to " + relay + ": its policy is asked for, not the destinations'.", "Let that host enforce the destinations' policies, or remove relayhost."})
	}
	if relay := c.conf["smtp_fallback_relay"]; relay != "" {
		all = append(all, Finding{Weak, "smtp_fallback_relay", "Mail that no host of a destination may have goes to " + relay + ".", "Let that host enforce the destinations' policies, or remove smtp_fallback_relay."})
	}
	if c.conf["smtp_tls_per_site"] != "" {
		all = append(all, Finding{Note, "smtp_tls_per_site", "Postfix ignores smtp_tls_per_site beside smtp_tls_policy_maps.", "Move what must stay into pawl's overrides and remove it."})
	}
	if c.has("smtp_discard_ehlo_keywords", "starttls") {
		all = append(all, Finding{Wrong, "smtp_discard_ehlo_keywords", "Postfix never sees STARTTLS: mail to domains with a policy waits, and all other mail goes in clear.", "Take starttls out of smtp_discard_ehlo_keywords."})
	}
	return all
}

func (c configuration) reports() []Finding {
	if c.v.attributes() && c.conf["smtp_tlsrpt_enable"] == "no" {
		return one(Note, "smtp_tlsrpt_enable", "Postfix tells nobody how TLS went: nothing is reported to the destinations.", "Set smtp_tlsrpt_enable = yes and smtp_tlsrpt_socket_name to where a TLS-RPT collector listens.")
	}
	return nil
}
