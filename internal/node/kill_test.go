package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// childVariable makes the test binary run a node, in place of tests.
const childVariable = "PAWL_TEST_NODE"

// aheadVariable says how far ahead the child's clock is.
const aheadVariable = "PAWL_TEST_AHEAD"

func TestMain(m *testing.M) {
	if world := os.Getenv(childVariable); world != "" {
		if err := runChild(world, os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runChild is a server as `pawl serve` is one, but for the wiring. It prints
// the relay's address.
func runChild(world, file string) error {
	var e exposed
	if err := json.Unmarshal([]byte(world), &e); err != nil {
		return err
	}
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	w := e.wiring()
	w.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	ahead, err := time.ParseDuration(os.Getenv(aheadVariable))
	if err != nil {
		return err
	}
	w.Now = func() time.Time { return time.Now().Add(ahead) }
	n, err := node.New(context.Background(), c, w)
	if err != nil {
		return err
	}
	fmt.Println(n.Addrs().Relay[0])
	return n.Run(context.Background())
}

// child is a server in a process of its own.
type child struct {
	cmd  *exec.Cmd
	addr string
}

func startChild(t *testing.T, world, file string) *child {
	t.Helper()
	return startChildLater(t, world, file, 0)
}

func startChildLater(t *testing.T, world, file string, ahead time.Duration) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], file)
	cmd.Env = append(os.Environ(), childVariable+"="+world, aheadVariable+"="+ahead.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Wait()
		t.Fatalf("the server did not start: %v", err)
	}
	return &child{cmd, strings.TrimSpace(line)}
}

// kill ends it as a power cut to the process would.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// killRun is one run of kills: nodes of one database take messages while one of
// them, at random moments, is killed and started again.
type killRun struct {
	messages, kills int
	postgres        bool // two nodes that share a database
}

func TestNothingThatGotA250IsLostWhenTheServerIsKilled(t *testing.T) {
	killRun{messages: 1000, kills: 10}.run(t)
}

func TestNothingThatGotA250IsLostWhenANodeOfTwoIsKilled(t *testing.T) {
	killRun{messages: 400, kills: 10, postgres: true}.run(t)
}

func TestSoakNothingThatGotA250IsLostInAHundredKills(t *testing.T) {
	if os.Getenv("PAWL_SOAK") == "" {
		t.Skip("a long run: make soak")
	}
	t.Run("SQLite", killRun{messages: 19000, kills: 100}.run)
	t.Run("two nodes on PostgreSQL", killRun{messages: 5000, kills: 100, postgres: true}.run)
}

// refusedEach is how often a message goes to a mailbox that there is not: its
// sender is owed a bounce.
const refusedEach = 5

// run hands in messages, and then looks for each that got a 250: it must have
// been delivered or, where its recipient was refused, bounced. What came twice
// must have been in flight when a node was killed.
func (k killRun) run(t *testing.T) {
	tn, _ := world(t)
	tn.Domain("client.test", testnet.DomainOptions{}) // where bounces go
	host := tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}}).MX()
	host.Script(testnet.AtRCPT, testnet.Action{
		Reply: "550 5.1.1 no such mailbox", Only: func(line string) bool { return strings.Contains(line, "refused") },
	})
	var files []string
	url, nodes := "", 1
	if k.postgres {
		url, nodes = dbtest.PostgresURL(t), 2
	}
	for range nodes {
		c := settings(t, tn.DNSAddr())
		c.Database = url
		text, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, c.Data+"/pawl.yaml")
		if err := os.WriteFile(files[len(files)-1], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := &casualties{killRun: k, t: t, where: expose(t, tn), files: files, acked: make([]string, k.messages)}
	c.flood(ctx)
	// The leases of the dead are over an hour later.
	c.killAll(time.Hour)
	for i := range k.messages {
		if _, err := tn.WaitDelivered(ctx, c.expects(i)); err != nil {
			t.Fatalf("message %d got a 250 and neither it nor its bounce arrived: %v", i, err)
		}
	}
	for _, s := range c.servers {
		s.kill()
	}
	c.count(tn.Deliveries())
}

// casualties are the nodes of a run, and what became of its messages.
type casualties struct {
	killRun
	t       *testing.T
	where   string
	files   []string
	acked   []string // the id that the 250 named, by message
	retried atomic.Int64

	mu      sync.Mutex
	servers []*child
	killed  []moment
}

