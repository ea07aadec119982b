package testnet

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

const (
	maxCommand = 4096 // octets of a command line
	maxMessage = 64 << 20
)

var (
	errHungUp  = errors.New("the session is over")
	errTooLong = errors.New("line too long")
)

// receiver is an SMTP receiving end: an honest MX host, a scripted one, or the
// attacker in its place. It is a witness that shares no code with the servers
// and clients under test.
type receiver struct {
	n        *Net
	name     string // in the greeting, and Delivery.Host
	attacker bool
	config   *tls.Config       // nil: no STARTTLS
	trueKey  *ecdsa.PrivateKey // of the host whose name it is
	require  bool              // REQUIRETLS is advertised under TLS
	bySNI    bool              // under TLS the name is the one the sender asked for
	script   *script
}

// dialogue is one SMTP session with a receiver.
type dialogue struct {
	receiver
	ctx   context.Context
	s     *Session
	c     net.Conn
	peer  string // "sender", or "attacker" where one passes the session on
	r     *bufio.Reader
	state *tls.ConnectionState
	shown *tls.Certificate

	helo string
	mail *Delivery // the transaction; nil before MAIL
}

// serve speaks SMTP with c until the session ends.
func (r receiver) serve(ctx context.Context, s *Session, c net.Conn) {
	d := &dialogue{receiver: r, ctx: ctx, s: s, c: c, peer: "sender", r: bufio.NewReaderSize(c, maxCommand)}
	if l, ok := c.(interface{ leg() string }); ok {
		d.peer = l.leg()
	}
	defer func() { d.c.Close() }()
	if err := d.reply(AtConnect, "", "220 "+d.name+" ESMTP"); err != nil {
		return
	}
	for {
		line, err := d.line()
		if errors.Is(err, errTooLong) {
			_ = d.say("500 5.5.2 Line too long")
			return
		}
		if err != nil {
			return
		}
		if err := d.command(line); err != nil {
			return
		}
	}
}

func (d *dialogue) line() (string, error) {
	b, err := d.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errTooLong
	}
	if err != nil {
		return "", err
	}
	line, crlf := strings.CutSuffix(string(b), "\r\n")
	if !crlf {
		d.s.note("command ends in a bare LF: %q", line)
		line = strings.TrimSuffix(line, "\n")
	}
	d.s.say(d.peer, d.who(), d.state != nil, line)
	return line, nil
}

func (d *dialogue) who() string {
	if d.attacker {
		return "attacker"
	}
	return d.name
}

// say sends a reply, its lines joined by "\n".
func (d *dialogue) say(reply string) error {
	for line := range strings.SplitSeq(reply, "\n") {
		d.s.say(d.who(), d.peer, d.state != nil, line)
	}
	_, err := io.WriteString(d.c, strings.ReplaceAll(reply, "\n", "\r\n")+"\r\n")
	if err == nil && strings.HasPrefix(reply, "421") {
		return errHungUp
	}
	return err
}

// reply says what the script has for a stage, or else the honest reply.
func (d *dialogue) reply(at Stage, line, honest string) error {
	said, err := d.scripted(at, line)
	if err != nil || said != "" {
		return err
	}
	return d.say(honest)
}

// scripted does what the script has for a stage. It returns the reply that was
// said, if any was.
func (d *dialogue) scripted(at Stage, line string) (string, error) {
	return d.perform(d.script.next(at, line))
}

func (d *dialogue) perform(a *Action) (string, error) {
	if a == nil {
		return "", nil
	}
	if a.Wait != nil {
		select {
		case <-a.Wait:
		case <-d.ctx.Done():
			return "", errHungUp
		}
	}
	if a.Delay > 0 {
		if err := d.n.Clock.Sleep(d.ctx, a.Delay); err != nil {
			return "", err
		}
	}
	switch {
	case a.Hang:
		d.s.say(d.who(), d.peer, d.state != nil, "(silence)")
		_, _ = io.Copy(io.Discard, d.c)
		return "", errHungUp
	case a.Drop:
		d.s.say(d.who(), d.peer, d.state != nil, "(reset)")
		reset(d.c)
		return "", errHungUp
	case a.Reply == "":
		return "", nil
	}
	return a.Reply, d.say(a.Reply)
}

// pipelined notes commands that came before their time (RFC 2920 §3.1).
func (d *dialogue) pipelined(verb string) {
	if n := d.r.Buffered(); n > 0 {
		d.s.note("%d octets came before the reply to %s", n, verb)
	}
}

