package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
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
		Source: n.source(), Lab: n.lab, Log: n.log, Ready: n.ready,
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
	for kind, v := range p.Answers {
		counter("policy_answers_total", "Answers given to Postfix, by kind.", v, "kind", kind)
	}
	counter("policy_lookups_total", "Where policy lookups were answered from.", p.FromMemory, "from", "memory")
	counter("policy_lookups_total", "Where policy lookups were answered from.", p.FromDatabase, "from", "database")
	counter("policy_lookups_total", "Where policy lookups were answered from.", p.Misses, "from", "network")
	counter("policy_refreshes_total", "Policies fetched over HTTPS.", p.Refreshes)
	for result, v := range p.Failures {
		counter("policy_failures_total", "Failures to fetch a policy, by RFC 8460 result type.", v, "result", string(result))
	}
	gauge("policy_overrides", "Overrides in force.", float64(p.Overrides))
	gauge("dane_enabled", "1 if the resolver is trusted to validate and DANE is on.", flag(p.DANE))
	if !p.Oldest.IsZero() {
		gauge("policy_oldest_age_seconds", "Age of the oldest cached policy.", m.n.w.Now().Sub(p.Oldest).Seconds())
	}
	m.collectQueue(gauge)
	if m.n.postfix != nil {
		st := m.n.postfix.Stats()
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