// moment is the time of a kill, and when the node was up again.
type moment struct{ at, up time.Time }

// expects is the address to which message i must lead: its recipient, or its
// sender where the recipient is refused.
func (c *casualties) expects(i int) string {
	if i%refusedEach == 0 {
		return "s" + strconv.Itoa(i) + "@client.test"
	}
	return "m" + strconv.Itoa(i) + "@good.test"
}

// flood hands in every message until it has its 250, and kills meanwhile.
func (c *casualties) flood(ctx context.Context) {
	for _, f := range c.files {
		c.servers = append(c.servers, startChild(c.t, c.where, f))
	}
	progress := make(chan int, c.messages)
	var senders sync.WaitGroup
	const workers = 20
	for w := range workers {
		senders.Go(func() {
			for i := w; i < c.messages; i += workers {
				c.submit(ctx, i)
				progress <- i
			}
		})
	}
	// A kill whenever another part of the messages is through, at a random one.
	done := 0
	for k := range c.kills {
		for at := (k*c.messages + rand.IntN(c.messages)) / (c.kills + 1); done < at; done++ {
			<-progress
		}
		c.kill(rand.IntN(len(c.servers)))
	}
	senders.Wait()
	for i, id := range c.acked {
		if id == "" {
			c.t.Fatalf("message %d was never taken", i)
		}
	}
}

func (c *casualties) submit(ctx context.Context, i int) {
	to := c.expects(i)
	if i%refusedEach == 0 {
		to = "refused" + strconv.Itoa(i) + "@good.test"
	}
	for n := 0; ctx.Err() == nil; n++ {
		c.mu.Lock()
		addr := c.servers[(i+n)%len(c.servers)].addr
		c.mu.Unlock()
		said, err := submit(ctx, addr, "s"+strconv.Itoa(i)+"@client.test", to, "x")
		if err == nil {
			c.acked[i] = said[strings.LastIndexByte(said, ' ')+1:]
			return
		}
		c.retried.Add(1)
	}
}

func (c *casualties) kill(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	c.servers[n].kill()
	c.servers[n] = startChild(c.t, c.where, c.files[n])
	c.killed = append(c.killed, moment{at, time.Now()})
}

// killAll kills every node and starts the first again, in a later time.
func (c *casualties) killAll(ahead time.Duration) {
	at := time.Now()
	for _, s := range c.servers {
		s.kill()
	}
	c.servers = []*child{startChildLater(c.t, c.where, c.files[0], ahead)}
	c.killed = append(c.killed, moment{at, time.Now()})
}

// count looks at what arrived, and prints how much of it came twice.
func (c *casualties) count(all []testnet.Delivery) {
	type copies struct{ at []time.Time }
	byID := map[string]*copies{}
	bounces, twice, beside := 0, 0, 0
	mine := map[string]bool{}
	for _, id := range c.acked {
		mine[id] = true
	}
	for _, d := range all {
		if d.From == "" {
			bounces++
		} else if !verified(d) {
			c.t.Errorf("%v arrived without verified TLS", d.To)
		}
		id := receivedID(string(d.Data))
		if byID[id] == nil {
			byID[id] = &copies{}
		}
		byID[id].at = append(byID[id].at, d.At)
	}
	for id, x := range byID {
		if !mine[id] {
			beside++ // committed, and its sender was never told so
		}
		for i := 1; i < len(x.at); i++ {
			twice++
			// Of a delivery that was in flight the node died between the two.
			if !slices.ContainsFunc(c.killed, func(k moment) bool { return !x.at[i-1].After(k.up) && !x.at[i].Before(k.at) }) {
				c.t.Errorf("message %s arrived at %v, and no node was killed in between", id, x.at)
			}
		}
	}
	c.t.Logf("%d messages, %d kills: all arrived or bounced (%d bounces); %d deliveries were in flight and came twice; "+
		"%d submissions had no reply and were made again; %d ids beside those that got a 250",
		c.messages, c.kills, bounces, twice, c.retried.Load(), beside)
}

// receivedID is the id in the topmost Received line: what the queue calls the
// message. A bounce has none and quotes that of the message it is about.
func receivedID(data string) string {
	_, after, _ := strings.Cut(data, "\r\n\tid ")
	return after[:max(0, strings.IndexAny(after, "; \r\n"))]
}
