package postfix

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrVersion is wrapped by the error for text that is not a Postfix version.
var ErrVersion = errors.New("not a Postfix version")

// Version is a version of Postfix. Snapshots and release candidates count as the
// release that they lead to.
type Version struct{ Major, Minor, Patch int }

// ParseVersion reads mail_version as Postfix prints it: "3.7.11", "3.11-20250113",
// "mail_version = 3.10.13".
func ParseVersion(s string) (Version, error) {
	text := strings.TrimSpace(s)
	if key, value, ok := strings.Cut(text, "="); ok && strings.TrimSpace(key) == "mail_version" {
		text = strings.TrimSpace(value)
	}
	number, _, _ := strings.Cut(text, "-")
	parts := strings.Split(number, ".")
	var v Version
	if len(parts) < 2 || len(parts) > 3 {
		return v, fmt.Errorf("%w: %.40q", ErrVersion, s)
	}
	for i, into := range []*int{&v.Major, &v.Minor, &v.Patch}[:len(parts)] {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("%w: %.40q", ErrVersion, s)
		}
		*into = int(n)
	}
	return v, nil
}

// String writes the version as "3.7.11".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Since reports whether v is that version or a later one.
func (v Version) Since(major, minor, patch int) bool {
	switch {
	case v.Major != major:
		return v.Major > major
	case v.Minor != minor:
		return v.Minor > minor
	default:
		return v.Patch >= patch
	}
}

// What Postfix learnt when.

// usable: servername= in a policy, without which no host is told its own name.
func (v Version) usable() bool { return v.Since(3, 4, 0) }

// attributes: policy_type= and its like in a policy; before, they make it defer mail.
func (v Version) attributes() bool { return v.Since(3, 10, 0) }

// mxPatterns: one label for a wildcard, from the attributes.
func (v Version) mxPatterns() bool { return v.Since(3, 10, 5) }

// minimum: ">=TLSv1.2" as a list of protocols.
func (v Version) minimum() bool { return v.Since(3, 6, 0) }

// insecureMX: smtp_tls_dane_insecure_mx_policy is dane by itself, and not only
// where main.cf has dane as the level.
func (v Version) insecureMX() bool {
	for _, fixed := range []Version{{3, 6, 17}, {3, 7, 13}, {3, 8, 8}, {3, 9, 2}} {
		if v.Major == fixed.Major && v.Minor == fixed.Minor {
			return v.Patch >= fixed.Patch
		}
	}
	return v.Since(3, 10, 0)
}

// Map is the name of the map that this version is to ask.
func (v Version) Map() string {
	if v.attributes() {
		return MapAttributes
	}
	return MapPlain
}
