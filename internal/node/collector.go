package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/postfix"
	"github.com/pawl-mail/pawl/internal/web"
)

// collect opens the socket at which Postfix tells its outcomes.
func (n *Node) collect() (err error) {
	path := n.config.TLSRPTSocket()
	if path == config.Off {
		return nil
	}
	n.collector, err = postfix.NewCollector(postfix.CollectorOptions{
		Path: path, Now: n.w.Now, After: n.w.After, Log: n.log, Record: n.ledger.Record, Cached: n.policy.Cached,
	})
	if err != nil {
		return err
	}
	n.serve("TLS-RPT socket", n.collector.Serve)
	return nil
}

// checkCollector looks at whether what Postfix tells comes through.
func checkCollector(st postfix.CollectorStats) web.Check {
	ck := web.Check{Name: "TLS-RPT socket"}
	var bad []string
	for _, kind := range slices.Sorted(maps.Keys(st.Bad)) {
		bad = append(bad, fmt.Sprintf("%d %s", st.Bad[kind], kind))
	}
	unreachable := postfix.Reachable(st.Path)
	switch {
	case st.Dropped > 0:
		ck.Text = fmt.Sprintf("%d outcomes of Postfix were dropped: more came than could be counted", st.Dropped)
		ck.Do = "Look at what else keeps this machine busy."
	case len(bad) > 0:
		ck.Text = "datagrams came that say nothing: " + strings.Join(bad, ", ")
		ck.Do = "Find out what else than Postfix writes to " + st.Path + "; the log has an example."
	case unreachable != nil && st.Received == 0:
		// Whoever has no Postfix is not to be alarmed.
		ck.OK, ck.Text = true, "no Postfix can reach it: "+unreachable.Error()
		ck.Do = "To collect the outcomes of Postfix, set postfix.tlsrpt to a path in its queue directory, as /var/spool/postfix/pawl/tlsrpt.sock."
	case st.Queue > 0 && st.Queue < postfix.SoundQueue:
		ck.Text = fmt.Sprintf("net.unix.max_dgram_qlen is %d: in a burst of more than %d, outcomes of Postfix are lost", st.Queue, st.Queue+1)
		ck.Do = fmt.Sprintf("sysctl -w net.unix.max_dgram_qlen=%d, and the same in /etc/sysctl.d; pawl makes its socket anew by itself.", postfix.SoundQueue)
	default:
		ck.OK, ck.Text = true, fmt.Sprintf("%s; %d outcomes of Postfix counted", st.Path, st.Counted)
	}
	return ck
}

// collectTLSRPT adds the socket's metrics.
func (m metrics) collectTLSRPT(counter func(string, string, uint64, ...string)) {
	if m.n.collector == nil {
		return
	}
	st := m.n.collector.Stats()
	counter("tlsrpt_datagrams_total", "Datagrams of libtlsrpt that were read.", uint64(st.Received))
	counter("tlsrpt_datagrams_counted_total", "Datagrams of libtlsrpt that were counted.", uint64(st.Counted))
	counter("tlsrpt_datagrams_dropped_total", "Datagrams of libtlsrpt that came faster than they could be counted.", uint64(st.Dropped))
	for _, kind := range slices.Sorted(maps.Keys(st.Bad)) {
		counter("tlsrpt_datagrams_bad_total", "Datagrams of libtlsrpt that say nothing, by kind.", uint64(st.Bad[kind]), "kind", string(kind))
	}
}
