package node_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // another program that has the database open

	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// taken hands in messages for a domain until one is refused, and returns the
// recipients of those that got a 250 and the refusal.
func taken(t *testing.T, n *node.Node, domain, body string, most int) (to []string, refusal string) {
	t.Helper()
	for i := range most {
		rcpt := "m" + strconv.Itoa(i) + "@" + domain
		said, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", rcpt, "x\r\n\r\n"+body)
		if err != nil {
			return to, said
		}
		to = append(to, rcpt)
	}
	return to, ""
}

func allArrive(t *testing.T, tn *testnet.Net, to []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, rcpt := range to {
		if _, err := tn.WaitDelivered(ctx, rcpt); err != nil {
			t.Fatalf("mail to %s got a 250 and did not arrive: %v", rcpt, err)
		}
	}
}

func waiting(t *testing.T, n *node.Node, domain string) []queue.Delivery {
	t.Helper()
	return call[[]queue.Delivery](t, n, "queue.list", queue.Filter{Domain: domain, Limit: 1000})
}

func TestOnAFullDiskMailIsRefusedForNowAndNothingIsLost(t *testing.T) {
	data := t.TempDir()
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, "size=24m"); err != nil {
		dbtest.Lacking(t, "a small file system, which root may mount,", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	tn, w := world(t)
	host := tn.Domain("good.test", testnet.DomainOptions{}).MX()
	c := settings(t, tn.DNSAddr())
	c.Data = data
	c.Relay.MinFree = 0 // the disk becomes full: nothing is refused before
	n, stop := start(t, c, w)
	defer stop() // before the file system goes
	busy := host.Script(testnet.AtRCPT, testnet.Action{Reply: "450 4.2.1 not now"})

	ballast := filepath.Join(data, "ballast")
	fill(t, ballast)
	to, refusal := taken(t, n, "good.test", strings.Repeat(strings.Repeat("x", 70)+"\r\n", 2000), 200)
	if !strings.HasPrefix(refusal, "452 4.3.1") {
		t.Errorf("on the full disk %d messages were taken, and then the server said %q, want 452 4.3.1", len(to), refusal)
	}
	if status, _ := get(t, n, "/healthz"); status != 200 {
		t.Errorf("/healthz: %d", status)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	busy()
	if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "later@good.test", "x"); err != nil {
		t.Errorf("with room again: %v", err)
	}
	allArrive(t, tn, append(to, "later@good.test"))
}

// fill makes a file that takes all the room there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); ; {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// It takes five seconds: so long SQLite waits for a lock.
func TestWhileTheDatabaseIsLockedMailIsRefusedForNowAndNothingIsLost(t *testing.T) {
	t.Parallel()
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{})
	c := settings(t, tn.DNSAddr())
	n, _ := start(t, c, w)
	before, _ := taken(t, n, "good.test", "x", 1)
	allArrive(t, tn, before)
	other, err := sql.Open("sqlite", filepath.Join(c.Data, "pawl.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec("PRAGMA busy_timeout = 5000")
	exec("BEGIN IMMEDIATE")
	said, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "during@good.test", "x")
	if err == nil || !strings.HasPrefix(said, "451 4.3.0") {
		t.Errorf("with the database locked the server said %q, %v", said, err)
	}
	exec("ROLLBACK")
	if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "after@good.test", "x"); err != nil {
		t.Errorf("after the lock: %v", err)
	}
	allArrive(t, tn, []string{"after@good.test"})
	if got := tn.Delivered("during@good.test"); len(got) != 0 {
		t.Error("the message that was refused was delivered")
	}
}

func TestWhenTheDatabaseIsGoneNothingIsAcceptedIntoTheVoid(t *testing.T) {
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{})
	c := settings(t, tn.DNSAddr())
	n, _ := start(t, c, w)
	file := filepath.Join(c.Data, "pawl.db")
	if err := os.Rename(file, file+".moved"); err != nil {
		t.Fatal(err)
	}
	said, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "during@good.test", "x")
	if err == nil || !strings.HasPrefix(said, "451 4.3.0") {
		t.Errorf("without its database the server said %q, %v", said, err)
	}
	if err := os.Rename(file+".moved", file); err != nil {
		t.Fatal(err)
	}
	after, _ := taken(t, n, "good.test", "x", 1)
	allArrive(t, tn, after)
}