func (d *dialogue) command(line string) error {
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO", "HELO":
		d.pipelined(verb)
		return d.hello(strings.ToUpper(verb), arg, line)
	case "STARTTLS":
		return d.startTLS(line)
	case "MAIL":
		return d.mailFrom(arg, line)
	case "RCPT":
		return d.rcptTo(arg, line)
	case "DATA":
		d.pipelined(verb)
		return d.data(line)
	case "AUTH":
		return d.reply(AtAUTH, line, "502 5.5.1 Command not known")
	case "RSET":
		d.mail = nil
		return d.reply(AtRSET, line, "250 2.0.0 Reset")
	case "NOOP":
		return d.say("250 2.0.0 Ok")
	case "QUIT":
		if err := d.reply(AtQUIT, line, "221 2.0.0 Bye"); err != nil {
			return err
		}
		return errHungUp
	default:
		return d.say("500 5.5.2 Unknown command")
	}
}

func (d *dialogue) hello(verb, arg, line string) error {
	d.mail = nil
	at := AtEHLO
	if d.state != nil {
		at = AtEHLOTLS
	}
	said, err := d.scripted(at, line)
	if err != nil {
		return err
	}
	if said != "" {
		if strings.HasPrefix(said, "2") {
			d.helo = arg
		}
		return nil
	}
	d.helo = arg
	if verb == "HELO" {
		return d.say("250 " + d.name)
	}
	lines := []string{d.name, "PIPELINING", "SIZE 67108864", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"}
	switch {
	case d.state == nil && d.config != nil:
		lines = append(lines, "STARTTLS")
	case d.state != nil && d.require:
		lines = append(lines, "REQUIRETLS") // RFC 8689 §2: only under TLS
	}
	return d.say(multiline("250", lines))
}

func multiline(code string, lines []string) string {
	var b strings.Builder
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		} else {
			l += "\n"
		}
		b.WriteString(code + sep + l)
	}
	return b.String()
}

func (d *dialogue) startTLS(line string) error {
	if d.config == nil || d.state != nil {
		return d.say("502 5.5.1 STARTTLS not offered")
	}
	if n := d.r.Buffered(); n > 0 {
		// RFC 3207 §4.2: nothing from before the handshake survives it
		d.s.note("%d octets came between STARTTLS and the handshake", n)
		_, _ = d.r.Discard(n)
	}
	said, err := d.scripted(AtSTARTTLS, line)
	if err != nil {
		return err
	}
	if said == "" {
		err = d.say("220 2.0.0 Go ahead")
	}
	if err != nil || (said != "" && !strings.HasPrefix(said, "220")) {
		return err
	}
	if _, err := d.scripted(AtHandshake, line); err != nil {
		return err
	}
	return d.handshake()
}

func (d *dialogue) handshake() error {
	config := d.config.Clone()
	pick := config.GetCertificate
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := pick(hello)
		d.shown = c
		return c, err
	}
	c := tls.Server(d.c, config)
	if err := c.HandshakeContext(d.ctx); err != nil {
		d.s.say(d.who(), d.peer, true, "(handshake failed: "+err.Error()+")")
		return err
	}
	state := c.ConnectionState()
	d.c, d.state = c, &state
	d.r = bufio.NewReaderSize(c, maxCommand)
	if d.bySNI && state.ServerName != "" {
		d.name = canonical(state.ServerName)
	}
	d.helo, d.mail = "", nil // RFC 3207 §4.2
	d.s.say(d.who(), d.peer, true, fmt.Sprintf("(%s, certificate for %s from %s)",
		tls.VersionName(state.Version), strings.Join(d.shown.Leaf.DNSNames, ","), d.shown.Leaf.Issuer.CommonName))
	return nil
}

func (d *dialogue) mailFrom(arg, line string) error {
	switch {
	case d.helo == "":
		return d.say("503 5.5.1 EHLO first")
	case d.mail != nil:
		return d.say("503 5.5.1 One sender at a time")
	}
	path, params, ok := parsePath(arg, "FROM:")
	if !ok {
		return d.say("501 5.5.4 Syntax: MAIL FROM:<address>")
	}
	require := slices.ContainsFunc(params, func(p string) bool { return strings.EqualFold(p, "REQUIRETLS") })
	if require && (!d.require || d.state == nil) {
		return d.say("555 5.5.4 REQUIRETLS was not offered")
	}
	said, err := d.scripted(AtMAIL, line)
	if err != nil || (said != "" && !strings.HasPrefix(said, "2")) {
		return err
	}
	d.mail = &Delivery{From: path, MailParams: params, RequireTLS: require}
	if said != "" {
		return nil
	}
	return d.say("250 2.1.0 Sender ok")
}

