package policy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"

	"github.com/pawl-mail/pawl/internal/resolve"
)

const (
	warmers     = 32      // domains that are warmed at once
	maxWarmLine = 1 << 16 // of a file with domains, addresses or a mail log
	maxWarmSeen = 1 << 20 // domains that are told apart; beyond that one may be asked about twice
)

// Warmed is what warming came to, or has come to so far.
type Warmed struct {
	Asked    int `json:"asked"`    // domains
	Policies int `json:"policies"` // that have a policy
	None     int `json:"none"`     // that have none
	Unknown  int `json:"unknown"`  // of which it could not be found out
	Bad      int `json:"bad"`      // names that are no domains
}

// Warm looks at domains before there is mail for them, so that first contact is
// none. From then on they are kept warm as if they had been asked about. progress,
// if not nil, is called after each, by one goroutine at a time. Domains that are
// cached are not asked about again.
func (e *Engine) Warm(ctx context.Context, domains iter.Seq[string], progress func(Warmed)) (Warmed, error) {
	var (
		mu     sync.Mutex
		total  Warmed
		failed error
		wait   sync.WaitGroup
	)
	count := func(st *state, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, ErrNotDomain):
			total.Bad++
		case err != nil:
			failed = err
			return
		case st.use == useHold:
			total.Unknown++
		case st.mode() == modeNone:
			total.None++
		default:
			total.Policies++
		}
		total.Asked = total.Policies + total.None + total.Unknown
		if progress != nil {
			progress(total)
		}
	}
	places := make(chan struct{}, warmers)
	seen := make(map[string]bool)
	for name := range domains {
		if ctx.Err() != nil {
			break
		}
		domain, err := domainOf(name)
		if err != nil {
			count(nil, err)
			continue
		}
		if seen[domain] {
			continue
		}
		if len(seen) < maxWarmSeen {
			seen[domain] = true
		}
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			st, _, err := e.current(ctx, domain, errand{mail: true, quiet: true})
			count(st, err)
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		return total, ctx.Err()
	}
	if failed != nil {
		return total, failed
	}
	return total, e.Flush(ctx)
}

// Domains reads domains from a list of domains or addresses, one a line, or from
// a mail log, of which it takes the recipients (to=<user@domain>). What is neither
// is passed over. An error ends the sequence and is the last of it.
func Domains(r io.Reader) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		lines := bufio.NewReaderSize(r, maxWarmLine)
		for {
			line, long, err := readLine(lines)
			if err != nil && !errors.Is(err, io.EOF) {
				yield("", fmt.Errorf("reading domains: %w", err))
				return
			}
			if !long {
				for _, domain := range domainsIn(line) {
					if !yield(domain, nil) {
						return
					}
				}
			}
			if err != nil {
				return
			}
		}
	}
}

// readLine reads a line. One that is too long is passed over.
func readLine(r *bufio.Reader) (line string, long bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = true
			continue
		}
		return string(part), long, err
	}
}

// domainsIn returns the domains of a line.
func domainsIn(line string) []string {
	fields := strings.Fields(line)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
		return nil
	}
	var found []string
	for _, field := range fields {
		if to, ok := strings.CutPrefix(field, "to=<"); ok {
			found = append(found, asDomain(strings.TrimRight(to, ">,"))...)
		}
	}
	if len(found) == 0 {
		found = asDomain(fields[0])
	}
	return found
}

// asDomain returns the domain that a text is, or that it is an address of.
func asDomain(text string) []string {
	text = strings.Trim(text, "<>,;")
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		text = text[at+1:]
	}
	domain, err := resolve.Name(text)
	if err != nil || !strings.Contains(domain, ".") {
		return nil
	}
	return []string{domain}
}
