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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// childVariable makes the test binary run a node, in place of tests.
const childVariable = "PAWL_TEST_NODE"

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
	w.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
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
	cmd := exec.Command(os.Args[0], file)
	cmd.Env = append(os.Environ(), childVariable+"="+world)
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

func TestNothingThatGotA250IsLostWhenTheServerIsKilled(t *testing.T) {
	killing(t, 1000, 4)
}

func TestSoakNothingThatGotA250IsLostInAHundredKills(t *testing.T) {
	if os.Getenv("PAWL_SOAK") == "" {
		t.Skip("a long run: make soak")
	}
	killing(t, 20000, 100)
}

// killing hands in messages while the server is killed at random moments, and
// then looks for each message that got a 250.
func killing(t *testing.T, messages, kills int) {
	tn, _ := world(t)
	tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}})
	c := settings(t, tn.DNSAddr())
	file := c.Data + "/pawl.yaml"
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	where := expose(t, tn)

	var mu sync.Mutex
	server := startChild(t, where, file)
	address := func() string {
		mu.Lock()
		defer mu.Unlock()
		return server.addr
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	progress := make(chan int, messages)
	acked := make([]bool, messages)
	var senders sync.WaitGroup
	const workers = 20
	for w := range workers {
		senders.Go(func() {
			for i := w; i < messages; i += workers {
				for ctx.Err() == nil {
					if _, err := submit(ctx, address(), "a@client.test", "m"+strconv.Itoa(i)+"@good.test", "x"); err == nil {
						acked[i] = true
						break
					}
				}
				progress <- i
			}
		})
	}
	// A kill whenever another part of the messages is through, at a random one.
	done := 0
	for k := range kills {
		for at := (k*messages + rand.IntN(messages)) / (kills + 1); done < at; done++ {
			<-progress
		}
		mu.Lock()
		server.kill()
		server = startChild(t, where, file)
		mu.Unlock()
	}
	senders.Wait()
	for i, ok := range acked {
		if !ok {
			t.Fatalf("message %d was never taken", i)
		}
	}
	for i := range messages {
		if _, err := tn.WaitDelivered(ctx, "m"+strconv.Itoa(i)+"@good.test"); err != nil {
			t.Fatalf("message %d got a 250 and did not arrive: %v", i, err)
		}
	}
	server.kill()
	twice := 0
	for _, d := range tn.Deliveries() {
		if !verified(d) {
			t.Errorf("%v arrived without verified TLS", d.To)
		}
		twice++
	}
	t.Logf("%d messages, %d kills: all arrived, %d of them twice", messages, kills, twice-messages)
}