func (d *dialogue) rcptTo(arg, line string) error {
	if d.mail == nil {
		return d.say("503 5.5.1 MAIL first")
	}
	path, params, ok := parsePath(arg, "TO:")
	if !ok || path == "" {
		return d.say("501 5.5.4 Syntax: RCPT TO:<address>")
	}
	said, err := d.scripted(AtRCPT, line)
	if err != nil || (said != "" && !strings.HasPrefix(said, "2")) {
		return err
	}
	d.mail.To, d.mail.RcptParams = append(d.mail.To, path), append(d.mail.RcptParams, params)
	if said != "" {
		return nil
	}
	return d.say("250 2.1.5 Recipient ok")
}

func (d *dialogue) data(line string) error {
	if d.mail == nil || len(d.mail.To) == 0 {
		return d.say("503 5.5.1 RCPT first")
	}
	said, err := d.scripted(AtDATA, line)
	if err != nil {
		return err
	}
	if said == "" {
		err = d.say("354 End with a dot on a line by itself")
	}
	if err != nil || (said != "" && !strings.HasPrefix(said, "354")) {
		return err
	}
	body, bare, err := readMessage(d.r)
	if err != nil {
		return err
	}
	if bare {
		d.s.note("the message has a bare CR or LF")
	}
	d.s.say(d.peer, d.who(), d.state != nil, fmt.Sprintf("(message of %d octets)", len(body)))
	d.mail.Data = body
	return d.accept(line)
}

// accept records the message and answers for it. It is recorded before the
// answer, so that a client that has its 250 finds it in [Net.Deliveries].
func (d *dialogue) accept(line string) error {
	m := *d.mail
	d.mail = nil
	m.At, m.Host, m.ByAttacker, m.Session, m.Helo = d.n.Clock.Now(), d.name, d.attacker, d.s, d.helo
	m.Via, m.TLS = d.s.Via(), d.state
	if d.shown != nil {
		m.Certificate = d.shown.Leaf
		m.Trusted = d.n.trusts(d.shown, d.name)
		m.TrueKey = d.trueKey != nil && d.trueKey.PublicKey.Equal(d.shown.Leaf.PublicKey)
	}
	m.Reply = "250 2.0.0 Taken"
	action := d.script.next(AtMessage, line)
	switch {
	case action == nil:
	case action.Hang, action.Drop:
		m.Reply = "" // it arrived; the sender is not told
	case action.Reply != "":
		m.Reply = action.Reply
	}
	m.Accepted = strings.HasPrefix(m.Reply, "2")
	d.n.seen.deliver(m)
	if said, err := d.perform(action); err != nil || said != "" {
		return err
	}
	return d.say(m.Reply)
}

// trusts reports whether a chain verifies for a name by PKIX, by DNS-ID, now.
func (n *Net) trusts(c *tls.Certificate, name string) bool {
	inter := x509.NewCertPool()
	for _, der := range c.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			inter.AddCert(cert)
		}
	}
	_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: n.roots, Intermediates: inter, DNSName: name, CurrentTime: n.Clock.Now()})
	return err == nil
}

// parsePath reads "FROM:<path> PARAM PARAM".
func parsePath(arg, prefix string) (path string, params []string, ok bool) {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return "", nil, false
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(arg[len(prefix):], " "), "<")
	if !ok {
		return "", nil, false
	}
	quoted := false
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return rest[:i], strings.Fields(rest[i+1:]), true
		}
	}
	return "", nil, false
}

// readMessage reads to the line that is a dot, which only CRLF can end and
// begin (RFC 5321 §4.1.1.4), and unstuffs. bare tells of a CR or LF by itself.
func readMessage(r *bufio.Reader) (body []byte, bare bool, err error) {
	atStart := true
	var last byte
	for {
		part, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, bare, err
		}
		if atStart {
			if string(part) == ".\r\n" {
				return body, bare, nil
			}
			if part[0] == '.' {
				part = part[1:]
			}
		}
		for _, c := range part {
			bare = bare || (c == '\n') != (last == '\r')
			last = c
		}
		if len(body)+len(part) > maxMessage {
			return nil, bare, errTooLong
		}
		body = append(body, part...)
		atStart = len(body) >= 2 && string(body[len(body)-2:]) == "\r\n"
	}
}

// reset ends a connection with a RST.
func reset(c net.Conn) {
	switch c := c.(type) {
	case *tls.Conn:
		reset(c.NetConn())
	case interface {
		SetLinger(sec int) error
		kill()
	}:
		_ = c.SetLinger(0)
		c.kill()
	default:
		_ = c.Close()
	}
}
