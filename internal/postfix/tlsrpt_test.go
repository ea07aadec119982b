package postfix_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// datagrams is a minimal reader of what libtlsrpt sends: one JSON object each.
type datagrams struct {
	t       *testing.T
	conn    *net.UnixConn
	mu      sync.Mutex
	all     []datagram
	settled chan struct{}
}

type datagram struct {
	Domain   string `json:"d"`
	Policies []struct {
		Type     int      `json:"policy-type"`
		Domain   string   `json:"policy-domain"`
		Strings  []string `json:"policy-string"`
		MXHosts  []string `json:"mx-host"`
		Failed   int      `json:"f"`
		Failures []struct {
			Code   int    `json:"c"`
			Reason string `json:"f"`
		} `json:"failure-details"`
	} `json:"policies"`
}

// policyTypes are the numbers of libtlsrpt.
var policyTypes = map[int]string{1: "tlsa", 2: "sts", 9: "none"}

// end is a datagram that says that all before it was read.
const end = "end"

// listen reads what arrives at a socket until the test ends.
func listen(t *testing.T, path string) *datagrams {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // smtp(8) is not root
		t.Fatal(err)
	}
	d := &datagrams{t: t, conn: conn, settled: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.read()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return d
}

func (d *datagrams) read() {
	b := make([]byte, 256<<10)
	for {
		n, err := d.conn.Read(b)
		if err != nil {
			return
		}
		if string(b[:n]) == end {
			d.settled <- struct{}{}
			continue
		}
		var g datagram
		if err := json.Unmarshal(bytes.ToValidUTF8(b[:n], []byte("?")), &g); err != nil {
			d.t.Errorf("a datagram %.300q: %v", b[:n], err)
		}
		d.mu.Lock()
		d.all = append(d.all, g)
		d.mu.Unlock()
	}
}

// settle waits until everything that was sent so far was read.
func (d *datagrams) settle() {
	d.t.Helper()
	c, err := net.Dial("unixgram", d.conn.LocalAddr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(end)); err != nil {
		d.t.Fatal(err)
	}
	<-d.settled
}

// of returns what was said about a domain, each thing once: "sts success",
// "tlsa 203".
func (d *datagrams) of(domain string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var said []string
	for _, g := range d.all {
		if g.Domain != domain {
			continue
		}
		for _, p := range g.Policies {
			text := policyTypes[p.Type] + " success"
			if p.Failed != 0 {
				text = policyTypes[p.Type]
				for _, f := range p.Failures {
					text += fmt.Sprintf(" %d %s", f.Code, f.Reason)
				}
			}
			said = append(said, strings.TrimSpace(text))
		}
	}
	slices.Sort(said)
	return strings.Join(slices.Compact(said), ", ")
}
