package dbtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// script runs a server until its standard input ends, and removes it then. The
// test binary holds the other end: however it ends, the server ends with it.
const script = `
trap '' INT HUP TERM
cd /
mkdir "$DIR/socket"
"$BIN/initdb" --pgdata="$DIR/data" --username=pawl --auth=trust --encoding=UTF8 --locale=C --no-sync >"$DIR/log" 2>&1 || { cat "$DIR/log"; rm -rf "$DIR"; exit 1; }
cat >>"$DIR/data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = '$DIR/socket'
max_connections = 200
shared_buffers = 32MB
fsync = $FSYNC
END
up() { "$BIN/pg_ctl" --pgdata="$DIR/data" --log="$DIR/log" --wait --timeout=60 start >/dev/null 2>&1 </dev/null; }
down() { "$BIN/pg_ctl" --pgdata="$DIR/data" --wait --mode="$1" stop >/dev/null 2>&1 </dev/null; }
up || { cat "$DIR/log"; rm -rf "$DIR"; exit 1; }
echo ready
while read -r word; do
	case $word in
	start) up ;;
	stop) down fast ;;
	kill) down immediate ;;
	esac
	echo ready
done
down immediate
rm -rf "$DIR"
`

// Server is a PostgreSQL server on a loopback port.
type Server struct {
	port  int
	words *os.File      // the script's standard input
	said  *bufio.Reader // its standard output
	mu    sync.Mutex
	next  atomic.Int64
}

// shared is the server of this test binary, started by whoever asks first.
var shared = sync.OnceValues(func() (*Server, error) { return start("off") })

// PostgresURL makes a new, empty database in the server that the tests of this
// binary share, and drops it when tb ends.
func PostgresURL(tb testing.TB) string {
	tb.Helper()
	s, err := shared()
	if err != nil {
		Lacking(tb, "PostgreSQL", err)
	}
	return s.URL(tb)
}

// OwnPostgres starts a server that tb alone uses and may stop and start. It
// runs with fsync on.
func OwnPostgres(tb testing.TB) *Server {
	tb.Helper()
	s, err := start("on")
	if err != nil {
		Lacking(tb, "PostgreSQL", err)
	}
	tb.Cleanup(func() {
		_ = s.words.Close()
		// Nothing more comes when the script has removed the folder.
		_, _ = io.Copy(io.Discard, s.said)
	})
	return s
}

// Stop ends every session and stops the server; Kill does it without a
// checkpoint, as a crash would.
func (s *Server) Stop(tb testing.TB) { tb.Helper(); s.tell(tb, "stop") }

// Kill stops the server at once.
func (s *Server) Kill(tb testing.TB) { tb.Helper(); s.tell(tb, "kill") }

// Start starts a server that was stopped and waits until it takes connections.
func (s *Server) Start(tb testing.TB) { tb.Helper(); s.tell(tb, "start") }

func (s *Server) tell(tb testing.TB, word string) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprintln(s.words, word); err != nil {
		tb.Fatalf("%s PostgreSQL: %v", word, err)
	}
	if err := s.ready(); err != nil {
		tb.Fatalf("%s PostgreSQL: %v", word, err)
	}
}

func (s *Server) ready() error {
	line, err := s.said.ReadString('\n')
	if err == nil && strings.TrimSpace(line) == "ready" {
		return nil
	}
	rest, _ := io.ReadAll(s.said)
	return fmt.Errorf("PostgreSQL did not start: %s%s", line, rest)
}

// URL makes a new, empty database and drops it when tb ends.
func (s *Server) URL(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test_%d", s.next.Add(1))
	s.admin(tb, tb.Context(), "CREATE DATABASE "+name)
	tb.Cleanup(func() {
		s.admin(tb, context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
	})
	return s.url(name)
}

func (s *Server) url(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("pawl"),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (s *Server) admin(tb testing.TB, ctx context.Context, statement string) {
	tb.Helper()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	_, err = conn.Exec(ctx, statement)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		tb.Fatal(err)
	}
}

// start tries a few ports, because another process may take the one that was
// free a moment ago.
func start(fsync string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	const attempts = 4
	var errs []error
	for range attempts {
		s, err := startOnce(bin, fsync)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func startOnce(bin, fsync string) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pawl-postgres-")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Env = append(os.Environ(), "DIR="+dir, "BIN="+bin, "PORT="+strconv.Itoa(port), "FSYNC="+fsync, "LC_ALL=C")
	if cmd.SysProcAttr, err = unprivileged(dir); err != nil {
		return nil, err
	}
	in, words, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout = in, tell
	err = cmd.Start()
	if err := errors.Join(err, in.Close(), tell.Close()); err != nil {
		return nil, err
	}
	s := &Server{port: port, words: words, said: bufio.NewReader(out)}
	if err := s.ready(); err != nil {
		return nil, errors.Join(err, words.Close(), out.Close(), cmd.Wait())
	}
	return s, nil
}

// unprivileged makes root's server run as another user, because PostgreSQL
// refuses root, and gives dir to that user.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return attr, nil
	}
	var ids [2]int
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	for i, id := range []string{u.Uid, u.Gid} {
		if ids[i], err = strconv.Atoi(id); err != nil {
			return nil, err
		}
	}
	attr.Credential = &syscall.Credential{Uid: uint32(ids[0]), Gid: uint32(ids[1])}
	return attr, os.Chown(dir, ids[0], ids[1])
}

// binaries finds the folder of initdb and pg_ctl: Debian's newest, or the PATH's.
func binaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
	if len(found) > 0 {
		return filepath.Dir(found[0]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("listener's address is %v", l.Addr())
	}
	return addr.Port, nil
}
