package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/mtasts"
)

// strength orders modes.
func strength(m mtasts.Mode) int {
	switch m {
	case mtasts.Enforce:
		return 2
	case mtasts.Testing:
		return 1
	default:
		return 0
	}
}

// weaker says in which ways a policy asks less than the one before it: a lesser
// mode, a shorter max_age, MX names that were not allowed before. Nothing weakens
// a policy of mode none, and a stronger mode makes up for the rest.
func weaker(before, after mtasts.Policy) []string {
	from, to := strength(before.Mode), strength(after.Mode)
	if from == 0 || to > from {
		return nil
	}
	var ways []string
	if to < from {
		ways = append(ways, fmt.Sprintf("mode %s became %s", before.Mode, after.Mode))
	}
	if after.MaxAge < before.MaxAge {
		ways = append(ways, fmt.Sprintf("max_age %d became %d", before.MaxAge/time.Second, after.MaxAge/time.Second))
	}
	if other := otherMX(before, after); len(other) > 0 && to > 0 {
		ways = append(ways, "other MX names are allowed: "+list(other))
	}
	return ways
}

// otherMX returns the patterns that allow hosts which were not allowed before.
func otherMX(before, after mtasts.Policy) []string {
	var other []string
	for _, pattern := range after.MX {
		covered := slices.Contains(before.MX, pattern) ||
			!strings.HasPrefix(pattern, "*.") && before.Match(pattern)
		if !covered {
			other = append(other, pattern)
		}
	}
	return other
}

// list names a few of many.
func list(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// describe says in few words what a policy asks.
func describe(p *mtasts.Policy) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("mode %s, max_age %d, mx %s", p.Mode, p.MaxAge/time.Second, list(p.MX))
}
