package policy

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"time"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/mtasts"
)

// A snapshot is a file of lines: a header, a policy on each line, and the
// signature of all that stands before it (Ed25519ph, RFC 8032 §5.1).

const (
	snapshotKind    = "pawl policy snapshot"
	snapshotVersion = 1
	snapshotKey     = "policy.snapshot.seed" // in the table meta
	snapshotPage    = 1000                   // policies that are read or stored at a time

	maxSnapshot     = 2 << 30 // bytes
	maxSnapshotLine = 256 << 10
	maxSkew         = 5 * time.Minute // a policy may have been fetched so far in the future
)

// ErrSnapshot is wrapped by the error for a snapshot that cannot be taken: it is
// none, it was changed, or nobody who is trusted signed it. Nothing of it is used.
var ErrSnapshot = errors.New("not a usable snapshot")

type snapshotHeader struct {
	Kind    string    `json:"kind"`
	Version int       `json:"version"`
	Made    time.Time `json:"made"`
	Key     []byte    `json:"key"`
}

type snapshotEntry struct {
	Domain  string `json:"domain"`
	ID      string `json:"id"`
	Policy  string `json:"policy"`  // its lines
	Fetched int64  `json:"fetched"` // Unix microseconds, as the rest
	Expires int64  `json:"expires"`
	Used    int64  `json:"used"`
}

type snapshotEnd struct {
	Count     int    `json:"count"`
	Signature []byte `json:"signature"`
}

// Imported is what an import came to.
type Imported struct {
	Taken   int `json:"taken"`   // policies that are cached now
	Kept    int `json:"kept"`    // domains whose cached policy is newer, or would have been weakened
	Expired int `json:"expired"` // policies that ended meanwhile
	Bad     int `json:"bad"`     // entries that make no sense
}

// SnapshotKey returns the key by which this installation's snapshots are known,
// in base64: who imports one names it as trusted.
func (e *Engine) SnapshotKey(ctx context.Context) (string, error) {
	key, err := e.signingKey(ctx)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)), nil
}

