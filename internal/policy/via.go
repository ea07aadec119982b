package policy

import (
	"context"

	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/verify"
)

// Via returns what holds for mail that goes by way of a smart host, whatever its
// recipients: the smart host's own name is the policy domain (RFC 8461 §3.4). With
// viaMX its MX records say which hosts there are; without, it is the host, by a
// name that the operator wrote and nobody could forge. A port of 0 is the usual
// one; the TLSA records that count are the port's. Fresh asks DNS anew. The errors
// are those of [Engine.Destination].
func (e *Engine) Via(ctx context.Context, host string, port uint16, viaMX, fresh bool) (verify.Destination, error) {
	if fresh {
		ctx = resolve.Fresh(ctx)
	}
	if viaMX {
		d, err := e.destination(ctx, host, fresh)
		d.Port = port
		return d, err
	}
	domain, err := domainOf(host)
	if err != nil {
		return verify.Destination{}, err
	}
	d, err := e.demanded(ctx, domain, fresh)
	if err != nil {
		return verify.Destination{}, err
	}
	d.MX, d.MXAuthentic, d.ImplicitMX, d.Port = []resolve.MX{{Host: domain}}, true, true, port
	e.holdWithout(ctx, &d)
	return d, nil
}
