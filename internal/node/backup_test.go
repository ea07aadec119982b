package node_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/control"
	"github.com/pawl-mail/pawl/internal/db"
	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/internal/node"
	"github.com/pawl-mail/pawl/internal/relay/queue"
	"github.com/pawl-mail/pawl/internal/testnet"
)

// takeBackup writes a node's backup to a path.
func takeBackup(t *testing.T, n *node.Node, to string) {
	t.Helper()
	stream, err := control.NewClient(n.Addrs().Control).Stream(t.Context(), "backup", struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	m, err := node.SaveBackup(stream, to)
	if err != nil {
		t.Fatal(err)
	}
	if m.Hostname != "relay.pawl.test" || m.Files == 0 {
		t.Errorf("the backup says %+v", m)
	}
}

func restore(t *testing.T, from, to string, release bool) (node.Restored, error) {
	t.Helper()
	return node.Restore(t.Context(), node.RestoreOptions{
		From: from, Data: to, Release: release, Who: "ann", Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
}

// large is a body that goes through the spool.
var large = strings.Repeat(strings.Repeat("x", 70)+"\r\n", queue.InlineBody/70)

func TestABackupOfARunningServerIsRestoredHeldAndDelivers(t *testing.T) {
	tn, w := world(t)
	host := tn.Domain("good.test", testnet.DomainOptions{STS: testnet.STS{Mode: "enforce"}}).MX()
	c := settings(t, tn.DNSAddr())
	c.Relay.RetryFirst, c.Relay.RetryMax = config.Duration(time.Hour), config.Duration(time.Hour)
	n, stop := start(t, c, w)
	if err := os.WriteFile(filepath.Join(c.Data, "a-key.pem"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy := host.Script(testnet.AtRCPT, testnet.Action{Reply: "450 4.2.1 not now"})
	const messages = 6
	for i := range messages {
		body := "hello"
		if i%2 == 0 {
			body = large
		}
		if _, err := submit(t.Context(), n.Addrs().Relay[0], "a@client.test", "m"+strconv.Itoa(i)+"@good.test", "x\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
	}
	file, folder := filepath.Join(t.TempDir(), "pawl.tar"), filepath.Join(t.TempDir(), "pawl")
	takeBackup(t, n, file)
	takeBackup(t, n, folder)
	if _, err := restore(t, file, c.Data, false); !errors.Is(err, db.ErrLocked) {
		t.Errorf("a restore over a running server: %v, want ErrLocked", err)
	}
	stop()
	var e *control.Error
	if _, err := restore(t, file, c.Data, false); !errors.As(err, &e) || !strings.Contains(e.Text, "is not empty") {
		t.Errorf("a restore over data: %v", err)
	}
	busy()

	for from, release := range map[string]bool{file: false, folder: true} {
		data := filepath.Join(t.TempDir(), "restored")
		tn.Forget()
		r, err := restore(t, from, data, release)
		if err != nil {
			t.Fatal(err)
		}
		if held := map[bool]int{false: messages, true: 0}[release]; r.Waiting != messages || r.Held != held {
			t.Errorf("%s: %d wait and %d are held, want %d and %d", from, r.Waiting, r.Held, messages, held)
		}
		if key, err := os.ReadFile(filepath.Join(data, "a-key.pem")); string(key) != "secret" {
			t.Errorf("%s: the key is %q, %v", from, key, err)
		}
		c := settings(t, tn.DNSAddr())
		c.Data = data
		n, stop := start(t, c, w)
		if !release {
			held := call[[]queue.Delivery](t, n, "queue.list", queue.Filter{States: []queue.State{queue.Held}})
			if len(held) != messages || !strings.Contains(held[0].Why, "held by ann: restored from the backup of") {
				t.Errorf("held are %+v", held)
			}
		}
		act := map[bool]queue.Act{false: queue.Release, true: queue.Retry}[release]
		if got := call[int](t, n, "queue.act", node.ActParams{Act: act}); got != messages {
			t.Errorf("%s was done to %d deliveries, want %d", act, got, messages)
		}
		for i := range messages {
			got, err := tn.WaitDelivered(t.Context(), "m"+strconv.Itoa(i)+"@good.test")
			if err != nil {
				t.Fatal(err)
			}
			if whole := strings.Contains(string(got.Data), large); whole != (i%2 == 0) {
				t.Errorf("message %d has %d bytes", i, len(got.Data))
			}
		}
		stop()
	}
}

func TestABackupThatIsNotWholeOrNotHonestIsRefused(t *testing.T) {
	tn, w := world(t)
	n, _ := start(t, settings(t, tn.DNSAddr()), w)
	good := filepath.Join(t.TempDir(), "good.tar")
	takeBackup(t, n, good)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		text []byte
		says string
	}{
		"cut between two files": {whole[:len(whole)-2048], "not complete"},
		"cut in the middle":     {whole[:len(whole)/2], "unexpected EOF"},
		"not a backup":          {[]byte("hello"), "unexpected EOF"},
		"a name outside":        {tarOf(t, "../evil", "x", "backup.json", `{"files":1}`), "not a name inside"},
		"an absolute name":      {tarOf(t, "/etc/evil", "x", "backup.json", `{"files":1}`), "not a name inside"},
		"a file twice":          {tarOf(t, "pawl.db", "x", "pawl.db", "y", "backup.json", `{"files":2}`), "file exists"},
		"a file too few":        {tarOf(t, "pawl.db", "x", "backup.json", `{"files":2}`), "not complete"},
		"no database":           {tarOf(t, "pawl.db", "x", "backup.json", `{"files":1}`), "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := filepath.Join(dir, "bad.tar"), filepath.Join(dir, "data")
			if err := os.WriteFile(from, tc.text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := restore(t, from, to, false); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
			if left, err := os.ReadDir(to); err != nil || len(left) != 0 {
				t.Errorf("%v is left in the data folder, %v", left, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "evil")); err == nil {
				t.Error("a file was written outside the data folder")
			}
		})
	}
}

// tarOf makes a tar file of names and texts.
func tarOf(t *testing.T, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	a := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := a.WriteHeader(&tar.Header{Name: pairs[i], Mode: 0o600, Size: int64(len(pairs[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write([]byte(pairs[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestABackupIsNotWrittenOverAnythingAndABrokenOneLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "b.tar")
	if _, err := node.SaveBackup(bytes.NewReader(tarOf(t, "pawl.db", "x")), to); err == nil {
		t.Error("a backup that is not complete was kept")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if err := os.WriteFile(to, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	var e *control.Error
	if _, err := node.SaveBackup(bytes.NewReader(tarOf(t, "backup.json", `{}`)), to); !errors.As(err, &e) {
		t.Errorf("an older backup was written over: %v", err)
	}
}

func TestOnPostgreSQLABackupSaysWhichToolsMakeIt(t *testing.T) {
	tn, w := world(t)
	c := settings(t, tn.DNSAddr())
	c.Database = dbtest.PostgresURL(t)
	n, _ := start(t, c, w)
	var e *control.Error
	_, err := control.NewClient(n.Addrs().Control).Stream(t.Context(), "backup", struct{}{})
	if !errors.As(err, &e) || !strings.Contains(e.Do, "pg_dump") {
		t.Errorf("got %v", err)
	}
}
