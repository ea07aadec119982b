package relay

import (
	"net/netip"

	"github.com/pawl-mail/pawl/internal/smtp/server"
)

// Live are the settings that may change while the relay serves. In Options
// they stand under the same names.
type Live struct {
	Networks      []netip.Prefix
	MaxSize       int64
	MaxRecipients int
	Connections   int
	PerClient     int
}

// Change puts settings in force. Who may relay is asked anew for each message;
// a connection keeps the limits that it began with.
func (r *Relay) Change(l Live) {
	r.live.Store(&l)
	r.smtp.SetLimits(l.limits())
}

func (l Live) limits() server.Limits {
	return server.Limits{Size: l.MaxSize, Connections: l.Connections, PerClient: l.PerClient, Recipients: l.MaxRecipients}
}

func (o Options) live() Live {
	return Live{Networks: o.Networks, MaxSize: o.MaxSize, MaxRecipients: o.MaxRecipients, Connections: o.Connections, PerClient: o.PerClient}
}
