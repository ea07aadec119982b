package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-mail/pawl/internal/smtp"
)

// The limits of a PROXY header are those of its specification, version 2 of
// which leaves the length of its further fields open.
const (
	maxProxyLine   = 107     // version 1, with its CR LF
	maxProxyFields = 4 << 10 // version 2, behind its first 16 octets
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
)

var errProxy = errors.New("malformed PROXY header")

// readProxyHeader reads the header that a load balancer puts in front of a
// connection; the addresses in it are then those of the connection. Elsewhere
// nobody's word is taken for an address.
func (c *Conn) readProxyHeader() error {
	if !c.fromProxy() {
		return nil
	}
	c.idle, c.deadline = true, time.Now().Add(c.s.o.Timeouts.Handshake)
	client, local, err := readProxy(c.in)
	if errors.Is(err, errStopping) {
		return fmt.Errorf("%w: %v", errBroken, err) //nolint:errorlint // nothing was said yet, nothing is now
	}
	if err != nil {
		c.log().Warn("smtp: a load balancer sent no good PROXY header", "err", err)
		return fmt.Errorf("%w: %v", errBroken, err) //nolint:errorlint // a timeout must not be answered before the greeting
	}
	if client.IsValid() {
		c.client, c.local = client, local
	}
	return nil
}

func (c *Conn) fromProxy() bool {
	for _, network := range c.s.o.ProxyNetworks {
		if network.Contains(c.client.Addr()) {
			return true
		}
	}
	return false
}

// readProxy reads a header of either version. The addresses are not valid if
// it names none: the load balancer then speaks for itself.
func readProxy(in *smtp.Reader) (client, local netip.AddrPort, err error) {
	var first [1]byte
	if _, err = io.ReadFull(in, first[:]); err != nil {
		return client, local, err
	}
	switch first[0] {
	case 'P':
		line, err := in.ReadLine(maxProxyLine - 1)
		if err != nil {
			return client, local, err
		}
		return parseProxyLine("P" + string(line))
	case proxySignature[0]:
		return readProxyFields(in)
	}
	return client, local, errProxy
}

// parseProxyLine reads version 1: "PROXY TCP4 192.0.2.1 192.0.2.2 5000 25".
func parseProxyLine(line string) (client, local netip.AddrPort, err error) {
	words := strings.Split(line, " ")
	if len(words) >= 2 && words[0] == "PROXY" && words[1] == "UNKNOWN" {
		return client, local, nil
	}
	if len(words) != 6 || words[0] != "PROXY" || words[1] != "TCP4" && words[1] != "TCP6" {
		return client, local, errProxy
	}
	ok4 := words[1] == "TCP4"
	if client, err = proxyAddr(words[2], words[4], ok4); err != nil {
		return client, local, err
	}
	local, err = proxyAddr(words[3], words[5], ok4)
	return client, local, err
}

func proxyAddr(addr, port string, want4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != want4 || a.Zone() != "" {
		return netip.AddrPort{}, errProxy
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, errProxy
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

// readProxyFields reads version 2 behind its first octet.
func readProxyFields(in *smtp.Reader) (client, local netip.AddrPort, err error) {
	var head [15]byte
	if _, err = io.ReadFull(in, head[:]); err != nil {
		return client, local, err
	}
	if string(head[:11]) != proxySignature[1:] {
		return client, local, errProxy
	}
	command, family := head[11], head[12]
	size := int(binary.BigEndian.Uint16(head[13:]))
	if size > maxProxyFields {
		return client, local, errProxy
	}
	fields := make([]byte, size)
	if _, err = io.ReadFull(in, fields); err != nil {
		return client, local, err
	}
	const v2Local, v2Proxy = 0x20, 0x21
	if command == v2Local {
		return client, local, nil
	}
	if command != v2Proxy {
		return client, local, errProxy
	}
	n := 0 // of an address
	switch family {
	case 0x00: // unspecified
		return client, local, nil
	case 0x11: // TCP over IPv4
		n = 4
	case 0x21: // TCP over IPv6
		n = 16
	default:
		return client, local, errProxy
	}
	if len(fields) < 2*n+4 {
		return client, local, errProxy
	}
	from, _ := netip.AddrFromSlice(fields[:n])
	to, _ := netip.AddrFromSlice(fields[n : 2*n])
	ports := fields[2*n:]
	client = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(ports))
	local = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	return client, local, nil
}

// beneathTLS returns the connection for the handshake. What was read with the
// PROXY header and is not of it, is the beginning of the handshake.
func (c *Conn) beneathTLS() net.Conn {
	n := c.in.Buffered()
	if n == 0 {
		return c.raw
	}
	first := make([]byte, n)
	if _, err := io.ReadFull(c.in, first); err != nil {
		return c.raw // not possible: it is there
	}
	return &continued{Conn: c.raw, first: first}
}

// continued is a connection of which something was read already.
type continued struct {
	net.Conn
	first []byte
}

func (c *continued) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}
