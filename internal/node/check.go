package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/web"
)

// checkTimeout caps all checks together: a start must not hang on a resolver
// that is silent.
const checkTimeout = 15 * time.Second

// buildYear is a year in which this code existed: a clock before it is wrong.
const buildYear = 2026

// Check looks at what the node stands on. Each check is one line: what was
// found, and what to do where it is not well.
func Check(ctx context.Context, c config.Config, w Wiring) []web.Check {
	w = w.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	checks := []web.Check{checkRoots(c, w), checkClock(w.Now()), checkData(c.Data)}
	if c.Relay.TLS.Certificate != "" {
		expires, err := relayFiles(c.Relay).Read()
		checks = append(checks, certificateCheck(w.Now(), expires, err))
	}
	r, err := newResolver(c, w)
	if err != nil {
		return append(checks, web.Check{Name: "resolver", Text: err.Error(), Do: "Name one with dns.upstreams in the configuration."})
	}
	defer r.Close()
	v := r.CheckValidation(ctx, c.DNS.Signed, c.DNS.Bogus)
	checks = append(checks, checkResolver(ctx, r), checkValidation(c, v))
	if len(c.DKIM) > 0 {
		checks = append(checks, checkKeys(ctx, c, r))
	}
	if c.TLSRPT.On() {
		checks = append(checks, reportsReady(c, w.Now))
	}
	return checks
}

func checkRoots(c config.Config, w Wiring) web.Check {
	ck := web.Check{Name: "roots"}
	pool, err := roots(c, w)
	switch {
	case err != nil:
		ck.Text, ck.Do = err.Error(), "Install the package ca-certificates, or name a PEM file with policy.roots; without roots no certificate can be verified and mail under a policy waits."
	case pool.Equal(x509.NewCertPool()):
		ck.Text, ck.Do = "there are no trusted certificate authorities", "Install the package ca-certificates, or name a PEM file with policy.roots; without roots no certificate can be verified and mail under a policy waits."
	default:
		ck.OK, ck.Text = true, "trusted certificate authorities are there"
	}
	return ck
}

func checkClock(now time.Time) web.Check {
	ck := web.Check{Name: "clock"}
	if now.Year() < buildYear {
		ck.Text, ck.Do = "it is "+now.UTC().Format(time.RFC3339)+", which cannot be", "Set the clock, and keep it with NTP; certificates and policies are judged by it."
		return ck
	}
	ck.OK, ck.Text = true, "it is "+now.UTC().Format("2006-01-02 15:04")+" UTC"
	return ck
}

func checkData(dir string) web.Check {
	ck := web.Check{Name: "data folder"}
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = writable(abs)
	}
	if err != nil {
		ck.Text, ck.Do = err.Error(), "Give the folder to the user that runs pawl, or name another with data in the configuration."
		return ck
	}
	ck.OK, ck.Text = true, abs+" can be written"
	return ck
}

// writable makes and removes a file in the folder, or, where the folder does
// not exist yet, finds out whether it could be made.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".check-*")
	if errors.Is(err, os.ErrNotExist) {
		parent := filepath.Dir(dir)
		if parent == dir {
			return fmt.Errorf("%s cannot be made", dir)
		}
		return writable(parent)
	}
	if err != nil {
		return fmt.Errorf("the data folder %s cannot be written: %w", dir, err)
	}
	f.Close()
	return os.Remove(f.Name())
}

// checkResolver asks for the root's name servers' zone, which any resolver that
// reaches the Internet, or the lab's, can answer one way or the other.
func checkResolver(ctx context.Context, r *resolve.Resolver) web.Check {
	ck := web.Check{Name: "resolver"}
	_, err := r.TXT(ctx, "_mta-sts.example.com")
	if err != nil && !resolve.IsNotFound(err) {
		ck.Text = err.Error()
		ck.Do = "Start the resolver, or name another with dns.upstreams; until one answers, mail to destinations without a cached policy waits."
		return ck
	}
	ck.OK, ck.Text = true, "answers"
	return ck
}

// checkDNSSEC is the name of the check of whether the resolver validates.
const checkDNSSEC = "DNSSEC"

func checkValidation(c config.Config, v resolve.Validation) web.Check {
	ck := web.Check{Name: checkDNSSEC, OK: v.Trusted, Text: v.Why}
	switch {
	case !c.Policy.DANE:
		ck.OK, ck.Text = true, "DANE is switched off (policy.dane)"
	case !v.Trusted:
		ck.Do = v.Do
	}
	return ck
}
