package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"

	"github.com/pawl-mail/pawl/internal/config"
	"github.com/pawl-mail/pawl/internal/node"
)

// relayNode is `pawl serve` with another port for MX hosts and another place for
// policy hosts: "FOLDER DNS POLICY-HOST PORT". The folder holds its data, its
// log and the CA. It prints the relay's address and the control socket's.
//
// "profile FILE" begins a profile of the processor, "profile" ends it.
func relayNode(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("relay-node FOLDER DNS POLICY-HOST PORT")
	}
	folder, web := args[0], args[2]
	port, err := strconv.ParseUint(args[3], 10, 16)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(filepath.Join(folder, "..", "ca.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	log, err := os.OpenFile(filepath.Join(folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	os.Stderr = log // where a node logs to
	n, err := node.New(ctx, relayConfig(folder, args[1]), node.Wiring{
		Roots: roots, SMTP: uint16(port), Dial: toWorld(web),
	})
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(running) }()
	err = attend(n.Addrs().Relay[0]+" "+n.Addrs().Control, profile)
	cancel()
	return errors.Join(err, <-ended)
}

// relayConfig is the default configuration, on free ports.
func relayConfig(folder, dns string) config.Config {
	c := config.Default()
	c.Hostname = "relay.sender.test"
	c.Data = filepath.Join(folder, "data")
	c.DNS.Upstreams = []string{dns}
	c.Postfix.Listen, c.Web.Listen, c.Relay.Listen = "127.0.0.1:0", "127.0.0.1:0", []string{"127.0.0.1:0"}
	c.Relay.Connections = idleConns + 1000
	return c
}

// toWorld dials like a node in the real world does, but for policy hosts, whose
// port may be taken on this machine.
func toWorld(web string) node.Dial {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasSuffix(addr, ":443") {
			addr = web
		}
		return (&net.Dialer{Timeout: relayDial}).DialContext(ctx, network, addr)
	}
}

func profile(line string) (string, error) {
	path, ok := strings.CutPrefix(line, "profile ")
	switch {
	case line == "profile":
		pprof.StopCPUProfile()
		return "ok", nil
	case !ok:
		return nothing(line)
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return "ok", pprof.StartCPUProfile(f)
}

// resident returns the resident memory of a process now and at its highest, in
// MiB.
func resident(pid int) (now, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		switch key, value, _ := strings.Cut(line, ":"); key {
		case "VmRSS":
			_, err = fmt.Sscan(value, &kib)
			now = kib / 1024
		case "VmHWM":
			_, err = fmt.Sscan(value, &kib)
			peak = kib / 1024
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return now, peak, nil
}