func TestARestartOfPostgreSQLLosesNothing(t *testing.T) {
	server := dbtest.OwnPostgres(t)
	tn, w := world(t)
	host := tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}}).MX()
	c := settings(t, tn.DNSAddr())
	c.Database = server.URL(t)
	n, stop := start(t, c, w)
	defer stop()
	busy := host.Script(testnet.AtRCPT, testnet.Action{Reply: "450 4.2.1 not now"})
	to, _ := taken(t, n, "good.test", "x", 10)
	server.Stop(t)
	// It is handed in while the server is away: the 250 comes when it is back,
	// or none does.
	during := make(chan error, 1)
	go func() {
		_, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "during@good.test", "x")
		during <- err
	}()
	server.Start(t)
	if err := <-during; err == nil {
		to = append(to, "during@good.test")
	}
	busy()
	eventually(t, "mail is taken again", func() bool {
		_, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "after@good.test", "x")
		return err == nil
	})
	allArrive(t, tn, append(to, "after@good.test"))
}

// It takes half a minute, in which nothing is done: so long a look-up that failed
// is not repeated.
func TestWhileDNSIsDownMailWaitsAndSaysWhyAndLeavesAfterwards(t *testing.T) {
	t.Parallel()
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	tn.SetChaos(testnet.Chaos{LoseQuery: 1})
	to, _ := taken(t, n, "good.test", "x", 5)
	eventually(t, "the queue says that DNS is why", func() bool {
		list := waiting(t, n, "good.test")
		return len(list) == len(to) && list[0].Attempts > 0 && strings.Contains(list[0].Why, "good.test")
	})
	tn.SetChaos(testnet.Chaos{})
	allArrive(t, tn, to)
}

// A destination that misbehaves has much mail waiting, and so many connections
// as it may: mail for another one flows all the same, and its own is not lost.
func TestADestinationThatMisbehavesSlowsNoOtherAndItsMailIsKept(t *testing.T) {
	const many = 40
	for _, tc := range []struct {
		name  string
		body  string
		begin func(t *testing.T, tn *testnet.Net, w *node.Wiring, h *testnet.Host) (stuck func() bool, end func())
	}{
		{"one that accepts an octet a minute", large + large + large + large + large + large + large + large + large + large + large + large, crawl},
		{"one that hangs after DATA", "x", func(_ *testing.T, tn *testnet.Net, _ *node.Wiring, h *testnet.Host) (func() bool, func()) {
			end := h.Script(testnet.AtMessage, testnet.Action{Hang: true})
			return func() bool { return len(tn.Deliveries()) > 0 }, end
		}},
		{"one that answers 421", "x", func(_ *testing.T, tn *testnet.Net, _ *node.Wiring, h *testnet.Host) (func() bool, func()) {
			end := h.Script(testnet.AtMAIL, testnet.Action{Reply: "421 4.3.2 not now"})
			return func() bool { return len(tn.SessionsOf(h.Name)) > 0 }, end
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn, w := world(t)
			slow := tn.Domain("slow.test", testnet.DomainOptions{}).MX()
			tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
			c := settings(t, tn.DNSAddr())
			stuck, end := tc.begin(t, tn, &w, slow)
			n, stop := start(t, c, w)
			kept, refusal := taken(t, n, "slow.test", tc.body, many)
			if refusal != "" {
				t.Fatal(refusal)
			}
			eventually(t, "the destination misbehaves", stuck)
			good, _ := taken(t, n, "good.test", "x", many)
			allArrive(t, tn, good)
			if got := waiting(t, n, "slow.test"); len(got) != many {
				t.Errorf("%d messages wait for the destination, want %d", len(got), many)
			}
			end()
			tn.Forget()
			stop() // attempts that hang are cut short, and made again
			start(t, c, w)
			allArrive(t, tn, kept)
		})
	}
}

// crawl leads connections to a host to one that takes a message's text octet by
// octet, a minute apart: for as long as a test lasts, one.
func crawl(t *testing.T, _ *testnet.Net, w *node.Wiring, h *testnet.Host) (stuck func() bool, end func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	crawling, over := 0, false
	quit := make(chan struct{})
	var serving sync.WaitGroup
	serve := func(conn net.Conn) {
		defer conn.Close()
		r := bufio.NewReaderSize(conn, 16)
		fmt.Fprint(conn, "220 slow\r\n")
		for {
			line, err := r.ReadString('\n')
			switch {
			case err != nil:
				return
			case strings.HasPrefix(line, "DATA"):
				fmt.Fprint(conn, "354 go on\r\n")
				if _, err := r.ReadByte(); err == nil {
					mu.Lock()
					crawling++
					mu.Unlock()
					<-quit
				}
				return
			default:
				fmt.Fprint(conn, "250 ok\r\n")
			}
		}
	}
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(conn) })
		}
	})
	end = sync.OnceFunc(func() {
		mu.Lock()
		over = true
		mu.Unlock()
		close(quit)
		l.Close()
		serving.Wait()
	})
	t.Cleanup(end)
	dial := w.Dial
	w.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		away := over
		mu.Unlock()
		if to, err := netip.ParseAddrPort(addr); err == nil && to.Addr() == h.Addrs[0] && !away {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", l.Addr().String())
		}
		return dial(ctx, network, addr)
	}
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		return crawling > 0
	}, end
}
