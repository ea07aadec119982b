// Package config is pawl's one configuration file: YAML, typed and strict. A
// key that does not exist, a value of the wrong form or a combination that
// cannot work is an error with file, line and what is allowed. Every default is
// written in [Default]; no other package has one of its own for what stands here.
package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is the whole of a node's configuration. The yaml names are the
// reference in docs/config.md.
type Config struct {
	Hostname string  `yaml:"hostname"`
	Data     string  `yaml:"data"`
	Database string  `yaml:"database"`
	Log      Log     `yaml:"log"`
	DNS      DNS     `yaml:"dns"`
	Policy   Policy  `yaml:"policy"`
	Postfix  Postfix `yaml:"postfix"`
	Relay    Relay   `yaml:"relay"`
	Routes   []Route `yaml:"routes"`
	DKIM     []DKIM  `yaml:"dkim"`
	TLSRPT   TLSRPT  `yaml:"tlsrpt"`
	Web      Web     `yaml:"web"`
}

// Log says how much is logged and in which form.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
	Redact bool   `yaml:"redact"` // no local parts of addresses, in the log or in stories
}

// DNS says whom pawl asks and whether it is to be believed.
type DNS struct {
	Upstreams  []string `yaml:"upstreams"`  // HOST:PORT of recursive resolvers; none: those of /etc/resolv.conf
	Validating bool     `yaml:"validating"` // the operator's word that the upstreams validate DNSSEC over a path that cannot be forged
	Signed     string   `yaml:"signed"`     // a name known to be signed: must come back with AD
	Bogus      string   `yaml:"bogus"`      // a name known to be bogus: must come back as SERVFAIL
	Timeout    Duration `yaml:"timeout"`
}

// Policy says how policies are found, kept and enforced.
type Policy struct {
	Mode          string   `yaml:"mode"`           // enforce, observe
	Observe       []string `yaml:"observe"`        // destinations that are only observed
	DANE          bool     `yaml:"dane"`           // off: TLSA records are not looked at
	Both          bool     `yaml:"both"`           // demand MTA-STS as well of a host that DANE authenticated
	DiscoveryHold Duration `yaml:"discovery_hold"` // how long mail waits when it cannot be found out whether there is a policy
	Warm          Duration `yaml:"warm"`           // destinations seen within this time are kept warm
	Roots         string   `yaml:"roots"`          // PEM file of trusted CAs; none: the system's
}

// Postfix is the two wires to Postfix: the TLS policy map (socketmap), and the
// TLS-RPT socket.
type Postfix struct {
	Listen string `yaml:"listen"` // HOST:PORT or unix:PATH; off: not served
	TLSRPT string `yaml:"tlsrpt"` // path of the socket for libtlsrpt; none: chosen by TLSRPTSocket; off: not made
}

// Relay is the outbound MTA.
type Relay struct {
	Listen        []string     `yaml:"listen"`       // in clear, with STARTTLS where there is a certificate
	Submissions   []string     `yaml:"submissions"`  // under TLS from the first byte on (RFC 8314)
	TLS           RelayTLS     `yaml:"tls"`          // the relay's certificate
	Networks      []Network    `yaml:"networks"`     // who may relay without authentication
	Clients       RelayClients `yaml:"clients"`      // who may relay by a certificate
	Proxy         []Network    `yaml:"proxy"`        // load balancers, which speak the PROXY protocol
	TLSOptional   []Network    `yaml:"tls_optional"` // who may send TLS-Required: No (RFC 8689) without authentication
	Limits        RelayLimits  `yaml:"limits"`
	MinFree       Size         `yaml:"min_free"`        // of the data folder's disk; below, mail is refused for now
	MaxQueued     int          `yaml:"max_queued"`      // deliveries that wait; at it, mail is refused for now
	MaxQueuedSize Size         `yaml:"max_queued_size"` // of the messages that wait; 0B: as much as the disk has
	MaxSize       Size         `yaml:"max_size"`
	MaxRcpts      int          `yaml:"max_recipients"`
	Connections   int          `yaml:"connections"` // from clients, at once
	PerClient     int          `yaml:"per_client"`  // from one address, at once
	Lifetime      Duration     `yaml:"lifetime"`    // how long a message is tried
	Concurrency   int          `yaml:"concurrency"` // deliveries at once, whole node
	Destination   int          `yaml:"destination"` // deliveries at once to one destination
	History       Duration     `yaml:"history"`     // how long the story of each attempt is kept
	RetryFirst    Duration     `yaml:"retry_first"` // wait after the first failure; doubles up to retry_max
	RetryMax      Duration     `yaml:"retry_max"`
	DelayNotice   Duration     `yaml:"delay_notice"` // a sender is told that a message of this age still waits; 0: never
	SourceIPv4    Address      `yaml:"source_ipv4"`
	SourceIPv6    Address      `yaml:"source_ipv6"`
}

