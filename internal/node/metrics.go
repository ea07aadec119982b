package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pawl-mail/pawl/internal/outcome"
	"github.com/pawl-mail/pawl/internal/web"
)

type (
	prefix         = netip.Prefix
	outcomeAttempt = outcome.Attempt
)

// Timeouts of the dashboard's listener.
const (
	httpHeaderTimeout = 10 * time.Second
	httpIdleTimeout   = 2 * time.Minute
	scrapeTimeout     = 5 * time.Second
)

// handler is the dashboard with the node's metrics.
func (n *Node) handler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), metrics{n})
	return web.New(web.Options{
		Source: n.source(), Lab: n.lab, Runs: n.w.Runs, Log: n.log, Ready: n.ready, Names: []string{strings.ToLower(n.config.Hostname)},
		Metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}),
	})
}

// serveHTTP serves until ctx ends; requests under way may finish.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: httpHeaderTimeout, IdleTimeout: httpIdleTimeout}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		stopped <- srv.Shutdown(grace)
	})
	err := srv.Serve(l)
	if !stop() {
		return <-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// metrics reads the parts' counters when it is asked.
type metrics struct{ n *Node }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("pawl_"+name, help, labels, nil)
}

// Describe sends nothing: the metrics are described as they are collected.
func (m metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	counter := func(name, help string, v uint64, labels ...string) {
		out <- constant(name, help, prometheus.CounterValue, float64(v), labels)
	}
	gauge := func(name, help string, v float64, labels ...string) {
		out <- constant(name, help, prometheus.GaugeValue, v, labels)
	}
	p := m.n.policy.Stats()
	counter("policy_lookups_total", "Where policy lookups were answered from.", p.FromMemory, "from", "memory")
	counter("policy_lookups_total", "Where policy lookups were answered from.", p.FromDatabase, "from", "database")
	counter("policy_lookups_total", "Where policy lookups were answered from.", p.Misses, "from", "network")
	counter("policy_refreshes_total", "Policies fetched over HTTPS.", p.Refreshes)
	for result, v := range p.Failures {
		counter("policy_failures_total", "Failures to fetch a policy, by RFC 8460 result type.", v, "result", string(result))
	}
	gauge("policy_overrides", "Overrides in force.", float64(p.Overrides))
	counter("policy_overridden_total", "Answers for Postfix that an override decided.", p.Overridden)
	gauge("dane_enabled", "1 if the resolver is trusted to validate and DANE is on.", flag(p.DANE))
	if !p.Oldest.IsZero() {
		gauge("policy_oldest_age_seconds", "Age of the oldest cached policy.", m.n.w.Now().Sub(p.Oldest).Seconds())
	}
	m.collectDNS(counter)
	m.collectQueue(gauge)
	m.collectRelay(counter, gauge)
	if m.n.postfix != nil {
		st := m.n.postfix.Stats()
		for kind, v := range st.Answers {
			counter("policy_answers_total", "Answers given to Postfix, by kind.", uint64(v), "kind", kind.String())
		}
		counter("postfix_unknown_total", "Queries for a map that there is not.", uint64(st.Unknown))
		gauge("postfix_connections", "Open connections of the TLS policy map.", float64(st.Connections))
		counter("postfix_malformed_total", "Connections of the TLS policy map that did not speak socketmap.", uint64(st.Malformed))
		counter("postfix_refused_total", "Connections of the TLS policy map over the limit.", uint64(st.Refused))
	}
	m.collectTLSRPT(counter)
	gauge("draining", "1 if the node takes no new mail and begins no delivery.", flag(m.n.draining.Load()))
	d := m.n.db.Stats()
	counter("db_commits_total", "Commits of the database.", d.Commits)
	gauge("observing", "1 if the node only observes policies.", flag(m.n.inForce().Policy.Mode == observe))
}

func (m metrics) collectDNS(counter func(string, string, uint64, ...string)) {
	r := m.n.resolver.Stats()
	counter("dns_lookups_total", "DNS lookups, by where they were answered from.", r.Lookups, "from", "network")
	counter("dns_lookups_total", "DNS lookups, by where they were answered from.", r.CacheHits, "from", "cache")
	counter("dns_strays_total", "DNS messages that answered no question: late, or false.", r.Strays)
	counter("dns_dropped_total", "Records that were left out of answers for being too many or no names.", r.Dropped)
	for kind, v := range r.Failures {
		counter("dns_failures_total", "DNS lookups that found nothing out, by kind.", v, "kind", string(kind))
	}
}

func (m metrics) collectQueue(gauge func(string, string, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	q, err := m.n.queue.Stats(ctx)
	gauge("queue_readable", "1 if the queue's figures could be read.", flag(err == nil))
	if err != nil {
		return
	}
	gauge("queue_deliveries", "Deliveries that wait, by state.", float64(q.Queued), "state", "queued")
	gauge("queue_deliveries", "Deliveries that wait, by state.", float64(q.Held), "state", "held")
	gauge("queue_held_by_policy", "Deliveries that a policy makes wait.", float64(q.ByPolicy))
	gauge("queue_active", "Delivery attempts under way.", float64(q.Active))
	if !q.Oldest.IsZero() {
		gauge("queue_oldest_age_seconds", "Age of the oldest message that waits.", m.n.w.Now().Sub(q.Oldest).Seconds())
	}
}

func (m metrics) collectRelay(counter func(string, string, uint64, ...string), gauge func(string, string, float64, ...string)) {
	s := m.n.relay.Stats()
	counter("relay_accepted_total", "Messages taken into the queue.", uint64(s.Accepted))
	for reason, v := range s.Refused {
		counter("relay_refused_total", "Messages and recipients refused, by reason.", uint64(v), "reason", string(reason))
	}
	gauge("relay_connections", "Open connections of clients.", float64(s.Connections))
	counter("relay_turned_away_total", "Connections over the limits.", uint64(s.TurnedAway))
	counter("relay_bad_handshakes_total", "TLS handshakes of clients that came to nothing.", uint64(s.BadHandshake))
	counter("relay_tls_waived_total", "Messages with TLS-Required: No, by whether their sender may use it.", uint64(s.Waived), "granted", "yes")
	counter("relay_tls_waived_total", "Messages with TLS-Required: No, by whether their sender may use it.", uint64(s.NotWaived), "granted", "no")
	for reason, v := range m.n.logins.Failures() {
		counter("relay_auth_failures_total", "Logins that failed, by reason.", uint64(v), "reason", reason)
	}
	counter("relay_bounces_suppressed_total", "Bounces not sent because their address has had too many.", uint64(m.n.bounces.suppressed.Load()))
	room := m.n.relay.Room()
	gauge("relay_full", "1 while mail is refused because the disk or the queue is nearly full.", flag(room.Full))
	gauge("relay_disk_free_bytes", "Free space of the data folder's disk.", float64(room.Free))
}

// constant makes a metric; labels are pairs of name and value.
func constant(name, help string, kind prometheus.ValueType, v float64, labels []string) prometheus.Metric {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	return prometheus.MustNewConstMetric(desc(name, help, names...), kind, v, values...)
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
