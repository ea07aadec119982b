package deliver

import (
	"bytes"
	"slices"

	"github.com/pawl-mail/pawl/dane"
	"github.com/pawl-mail/pawl/internal/verify"
)

// same reports whether a connection that was judged by one demand would have
// been judged by the other in the same way, and reported likewise. Only then may
// it serve both. Where nothing is demanded, destinations share connections to a
// host that they have in common.
func same(a, b verify.Demand) bool {
	if a.STS != nil || a.DANE != nil || b.STS != nil || b.DANE != nil {
		if a.Domain != b.Domain {
			return false
		}
	}
	return a.Host == b.Host && a.Level == b.Level && a.Cell == b.Cell &&
		a.EnforceSTS == b.EnforceSTS && a.EnforceDANE == b.EnforceDANE &&
		a.RequireTLS == b.RequireTLS && a.MXSecure == b.MXSecure && a.Waived == b.Waived && a.Least == b.Least && a.LeastDANE == b.LeastDANE && a.Observe == b.Observe &&
		sameSTS(a.STS, b.STS) && sameDANE(a.DANE, b.DANE)
}

func sameSTS(a, b *verify.STSDemand) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.PolicyDomain == b.PolicyDomain && a.Matched == b.Matched && a.Local == b.Local && a.Policy.Equal(b.Policy)
}

func sameDANE(a, b *verify.DANEDemand) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Set.State == b.Set.State && a.Set.BaseDomain == b.Set.BaseDomain &&
		a.Reference.BaseDomain == b.Reference.BaseDomain && slices.Equal(a.Reference.Names, b.Reference.Names) &&
		a.Reference.AllowCommonName == b.Reference.AllowCommonName &&
		slices.EqualFunc(a.Set.Records, b.Set.Records, func(a, b dane.Record) bool {
			return a.Usage == b.Usage && a.Selector == b.Selector && a.MatchingType == b.MatchingType && bytes.Equal(a.Data, b.Data)
		})
}