// RelayTLS is the certificate that clients are shown. Both files are read again
// while the relay runs.
type RelayTLS struct {
	Certificate string `yaml:"certificate"` // PEM file with the chain; none: no TLS, and no AUTH
	Key         string `yaml:"key"`         // PEM file
}

// RelayClients are the certificates of clients that may relay.
type RelayClients struct {
	CA           string        `yaml:"ca"`           // PEM file of your own authorities: what they issued for clients may relay
	Fingerprints []Fingerprint `yaml:"fingerprints"` // SHA-256 of single certificates
}

// RelayLimits are how much mail is taken from whom. 0 does not limit.
type RelayLimits struct {
	ClientMessages      int `yaml:"client_messages"`      // a minute, from one address
	ClientRecipients    int `yaml:"client_recipients"`    // an hour, from one address
	SenderMessages      int `yaml:"sender_messages"`      // a minute, from one address in MAIL FROM
	SenderRecipients    int `yaml:"sender_recipients"`    // an hour, from one address in MAIL FROM
	SubmitterMessages   int `yaml:"submitter_messages"`   // a minute, from one submitter
	SubmitterRecipients int `yaml:"submitter_recipients"` // an hour, from one submitter
	NullRecipients      int `yaml:"null_recipients"`      // of one message from the null sender
	Bounces             int `yaml:"bounces"`              // an hour, to one address
}

// DKIM names keys that sign the mail of one domain: files of the data folder,
// dkim/DOMAIN/SELECTOR.pem.
type DKIM struct {
	Domain     string   `yaml:"domain"`
	Selectors  []string `yaml:"selectors"`
	Subdomains bool     `yaml:"subdomains"` // they sign for its subdomains as well
	Service    string   `yaml:"service"`    // email, tlsrpt; empty: email
}

// TLSRPT is who reports to other domains how TLS with them went, and how. With
// none of organization, contact and domain no reports are sent.
type TLSRPT struct {
	Organization string   `yaml:"organization"`
	Contact      string   `yaml:"contact"` // a mailbox of domain
	Domain       string   `yaml:"domain"`  // signs by DKIM
	Window       Duration `yaml:"window"`  // over which the reports of a day are spread
	SmartHost    string   `yaml:"smart_host"`
	MaxReports   int      `yaml:"max_reports"` // to one host in a UTC day, retries included
	MaxBytes     Size     `yaml:"max_bytes"`
	Keep         Duration `yaml:"keep"` // how long outcomes and reports are kept
}

// On reports whether reports are to be sent.
func (t TLSRPT) On() bool { return t.Organization != "" || t.Contact != "" || t.Domain != "" }

// Web is the dashboard, the API and the metrics.
type Web struct {
	Listen string `yaml:"listen"`
}

// Off is the value that switches a listener off.
const Off = "off"

// Default is the configuration of `pawl serve` without a file: everything, on
// loopback, on SQLite in ./pawl-data.
func Default() Config {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return Config{
		Hostname: strings.ToLower(host),
		Data:     "pawl-data",
		Log:      Log{Level: "info", Format: "text"},
		DNS: DNS{
			Signed:  "sigok.verteiltesysteme.net",
			Bogus:   "sigfail.verteiltesysteme.net",
			Timeout: Duration(5 * time.Second),
		},
		Policy: Policy{
			Mode:          "enforce",
			DANE:          true,
			DiscoveryHold: Duration(4 * time.Hour),
			Warm:          Duration(30 * 24 * time.Hour),
		},
		Postfix: Postfix{Listen: "127.0.0.1:8461"},
		Relay: Relay{
			Listen:      []string{"127.0.0.1:2525"},
			Networks:    []Network{{netip.MustParsePrefix("127.0.0.0/8")}, {netip.MustParsePrefix("::1/128")}},
			Limits:      RelayLimits{SubmitterMessages: 300, SubmitterRecipients: 5000, NullRecipients: 10, Bounces: 1000},
			MinFree:     256 << 20,
			MaxQueued:   5000000,
			MaxSize:     50 << 20,
			MaxRcpts:    1000,
			Connections: 10000,
			PerClient:   1000,
			Lifetime:    Duration(5 * 24 * time.Hour),
			Concurrency: 200,
			Destination: 20,
			History:     Duration(30 * 24 * time.Hour),
			RetryFirst:  Duration(5 * time.Minute),
			RetryMax:    Duration(4 * time.Hour),
			DelayNotice: Duration(4 * time.Hour),
		},
		TLSRPT: TLSRPT{
			Window:     Duration(4 * time.Hour),
			MaxReports: 5000,
			MaxBytes:   64 << 20,
			Keep:       Duration(30 * 24 * time.Hour),
		},
		Web: Web{Listen: "127.0.0.1:8480"},
	}
}

// DKIMFolder is where the keys that sign mail are.
func (c Config) DKIMFolder() string { return filepath.Join(c.Data, "dkim") }

// ControlSocket is the path of the socket through which the command line
// speaks to the running server.
func (c Config) ControlSocket() string { return filepath.Join(c.Data, "control.sock") }
