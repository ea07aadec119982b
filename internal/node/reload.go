package node

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/relay"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/systemd"
)

// Reloaded is what a reload came to.
type Reloaded struct {
	Changed []string `json:"changed"` // keys whose new values are in force
	Restart []string `json:"restart"` // keys whose new values need a restart
}

// part is what can change while the node runs.
type part struct {
	keys []string // of the configuration
	// prepare makes what the settings need, and returns what puts them in force.
	// An error of any part leaves all of them as they are. It is called at each
	// reload: files that the configuration names may have changed though it has not.
	prepare func(c config.Config) (apply func(), err error)
}

// parts are all that can change while the node runs. A key that no part names
// needs a restart.
func (n *Node) parts() []part {
	return []part{
		{keys: []string{"log.level"}, prepare: func(c config.Config) (func(), error) {
			return func() { n.level.Set(level(c.Log.Level)) }, nil
		}},
		{keys: []string{"policy.mode", "policy.observe"}, prepare: func(c config.Config) (func(), error) {
			return n.policy.PrepareObserve(c.Policy.Mode == observe, c.Policy.Observe)
		}},
		{keys: []string{
			"relay.lifetime", "relay.retry_first", "relay.retry_max", "relay.concurrency", "relay.destination", "relay.history",
		}, prepare: func(c config.Config) (func(), error) {
			return func() { n.queue.Tune(tuning(c.Relay)) }, nil
		}},
		{keys: []string{
			"relay.networks", "relay.max_size", "relay.max_recipients", "relay.connections", "relay.per_client",
		}, prepare: func(c config.Config) (func(), error) {
			return func() { n.relay.Change(live(c.Relay)) }, nil
		}},
		{keys: []string{"routes"}, prepare: func(c config.Config) (func(), error) {
			list, err := routes(c)
			return func() { n.deliver.SetRoutes(list) }, err
		}},
		{prepare: func(config.Config) (func(), error) {
			// The files may be new ones under the same names; Reload keeps what it
			// had where they cannot be used, and says so here.
			return func() {}, n.relay.Reload()
		}},
	}
}

func tuning(r config.Relay) queue.Tuning {
	return queue.Tuning{
		Lifetime: r.Lifetime.Std(), RetryFirst: r.RetryFirst.Std(), RetryMax: r.RetryMax.Std(),
		Concurrency: r.Concurrency, Destination: r.Destination, History: r.History.Std(),
	}
}

func live(r config.Relay) relay.Live {
	return relay.Live{
		Networks: prefixes(r.Networks), MaxSize: int64(r.MaxSize), MaxRecipients: r.MaxRcpts,
		Connections: r.Connections, PerClient: r.PerClient,
	}
}

// Reload reads the configuration again and puts in force what can change while
// the node runs. A configuration that cannot be used changes nothing; the error
// says where it is wrong.
func (n *Node) Reload(ctx context.Context) (Reloaded, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	n.w.Notify(systemd.Reloading())
	defer n.w.Notify(systemd.Ready)
	r, err := n.reload()
	if err != nil {
		n.log.ErrorContext(ctx, "the configuration was not reloaded; nothing has changed", "err", err)
		return r, err
	}
	n.log.InfoContext(ctx, "the configuration was reloaded",
		slog.String("changed", strings.Join(r.Changed, " ")), slog.String("needs_restart", strings.Join(r.Restart, " ")))
	return r, nil
}

func (n *Node) reload() (Reloaded, error) {
	r := Reloaded{Changed: []string{}, Restart: []string{}}
	if n.w.Load == nil {
		return r, &control.Error{Text: "this server runs without a configuration file, so there is nothing to reload", Do: "Start it with --config FILE."}
	}
	wanted, err := n.w.Load()
	if err != nil {
		return r, &control.Error{Text: err.Error(), Do: "Nothing was changed. Correct the file, see `pawl config check`, and reload again."}
	}
	var live []string
	var apply []func()
	for _, p := range n.parts() {
		live = append(live, p.keys...)
		do, err := p.prepare(wanted)
		if err != nil {
			return r, &control.Error{Text: err.Error(), Do: "Nothing was changed. Correct the configuration and reload again."}
		}
		apply = append(apply, do)
	}
	for _, do := range apply {
		do()
	}
	now := n.inForce()
	for _, key := range config.Diff(now, wanted) {
		if slices.Contains(live, key) {
			r.Changed = append(r.Changed, key)
		} else {
			r.Restart = append(r.Restart, key)
		}
	}
	now = now.With(wanted, func(key string) bool { return slices.Contains(live, key) })
	n.force.Store(&now)
	return r, nil
}

// inForce is the configuration as it holds now: what it was at the start, and
// what was reloaded since.
func (n *Node) inForce() config.Config { return *n.force.Load() }
