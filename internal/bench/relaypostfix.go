package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tuned is main.cf of the Postfix that pawl is held against: Debian's defaults,
// but for what makes it faster. Queue files are synced, as is the default.
const tuned = `compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = /dev/stdout
myhostname = mail.sender.test
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
notify_classes =
smtpd_peername_lookup = no
default_process_limit = 200
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
initial_destination_concurrency = 20
default_destination_concurrency_limit = 20
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = [127.0.0.2]:PORT, [127.0.0.3]:PORT
smtp_connection_reuse_count_limit = 1000
smtp_tls_connection_reuse = yes
smtp_tls_session_cache_database = btree:$data_directory/smtp_scache
smtp_tls_CAfile = DIR/ca.pem
transport_maps = inline:{ {tls.test = smtp:[127.0.0.2]:PORT}, {plain.test = smtp:[127.0.0.3]:PORT} }
smtp_tls_policy_maps = inline:{ {[127.0.0.2]:PORT = secure match=mx.tls.test}, {[127.0.0.3]:PORT = none} }
`

// tunedMaster is Debian's master.cf without its chroots, on a port of its own.
const tunedMaster = `LISTEN inet n - n - - smtpd
pickup   unix n - n 60   1 pickup
cleanup  unix n - n -    0 cleanup
qmgr     unix n - n 300  1 qmgr
tlsmgr   unix - - n 1000? 1 tlsmgr
tlsproxy unix - - n -    0 tlsproxy
rewrite  unix - - n -    - trivial-rewrite
bounce   unix - - n -    0 bounce
defer    unix - - n -    0 bounce
trace    unix - - n -    0 bounce
verify   unix - - n -    1 verify
flush    unix n - n 1000? 0 flush
proxymap unix - - n -    - proxymap
smtp     unix - - n -    - smtp
relay    unix - - n -    - smtp
showq    unix n - n -    - showq
error    unix - - n -    - error
retry    unix - - n -    - error
anvil    unix - - n -    1 anvil
scache   unix - - n -    1 scache
postlog  unix-dgram n - n - 1 postlogd
`

// postfixServer is a Postfix of its own folder, queue and port.
type postfixServer struct {
	master *exec.Cmd
	addr   string
	usage  time.Duration
}

// startPostfix starts one in a folder that other users may read, and waits until
// it takes mail.
func startPostfix(ctx context.Context, folder, port string) (*postfixServer, error) {
	l, err := listenLoopback(ctx)
	if err != nil {
		return nil, err
	}
	p := &postfixServer{addr: l.Addr().String()}
	l.Close()
	fill := strings.NewReplacer("DIR", folder, "PORT", port, "LISTEN", p.addr).Replace
	err = errors.Join(
		os.Mkdir(folder+"/queue", 0o755), os.Mkdir(folder+"/data", 0o700),
		os.WriteFile(folder+"/main.cf", []byte(fill(tuned)), 0o644),
		os.WriteFile(folder+"/master.cf", []byte(fill(tunedMaster)), 0o644),
	)
	if err != nil {
		return nil, err
	}
	for _, c := range [][]string{{"chown", "postfix", folder + "/data"}, {"postfix", "-c", folder, "check"}} {
		if out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
		}
	}
	log, err := os.Create(folder + "/log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.master = exec.CommandContext(ctx, "/usr/lib/postfix/sbin/master", "-c", folder, "-s")
	p.master.Stdout, p.master.Stderr = log, log
	p.master.Cancel = func() error { return p.master.Process.Signal(syscall.SIGTERM) }
	if err := p.master.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			return p, c.Close()
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("the yardstick, Postfix, does not take mail: %w", err), p.stop())
		}
	}
}

// stop ends it, and waits until its processes have gone.
func (p *postfixServer) stop() error {
	err := p.master.Process.Signal(syscall.SIGTERM)
	_ = p.master.Wait() // it says that it was terminated
	return err
}

// cpu returns the processor time that master and its children took since the
// last call.
func (p *postfixServer) cpu() (time.Duration, error) {
	all, err := treeTime(p.master.Process.Pid)
	took := all - p.usage
	p.usage = all
	return took, err
}

// treeTime is the processor time of a process, of its children that live and of
// those that it waited for.
func treeTime(pid int) (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name, in brackets, may hold anything. Behind it: state, ppid, …,
		// utime, stime, cutime, cstime (proc(5), 14 to 17).
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		own := filepath.Base(filepath.Dir(path)) == strconv.Itoa(pid)
		if !own && string(fields[1]) != strconv.Itoa(pid) {
			continue
		}
		for _, f := range fields[11:15] {
			n, err := strconv.ParseInt(string(f), 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ
}