// signingKey returns the installation's key, and makes it the first time.
func (e *Engine) signingKey(ctx context.Context) (ed25519.PrivateKey, error) {
	text, err := e.storedSeed(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		seed := make([]byte, ed25519.SeedSize)
		if _, err := rand.Read(seed); err != nil {
			return nil, fmt.Errorf("making the key of snapshots: %w", err)
		}
		err = e.o.DB.Write(ctx, func(ctx context.Context, tx db.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING`,
				snapshotKey, base64.StdEncoding.EncodeToString(seed))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("storing the key of snapshots: %w", err)
		}
		text, err = e.storedSeed(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key of snapshots: %w", err)
	}
	seed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the stored key of snapshots is damaged")
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func (e *Engine) storedSeed(ctx context.Context) (seed string, err error) {
	err = e.o.DB.Read().QueryRowContext(ctx, `SELECT value FROM meta WHERE key = $1`, snapshotKey).Scan(&seed)
	return seed, err
}

// signature signs and checks the digest of a snapshot's lines.
var signature = &ed25519.Options{Hash: crypto.SHA512, Context: snapshotKind}

// Export writes all live policies that ask for something, signed, and returns how
// many they are.
func (e *Engine) Export(ctx context.Context, w io.Writer) (int, error) {
	key, err := e.signingKey(ctx)
	if err != nil {
		return 0, err
	}
	if err := e.rows.flush(ctx); err != nil {
		return 0, err
	}
	digest := sha512.New()
	out := bufio.NewWriter(io.MultiWriter(w, digest))
	lines := json.NewEncoder(out)
	err = lines.Encode(snapshotHeader{Kind: snapshotKind, Version: snapshotVersion, Made: e.now().UTC(), Key: key.Public().(ed25519.PublicKey)})
	if err != nil {
		return 0, fmt.Errorf("writing a snapshot: %w", err)
	}
	count, after := 0, ""
	for {
		page, err := e.rows.livePage(ctx, after, micro(e.now()))
		if err != nil {
			return count, err
		}
		for _, d := range page {
			after = d.domain
			st := d.state
			err := lines.Encode(snapshotEntry{d.domain, st.id, string(st.policy.Text()), st.fetched, st.expires, st.used})
			if err != nil {
				return count, fmt.Errorf("writing a snapshot: %w", err)
			}
			count++
		}
		if len(page) < snapshotPage {
			break
		}
	}
	if err := out.Flush(); err != nil {
		return count, fmt.Errorf("writing a snapshot: %w", err)
	}
	signed, err := key.Sign(nil, digest.Sum(nil), signature)
	if err != nil {
		return count, fmt.Errorf("signing a snapshot: %w", err)
	}
	if err := json.NewEncoder(w).Encode(snapshotEnd{count, signed}); err != nil {
		return count, fmt.Errorf("writing a snapshot: %w", err)
	}
	return count, nil
}

// livePage returns the next domains with a live policy that asks for something.
func (r *rows) livePage(ctx context.Context, after string, now int64) ([]due, error) {
	page, err := db.All(ctx, r.db.Read(), scanDue,
		`SELECT `+stateColumns+` FROM policy
		 WHERE org = $1 AND domain > $2 AND mode IN ('enforce', 'testing') AND expires_at > $3 ORDER BY domain LIMIT $4`,
		r.org, after, now, int64(snapshotPage))
	if err != nil {
		return nil, fmt.Errorf("reading policies for a snapshot: %w", err)
	}
	return page, nil
}

// Import takes policies out of a snapshot that this installation signed, or one of
// those whose keys (as [Engine.SnapshotKey] gives them) are trusted. It never
// weakens what is cached: a policy is taken only where none is live, or where it is
// newer and asks no less. Each is checked at its first use like any other.
func (e *Engine) Import(ctx context.Context, r io.Reader, trusted ...string) (Imported, error) {
	file, err := os.CreateTemp("", "pawl-snapshot-*")
	if err != nil {
		return Imported{}, fmt.Errorf("importing a snapshot: %w", err)
	}
	defer func() {
		file.Close()
		if err := os.Remove(file.Name()); err != nil {
			e.log.Warn("a temporary file was left behind", "file", file.Name(), "err", err)
		}
	}()
	if err := e.verified(ctx, io.TeeReader(r, file), trusted); err != nil {
		return Imported{}, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return Imported{}, fmt.Errorf("importing a snapshot: %w", err)
	}
	return e.takeAll(ctx, file)
}

// lines is a scanner of a snapshot's lines.
func snapshotLines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxSnapshotLine)
	return lines
}

// verified reads a snapshot to its end and says whether it is whole and signed by
// someone who is trusted.
func (e *Engine) verified(ctx context.Context, r io.Reader, trusted []string) error {
	lines := snapshotLines(io.LimitReader(r, maxSnapshot))
	var header snapshotHeader
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &header) != nil || header.Kind != snapshotKind || header.Version != snapshotVersion {
		return fmt.Errorf("%w: it does not begin as one", ErrSnapshot)
	}
	key, err := e.trustedKey(ctx, header.Key, trusted)
	if err != nil {
		return err
	}
	digest := sha512.New()
	add(digest, lines.Bytes())
	count := -1
	var last []byte // the end is signed by nobody
	for lines.Scan() {
		if last != nil {
			add(digest, last)
		}
		last = append(last[:0], lines.Bytes()...)
		count++
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	var end snapshotEnd
	if json.Unmarshal(last, &end) != nil || len(end.Signature) == 0 {
		return fmt.Errorf("%w: its end is missing", ErrSnapshot)
	}
	if end.Count != count || ed25519.VerifyWithOptions(key, digest.Sum(nil), end.Signature, signature) != nil {
		return fmt.Errorf("%w: the signature does not fit what it stands under", ErrSnapshot)
	}
	return nil
}

func add(digest hash.Hash, line []byte) {
	digest.Write(line) // never an error
	digest.Write([]byte{'\n'})
}

// trustedKey returns the key that a snapshot says it is signed with, if it is one
// of those trusted.
func (e *Engine) trustedKey(ctx context.Context, key []byte, trusted []string) (ed25519.PublicKey, error) {
	own, err := e.SnapshotKey(ctx)
	if err != nil {
		return nil, err
	}
	if len(key) == ed25519.PublicKeySize {
		for _, text := range slices.Concat(trusted, []string{own}) {
			known, err := base64.StdEncoding.DecodeString(text)
			if err == nil && bytes.Equal(known, key) {
				return ed25519.PublicKey(key), nil
			}
		}
	}
	return nil, fmt.Errorf("%w: it is signed by %s, which is not trusted", ErrSnapshot, base64.StdEncoding.EncodeToString(key[:min(len(key), ed25519.PublicKeySize)]))
}

// takeAll takes the entries of a snapshot that was verified.
func (e *Engine) takeAll(ctx context.Context, r io.Reader) (Imported, error) {
	var total Imported
	lines := snapshotLines(r)
	lines.Scan() // the header
	for lines.Scan() {
		var entry snapshotEntry
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil || entry.Domain == "" {
			continue // the end
		}
		if err := e.takeEntry(ctx, entry, &total); err != nil {
			return total, err
		}
		if e.rows.backlog() >= snapshotPage {
			if err := e.rows.flush(ctx); err != nil {
				return total, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return total, fmt.Errorf("importing a snapshot: %w", err)
	}
	return total, e.rows.flush(ctx)
}

func (e *Engine) takeEntry(ctx context.Context, entry snapshotEntry, total *Imported) error {
	now := micro(e.now())
	domain, policy, ok := entry.read(now)
	switch {
	case !ok:
		total.Bad++
		return nil
	case entry.Expires <= now:
		total.Expired++
		return nil
	}
	taken, err := e.alone(ctx, domain, func(ctx context.Context) (*state, error) {
		return e.merge(ctx, domain, entry, policy)
	})
	switch {
	case err != nil:
		return err
	case taken != nil:
		total.Taken++
	default:
		total.Kept++
	}
	return nil
}

// read returns what an entry says, and whether that makes sense.
func (s snapshotEntry) read(now int64) (string, mtasts.Policy, bool) {
	domain, err := domainOf(s.Domain)
	if err != nil {
		return "", mtasts.Policy{}, false
	}
	policy, err := mtasts.ParsePolicy([]byte(s.Policy))
	if err != nil || policy.Mode == mtasts.None { // none would keep discovery from being held
		return "", mtasts.Policy{}, false
	}
	ok := s.Fetched <= now+maxSkew.Microseconds() && s.Expires <= s.Fetched+policy.MaxAge.Microseconds()
	return domain, policy, ok
}

// merge is the new state of a domain with an imported policy, nil if the cached
// one stays.
func (e *Engine) merge(ctx context.Context, domain string, entry snapshotEntry, policy mtasts.Policy) (*state, error) {
	prev, _, unreadable := e.known(ctx, domain)
	if unreadable {
		return nil, fmt.Errorf("importing the policy of %s: what is cached could not be read", domain)
	}
	now := micro(e.now())
	if entry.Fetched < prev.fetched {
		return nil, nil
	}
	if prev.live(now) {
		less := strength(policy.Mode) < strength(prev.policy.Mode) || len(weaker(*prev.policy, policy)) > 0
		if less || entry.Fetched == prev.fetched || entry.Expires < prev.expires {
			return nil, nil
		}
	}
	next := prev.successor()
	next.policy, next.id, next.fetched, next.expires = compact(policy), clip(entry.ID), entry.Fetched, entry.Expires
	next.facts, next.use, next.check = stsFacts{Cache: cacheLive}, useCached, 0
	next.fail, next.since, next.tried, next.said = nil, 0, 0, 0
	next.used = max(prev.used, min(entry.Used, now))
	spread := time.Duration(e.o.Jitter() * float64(min(RefreshEvery, policy.MaxAge/2)))
	next.refresh = now + max(spread, BackOff).Microseconds()
	if _, ok := e.memory.GetIfPresent(domain); ok {
		e.keep(domain, next)
	}
	e.rows.save(domain, next)
	return next, nil
}
