package db_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

func TestConnectionLostBeforeTheCommitIsRepeated(t *testing.T) {
	d := dbtest.Postgres(t)
	runs := 0
	cut := func(ctx context.Context, tx db.Tx) error {
		if runs++; runs == 1 {
			_, err := tx.ExecContext(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
			return err
		}
		return insert("cut", "")(ctx, tx)
	}
	for i, err := range together(t, d, insert("a", ""), cut, insert("b", "")) {
		if err != nil {
			t.Errorf("write %d: %v", i, err)
		}
	}
	if runs != 2 {
		t.Errorf("the function ran %d times, want 2", runs)
	}
	wantKeys(t, d, "a", "b", "cut")
	if n := d.Stats().Retried; n != 3 { // the one that held the writer, a, and cut
		t.Errorf("%d counted as retried, want 3", n)
	}
}

func TestRestartOfTheServerIsOutlived(t *testing.T) {
	server := dbtest.OwnPostgres(t)
	d := dbtest.Open(t, db.Options{URL: server.URL(t)})
	put(t, d, "before", "")
	server.Stop(t)
	ended := make(chan error, 1)
	go func() { ended <- d.Write(context.Background(), insert("during", "")) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := d.Write(ctx, insert("unwanted", "")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the write that does not wait got %v, want its context's error", err)
	}
	server.Start(t)
	if err := <-ended; err != nil {
		t.Error("the write that waits:", err)
	}
	put(t, d, "later", "")
	wantKeys(t, d, "before", "during", "later")
}

func TestServerThatStaysAwayIsErrUnavailable(t *testing.T) {
	server := dbtest.OwnPostgres(t)
	d := dbtest.Open(t, db.Tune(db.Options{URL: server.URL(t)}, db.Tuning{Wait: time.Millisecond}))
	put(t, d, "before", "")
	server.Stop(t)
	if err := d.Write(t.Context(), insert("during", "")); !errors.Is(err, db.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	if err := d.Ping(t.Context()); !errors.Is(err, db.ErrUnavailable) {
		t.Errorf("Ping: error %v, want ErrUnavailable", err)
	}
	server.Start(t)
	put(t, d, "later", "")
	wantKeys(t, d, "before", "later")
}

func TestCloseDoesNotWaitForAServerThatIsAway(t *testing.T) {
	server := dbtest.OwnPostgres(t)
	d := reopen(t, db.Options{URL: server.URL(t)})
	server.Stop(t)
	ended := make(chan error, 1)
	d.WriteSoon(t.Context(), insert("a", ""), func(err error) { ended <- err })
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, db.ErrUnavailable) {
		t.Errorf("the write that waited got %v, want ErrUnavailable", err)
	}
	server.Start(t)
}

func TestEverythingAcknowledgedIsThereAfterTheServerCrashed(t *testing.T) {
	server := dbtest.OwnPostgres(t)
	d := dbtest.Open(t, db.Options{URL: server.URL(t)})
	const goroutines, enough = 20, 200
	var (
		mu             sync.Mutex
		acknowledged   []string
		crash, crashed = make(chan struct{}), make(chan struct{})
		once           sync.Once
		wg             sync.WaitGroup
	)
	for range goroutines {
		wg.Go(func() {
			for last := false; !last; {
				select {
				case <-crashed:
					last = true
				default:
				}
				id := db.NewID()
				err := d.Write(context.Background(), insert(id, ""))
				switch {
				case err == nil:
					mu.Lock()
					acknowledged = append(acknowledged, id)
					if len(acknowledged) == enough {
						once.Do(func() { close(crash) })
					}
					mu.Unlock()
				case !errors.Is(err, db.ErrUnknownOutcome):
					t.Error(err)
				}
			}
		})
	}
	<-crash
	server.Kill(t)
	server.Start(t)
	close(crashed)
	wg.Wait()
	there := keys(t, d.Read())
	for _, id := range acknowledged {
		if _, ok := slices.BinarySearch(there, id); !ok {
			t.Errorf("row %s was acknowledged and is not there", id)
		}
	}
}

func TestConnectionLostAtTheCommitIsAnUnknownOutcome(t *testing.T) {
	direct := dbtest.PostgresURL(t)
	p := startProxy(t, direct)
	d := dbtest.Open(t, db.Options{URL: p.url})
	for _, tt := range []struct {
		name string
		sent bool // the COMMIT reaches the server, and only its answer is lost
	}{{"answer", true}, {"question", false}} {
		put(t, d, "before the lost "+tt.name, "")
		p.cut(tt.sent)
		if err := d.Write(t.Context(), insert("with the lost "+tt.name, "")); !errors.Is(err, db.ErrUnknownOutcome) {
			t.Errorf("lost %s: error %v, want ErrUnknownOutcome", tt.name, err)
		}
		put(t, d, "after the lost "+tt.name, "")
	}
	got := keys(t, d.Read())
	if slices.Contains(got, "with the lost question") {
		t.Errorf("the database holds %q, with the row whose COMMIT was never sent", got)
	}
	if len(slices.DeleteFunc(got, func(k string) bool { return k == "with the lost answer" })) != 4 {
		t.Errorf("the database holds %q, want the rows before and after", got)
	}
}

func TestRowLockedByAnotherNodeHoldsUpOnlyItsOwnWrite(t *testing.T) {
	url := dbtest.PostgresURL(t)
	d := dbtest.Open(t, db.Tune(db.Options{URL: url}, db.Tuning{Lock: 5 * time.Millisecond, Attempts: 1 << 20}))
	put(t, d, "locked", "0")
	other, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	exec := func(statement string) {
		t.Helper()
		if _, err := other.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec("BEGIN; UPDATE meta SET value = value || '1' WHERE key = 'locked'")
	ran, ended := make(chan struct{}, 1<<20), make(chan error, 1)
	go func() {
		ended <- d.Write(context.Background(), func(ctx context.Context, tx db.Tx) error {
			ran <- struct{}{}
			_, err := tx.ExecContext(ctx, "UPDATE meta SET value = value || '2' WHERE key = 'locked'")
			return err
		})
	}()
	<-ran
	put(t, d, "another", "")
	<-ran
	<-ran
	exec("COMMIT")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	var v string
	if err := d.Read().QueryRowContext(t.Context(), "SELECT value FROM meta WHERE key = 'locked'").Scan(&v); err != nil || v != "012" {
		t.Errorf("the row holds %q, error %v, want 012", v, err)
	}
}

func TestRowThatStaysLockedIsErrBusy(t *testing.T) {
	url := dbtest.PostgresURL(t)
	d := dbtest.Open(t, db.Tune(db.Options{URL: url}, db.Tuning{Lock: time.Millisecond, Attempts: 3}))
	other := dbtest.Open(t, db.Options{URL: url})
	put(t, d, "locked", "")
	update := func(ctx context.Context, tx db.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE meta SET value = '1' WHERE key = 'locked'")
		return err
	}
	err := other.Write(t.Context(), func(ctx context.Context, tx db.Tx) error {
		if err := update(ctx, tx); err != nil {
			return err
		}
		if err := d.Write(ctx, update); !errors.Is(err, db.ErrBusy) {
			t.Errorf("error %v, want ErrBusy", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(t.Context(), update); err != nil {
		t.Error(err)
	}
}

func TestNodesThatLockRowsInOppositeOrderBothCommit(t *testing.T) {
	url := dbtest.PostgresURL(t)
	var nodes [2]*db.DB
	for i := range nodes {
		nodes[i] = dbtest.Open(t, db.Tune(db.Options{URL: url}, db.Tuning{Lock: 20 * time.Millisecond, Attempts: 1 << 20}))
	}
	put(t, nodes[0], "a", "")
	put(t, nodes[0], "b", "")
	var meet sync.WaitGroup // both hold their first row before they ask for the second
	meet.Add(2)
	ended := make(chan error, 2)
	for i, d := range nodes {
		order := []string{"a", "b"}
		if i == 1 {
			order = []string{"b", "a"}
		}
		first := true
		go func() {
			ended <- d.Write(context.Background(), func(ctx context.Context, tx db.Tx) error {
				for _, key := range order {
					if _, err := tx.ExecContext(ctx, "UPDATE meta SET value = value || 'x' WHERE key = $1", key); err != nil {
						return err
					}
					if first {
						first = false
						meet.Done()
						meet.Wait()
					}
				}
				return nil
			})
		}()
	}
	for range nodes {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	values, err := db.All(t.Context(), nodes[0].Read(), scanText, "SELECT value FROM meta ORDER BY key")
	if err != nil || !slices.Equal(values, []string{"xx", "xx"}) {
		t.Errorf("the rows hold %q, error %v, want xx in both", values, err)
	}
}

func TestSessionThatWouldNotSyncIsMadeTo(t *testing.T) {
	u, err := url.Parse(dbtest.PostgresURL(t))
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery += "&synchronous_commit=off"
	d := dbtest.Open(t, db.Options{URL: u.String()})
	err = d.Write(t.Context(), func(ctx context.Context, tx db.Tx) error {
		var v string
		err := tx.QueryRowContext(ctx, "SELECT current_setting('synchronous_commit')").Scan(&v)
		if v != "on" {
			t.Errorf("synchronous_commit is %q in the writer's session, want on", v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// proxy passes bytes between pawl and a server until it is told to cut the
// connection at the next COMMIT.
type proxy struct {
	url   string
	armed atomic.Int32 // one of the words below
}

const (
	pass int32 = iota
	cutBefore
	cutAfter
)

func (p *proxy) cut(sent bool) {
	if sent {
		p.armed.Store(cutAfter)
	} else {
		p.armed.Store(cutBefore)
	}
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := u.Host
	u.Host = l.Addr().String()
	p := &proxy{url: u.String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(client, to) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return p
}

func (p *proxy) serve(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		client.Close()
	})
	defer back.Wait()
	defer server.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:n], []byte("COMMIT")) {
			switch p.armed.Swap(pass) {
			case cutAfter:
				client.Close()
				_, _ = server.Write(buf[:n])
				return
			case cutBefore:
				return
			}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}
