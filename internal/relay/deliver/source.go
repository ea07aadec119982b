package deliver

import (
	"context"
	"net/netip"
)

// sourceKey carries the source address that the configuration wants to the dialler.
type sourceKey struct{}

// Source returns the local address that a connection is to be made from; the
// zero address leaves it to the system. It is for [Options.Dial].
func Source(ctx context.Context) netip.Addr {
	a, _ := ctx.Value(sourceKey{}).(netip.Addr)
	return a
}

// from adds the source address for connections to an address.
func (o *Options) from(ctx context.Context, to netip.Addr) context.Context {
	source := o.Source6
	if to.Unmap().Is4() {
		source = o.Source4
	}
	if !source.IsValid() {
		return ctx
	}
	return context.WithValue(ctx, sourceKey{}, source)
}
