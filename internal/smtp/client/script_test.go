package client_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/pawl-mail/pawl/internal/smtp/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A script is a session as a transcript. "S: text" is said by the server, and
// "C: text" is expected of the client; both end in CR LF. Further:
//
//	S! text    said without CR LF; Go escapes are undone
//	TLS        both sides shake hands
//	WAIT 1m    the server does nothing for so long
//	DROP       the server drops what it was sent and closes the connection
//	EOF        the client must close the connection here
type script string

// play runs use against a server that follows the script, in a bubble of fake
// time. What the client was given differs from the script: the test fails.
func play(t *testing.T, s script, o client.Options, use func(t *testing.T, c *client.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe()
		done := make(chan error, 1)
		go func() { done <- s.serve(theirs) }()
		if o.Hello == "" {
			o.Hello = "mail.example.org"
		}
		c := client.New(ours, o)
		use(t, c)
		c.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// room is how much a client can write before the server reads.
const room = 1 << 20

// pipe is a connection without a network. What the client writes has some room to
// wait in, as in a kernel's buffer; a net.Pipe has none.
func pipe() (ours, theirs net.Conn) {
	ours, theirs = net.Pipe()
	r := &roomy{Conn: theirs}
	r.change.L = &r.mu
	go r.fill()
	return ours, r
}

type roomy struct {
	net.Conn
	mu     sync.Mutex
	change sync.Cond
	buf    []byte
	err    error
}

func (r *roomy) fill() {
	b := make([]byte, 32<<10)
	for {
		n, err := r.Conn.Read(b)
		r.mu.Lock()
		r.buf = append(r.buf, b[:n]...)
		r.err = err
		r.change.Broadcast()
		for err == nil && len(r.buf) > room && r.err == nil {
			r.change.Wait()
		}
		err = r.err
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (r *roomy) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.buf) == 0 && r.err == nil {
		r.change.Wait()
	}
	if len(r.buf) == 0 {
		return 0, r.err
	}
	n := copy(p, r.buf)
	r.buf = r.buf[n:]
	r.change.Broadcast()
	return n, nil
}

func (r *roomy) Close() error {
	r.mu.Lock()
	r.err = io.ErrClosedPipe
	r.change.Broadcast()
	r.mu.Unlock()
	return r.Conn.Close()
}

func (s script) serve(conn net.Conn) error {
	defer func() { conn.Close() }()
	in := bufio.NewReader(conn)
	for n, line := range strings.Split(strings.TrimSpace(string(s)), "\n") {
		line = strings.TrimLeft(line, " \t")
		if line == "" {
			continue
		}
		verb, text, _ := strings.Cut(line, " ")
		var err error
		switch verb {
		case "S:":
			_, err = io.WriteString(conn, text+"\r\n")
		case "S!":
			_, err = io.WriteString(conn, unquote(text))
		case "C:":
			var got string
			got, err = in.ReadString('\n')
			if want := text + "\r\n"; err == nil && got != want {
				err = fmt.Errorf("the client said %q", got)
			}
		case "TLS":
			tlsConn := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate()}})
			err = tlsConn.Handshake()
			conn = tlsConn
			in.Reset(conn)
		case "WAIT":
			var d time.Duration
			if d, err = time.ParseDuration(text); err == nil {
				<-time.After(d) // of the bubble's time
			}
		case "DROP":
			return nil
		case "EOF":
			var got byte
			if got, err = in.ReadByte(); err == nil {
				err = fmt.Errorf("the client said %q", got)
			} else if errors.Is(err, io.EOF) {
				err = nil
			}
		default:
			err = errors.New("no such verb")
		}
		if err != nil {
			return fmt.Errorf("line %d of the script, %q: %w", n+1, line, err)
		}
	}
	return nil
}

func unquote(s string) string {
	return strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00").Replace(s)
}

// certificate is self-signed; who trusts what is not this package's business.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func insecure() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.com"}
}

// counted counts the writes to a connection.
type counted struct {
	net.Conn
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// good and bad end a test where an error is not as it should be.
func good(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bad[E error](t *testing.T, err error) E {
	t.Helper()
	var typed E
	if !errors.As(err, &typed) {
		t.Fatalf("the error is a %T: %v; want a %T", err, err, typed)
	}
	return typed
}
