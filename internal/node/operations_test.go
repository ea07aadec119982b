package node_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"os/user"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// client is an SMTP client that a test leads by the hand.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dialRelay(t *testing.T, n *node.Node) *client {
	t.Helper()
	conn, err := net.Dial("tcp", n.Addrs().Relay[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{t, conn, bufio.NewReader(conn)}
}

// hears waits for a reply that begins so.
func (c *client) hears(want string) {
	c.t.Helper()
	got, err := reply(c.r)
	if err != nil || !strings.HasPrefix(got, want) {
		c.t.Fatalf("the server said %q (%v), want %s", got, err, want)
	}
}

// says sends a line and waits for its reply.
func (c *client) says(line, want string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	c.hears(want)
}

func TestAReloadChangesWhatCanChangeAndNamesWhatCannot(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	file := c
	w.Load = func() (config.Config, error) { return file, nil }
	n, _ := start(t, c, w)

	file.Policy.Mode = "observe"
	file.Relay.Networks = nil
	file.Relay.MaxSize = 1 << 20
	file.Relay.Concurrency = 7
	file.Web.Listen = "127.0.0.1:8480"
	got := call[node.Reloaded](t, n, "reload", struct{}{})
	if want := []string{"policy.mode", "relay.networks", "relay.max_size", "relay.concurrency"}; !slices.Equal(got.Changed, want) {
		t.Errorf("changed %v, want %v", got.Changed, want)
	}
	if want := []string{"web.listen"}; !slices.Equal(got.Restart, want) {
		t.Errorf("a restart is needed for %v, want %v", got.Restart, want)
	}
	client := dialRelay(t, n)
	client.hears("220")
	client.says("EHLO client.test", "250")
	client.says("MAIL FROM:<a@client.test> SIZE=2000000", "552")
	client.says("MAIL FROM:<a@client.test>", "550 5.7.1")
	if _, page := get(t, n, "/metrics"); !strings.Contains(page, "pawl_observing 1") {
		t.Error("the node does not observe")
	}

	file.Relay.Networks = c.Relay.Networks
	got = call[node.Reloaded](t, n, "reload", struct{}{})
	if !slices.Equal(got.Changed, []string{"relay.networks"}) || !slices.Equal(got.Restart, []string{"web.listen"}) {
		t.Errorf("the second reload says %+v", got)
	}
	client.says("MAIL FROM:<a@client.test>", "250") // on the connection that was refused before
}

func TestAReloadOfWhatCannotBeUsedChangesNothing(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	broken := &config.Error{File: "pawl.yaml", Line: 2, Text: "relay.max_size: 1B is outside 64KiB to 1GiB"}
	file, wrong := c, error(broken)
	w.Load = func() (config.Config, error) { return file, wrong }
	n, _ := start(t, c, w)
	refused := func(says string) {
		t.Helper()
		var e *control.Error
		err := control.NewClient(n.Addrs().Control).Call(t.Context(), "reload", struct{}{}, new(node.Reloaded))
		if !errors.As(err, &e) || !strings.Contains(e.Text, says) || !strings.Contains(e.Do, "Nothing was changed") {
			t.Errorf("got %v (%+v)", err, e)
		}
	}
	refused("pawl.yaml:2: relay.max_size")
	// One part's refusal is every part's: the networks stay too.
	wrong = nil
	file.Relay.Networks = nil
	file.Policy.Observe = []string{"not a domain"}
	refused("not a domain")
	client := dialRelay(t, n)
	client.hears("220")
	client.says("EHLO client.test", "250")
	client.says("MAIL FROM:<a@client.test>", "250")
}

func TestAReloadWithoutAFileIsRefused(t *testing.T) {
	tn, w := world(t)
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	if _, err := n.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "without a configuration file") {
		t.Errorf("got %v", err)
	}
}

func TestEveryKeyThatAPartNamesIsOneOfTheFile(t *testing.T) {
	tn, w := world(t)
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	keys := config.Keys()
	for _, key := range n.LiveKeys() {
		if !slices.Contains(keys, key) {
			t.Errorf("there is no key %s", key)
		}
	}
}

