package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Duration is a span of time as people write it in the file: Go's units and d
// for days, as in 90s, 4h, 5d, 1d12h.
type Duration time.Duration

const day = 24 * time.Hour

// ParseDuration reads what [Duration.String] writes.
func ParseDuration(s string) (Duration, error) {
	rest, days := s, time.Duration(0)
	if number, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration; write it as 30s, 5m, 4h or 5d", s)
		}
		days, rest = time.Duration(n)*day, after
		if rest == "" {
			return Duration(days), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration; write it as 30s, 5m, 4h or 5d", s)
	}
	return Duration(days + d), nil
}

// UnmarshalYAML reads a duration from the file.
func (d *Duration) UnmarshalYAML(node ast.Node) error {
	return scalar(node, d, ParseDuration)
}

// UnmarshalText reads a duration from the command line.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// MarshalText writes the duration as [ParseDuration] reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes whole days with d and drops units that are zero.
func (d Duration) String() string {
	t := time.Duration(d)
	if t == 0 {
		return "0s"
	}
	out := ""
	if n := t / day; n > 0 {
		out = strconv.FormatInt(int64(n), 10) + "d"
		t %= day
	}
	if t > 0 {
		s := t.String()
		s = strings.TrimSuffix(s, "0s")
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		if s == "" || !strings.HasSuffix(s, "h") && !strings.HasSuffix(s, "m") && !strings.HasSuffix(s, "s") {
			s = t.String()
		}
		out += s
	}
	return out
}

// Std is the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Size is a number of bytes as people write it: a whole number with B, KiB,
// MiB or GiB.
type Size int64

var sizeUnits = []struct {
	name   string
	factor int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// ParseSize reads what [Size.String] writes; a bare number is bytes.
func ParseSize(s string) (Size, error) {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.factor {
			break
		}
		return Size(n * u.factor), nil
	}
	return 0, fmt.Errorf("%q is not a size; write it as 512KiB, 50MiB or 1GiB", s)
}

// UnmarshalYAML reads a size from the file.
func (s *Size) UnmarshalYAML(node ast.Node) error {
	return scalar(node, s, ParseSize)
}

// MarshalText writes the size as [ParseSize] reads it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String writes the size in the largest unit that keeps it whole.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.factor > 1 && int64(s) >= u.factor && int64(s)%u.factor == 0 {
			return strconv.FormatInt(int64(s)/u.factor, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Network is an address range as people write it, 192.0.2.0/24.
type Network struct{ netip.Prefix }

// UnmarshalYAML reads a network from the file.
func (n *Network) UnmarshalYAML(node ast.Node) error {
	return scalar(node, n, func(s string) (Network, error) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return Network{}, fmt.Errorf("%q is not a network; write it as 192.0.2.0/24", s)
		}
		return Network{p.Masked()}, nil
	})
}

// Address is an IP address; the zero value is none.
type Address struct{ netip.Addr }

// UnmarshalYAML reads an address from the file.
func (a *Address) UnmarshalYAML(node ast.Node) error {
	return scalar(node, a, func(s string) (Address, error) {
		if s == "" {
			return Address{}, nil
		}
		parsed, err := netip.ParseAddr(s)
		if err != nil {
			return Address{}, fmt.Errorf("%q is not an IP address", s)
		}
		return Address{parsed}, nil
	})
}

// Fingerprint is the SHA-256 of a certificate, as 64 hexadecimal digits; colons
// between them, as openssl prints them, are taken too.
type Fingerprint [sha256.Size]byte

// ParseFingerprint reads what [Fingerprint.String] writes.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	digits := strings.ReplaceAll(s, ":", "")
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != len(f) {
		return f, fmt.Errorf("%q is not a SHA-256 fingerprint; write what `openssl x509 -noout -fingerprint -sha256` prints behind the =", s)
	}
	return Fingerprint(b), nil
}

// UnmarshalYAML reads a fingerprint from the file.
func (f *Fingerprint) UnmarshalYAML(node ast.Node) error {
	return scalar(node, f, ParseFingerprint)
}

// MarshalText writes the fingerprint as [ParseFingerprint] reads it.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// String writes the digits without colons.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// valueError is a value of the wrong form, with the line it stands on.
type valueError struct {
	line int
	text string
}

func (e *valueError) Error() string { return e.text }

// scalar parses a node that must be a single value.
func scalar[T any](node ast.Node, into *T, parse func(string) (T, error)) error {
	line := node.GetToken().Position.Line
	value, ok := node.(ast.ScalarNode)
	if !ok {
		return &valueError{line, "one value belongs here, not a list or a section"}
	}
	text := ""
	if v := value.GetValue(); v != nil {
		text = fmt.Sprint(v)
	}
	parsed, err := parse(text)
	if err != nil {
		return &valueError{line, err.Error()}
	}
	*into = parsed
	return nil
}