func TestWhoHeldAMessageAndWhyStandsInItsStoryAndInTheLog(t *testing.T) {
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{}).MX().Script(testnet.AtRCPT, testnet.Action{Reply: "450 4.2.1 not now"})
	var log logged
	w.Log = slog.New(slog.NewTextHandler(&log, nil))
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	said, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "one@good.test", "x")
	if err != nil {
		t.Fatal(err)
	}
	message := said[strings.LastIndexByte(said, ' ')+1:]
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	act := func(p node.ActParams, want int) {
		t.Helper()
		if got := call[int](t, n, "queue.act", p); got != want {
			t.Errorf("%s changed %d, want %d", p.Act, got, want)
		}
	}
	eventually(t, "the first attempt is in the story", func() bool {
		x := call[node.Explanation](t, n, "explain", node.ExplainParams{Subject: message})
		return len(x.Deliveries) == 1 && len(x.Deliveries[0].Stories) > 0
	})
	act(node.ActParams{Act: queue.Hold, IDs: []string{message}, Who: "ann", Why: "the court asked"}, 1)
	act(node.ActParams{Act: queue.Drop, Filter: queue.Filter{Sender: "@other.test"}}, 0)
	x := call[node.Explanation](t, n, "explain", node.ExplainParams{Subject: message})
	stories := x.Deliveries[0].Stories
	by := "ann (as " + me.Username + ")"
	if want := "held by " + by + ": the court asked"; stories[len(stories)-1].Why != want {
		t.Errorf("the story ends with %q, want %q", stories[len(stories)-1].Why, want)
	}
	if text := log.String(); !strings.Contains(text, `msg="queue: hold" by="`+by+`" why="the court asked" deliveries=1`) {
		t.Errorf("the log does not say who held it:\n%s", text)
	}
	act(node.ActParams{Act: queue.Release, Filter: queue.Filter{Why: "court"}}, 1)
	var e *control.Error
	err = control.NewClient(n.Addrs().Control).Call(t.Context(), "queue.act", node.ActParams{Act: queue.Drop, IDs: []string{"nothing"}}, new(int))
	if !errors.As(err, &e) || !strings.Contains(e.Text, "there is no delivery or message nothing") {
		t.Errorf("an id that is not there: %v", err)
	}
}

// logged keeps a log.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestADrainingNodeFinishesWhatIsUnderWayAndTakesNoMail(t *testing.T) {
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	begun, idle := dialRelay(t, n), dialRelay(t, n)
	for _, c := range []*client{begun, idle} {
		c.hears("220")
		c.says("EHLO client.test", "250")
	}
	begun.says("MAIL FROM:<a@client.test>", "250")
	begun.says("RCPT TO:<one@good.test>", "250")
	begun.says("DATA", "354")

	if got := call[node.Draining](t, n, "drain", node.DrainParams{}); !got.Draining || got.Receiving != 1 {
		t.Errorf("the drain says %+v, want one message being handed in", got)
	}
	if status, body := get(t, n, "/readyz"); status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("/readyz: %d %q", status, body)
	}
	if status, page := get(t, n, "/"); status != 200 || !strings.Contains(page, "takes no new mail") {
		t.Errorf("the page (%d) does not say that the node drains", status)
	}
	idle.says("MAIL FROM:<a@client.test>", "421 4.3.2")
	dialRelay(t, n).hears("421 4.3.2")

	drained := make(chan node.Draining, 1)
	go func() {
		var got node.Draining
		if err := control.NewClient(n.Addrs().Control).Call(t.Context(), "drain", node.DrainParams{Wait: true}, &got); err != nil {
			t.Error(err)
		}
		drained <- got
	}()
	begun.says("Subject: x\r\n\r\nhello\r\n.", "250")
	if got := <-drained; got.Receiving != 0 || got.Delivering != 0 {
		t.Errorf("drained, it says %+v, want nothing under way", got)
	}
	if len(tn.Delivered("one@good.test")) != 0 {
		t.Error("a delivery was begun")
	}
	begun.says("MAIL FROM:<a@client.test>", "421 4.3.2")

	call[node.Draining](t, n, "resume", struct{}{})
	if _, err := tn.WaitDelivered(t.Context(), "one@good.test"); err != nil {
		t.Error(err)
	}
	if status, _ := get(t, n, "/readyz"); status != 200 {
		t.Errorf("/readyz: %d after the resume", status)
	}
	if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "two@good.test", "x"); err != nil {
		t.Errorf("after the resume: %v", err)
	}
}

func TestAtTheEndIdleClientsAreTold421AndAMessageOnItsWayInIsTaken(t *testing.T) {
	tn, w := world(t)
	tn.Domain("good.test", testnet.DomainOptions{})
	c := settings(t, tn.DNSAddr())
	n, stop := start(t, c, w)
	idle, begun := dialRelay(t, n), dialRelay(t, n)
	for _, c := range []*client{idle, begun} {
		c.hears("220")
		c.says("EHLO client.test", "250")
	}
	begun.says("MAIL FROM:<a@client.test>", "250")
	begun.says("RCPT TO:<one@good.test>", "250")
	begun.says("DATA", "354")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	idle.hears("421")
	begun.says("Subject: x\r\n\r\nhello\r\n.", "250")
	begun.hears("421")
	<-stopped
	start(t, c, w)
	if _, err := tn.WaitDelivered(t.Context(), "one@good.test"); err != nil {
		t.Error(err)
	}
}

func TestTheServiceManagerIsToldOfStartReloadAndEnd(t *testing.T) {
	tn, w := world(t)
	said := make(chan string, 10)
	w.Notify = func(s string) { said <- strings.SplitN(s, "\n", 2)[0] }
	c := settings(t, tn.DNSAddr())
	w.Load = func() (config.Config, error) { return c, nil }
	n, stop := start(t, c, w)
	if got := <-said; got != "READY=1" {
		t.Errorf("at the start: %s", got)
	}
	if _, err := n.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if got := [2]string{<-said, <-said}; got != [2]string{"RELOADING=1", "READY=1"} {
		t.Errorf("at the reload: %v", got)
	}
	stop()
	if got := <-said; got != "STOPPING=1" {
		t.Errorf("at the end: %s", got)
	}
}
