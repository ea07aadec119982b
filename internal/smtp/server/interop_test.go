package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// peer finds a real client; where there is none the test is skipped, in
// continuous integration it fails.
func peer(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name) // not in everyone's PATH
	}
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is not there: %v", name, err)
	}
	if err != nil {
		t.Skipf("%s is not there: %v", name, err)
	}
	return path
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func TestPythonHandsMailIn(t *testing.T) {
	python := peer(t, "python3")
	var seen []Credentials
	r := start(t, nil, func(o *Options) { withAuth(&seen)(o); o.Without = nil })
	script := filepath.Join(t.TempDir(), "send.py")
	const program = `
import smtplib, ssl, sys
host, port = sys.argv[1].split(":")
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with smtplib.SMTP(host, int(port), "client.example", 10) as s:
    s.ehlo()
    assert s.has_extn("starttls") and not s.has_extn("auth") and not s.has_extn("requiretls")
    s.starttls(context=context)
    s.login("ann", "secret")
    assert s.has_extn("requiretls") and s.has_extn("dsn")
    s.sendmail("ann@a.test", ["bob@b.test", '"c d"@b.test'], "Subject: one\n\n.\n..dots\n", ["RET=HDRS", "REQUIRETLS"], ["NOTIFY=NEVER"])
    s.sendmail("jürgen@a.test", ["bob@b.test"], "Subject: zwei\r\n\r\ngrüße\r\n".encode(), ["SMTPUTF8", "BODY=8BITMIME"])
    try:
        s.sendmail("ann@a.test", ["no address"], "x")
        sys.exit("a malformed recipient was taken")
    except smtplib.SMTPRecipientsRefused:
        pass
`
	if err := os.WriteFile(script, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, python, script, r.addr)
	got := r.in.taken()
	if len(got) != 2 {
		t.Fatalf("%d messages taken, want 2", len(got))
	}
	one, two := got[0], got[1]
	if one.body != "Subject: one\r\n\r\n.\r\n..dots\r\n" || len(one.rcpts) != 2 || one.rcpts[1].To.Local != `"c d"` ||
		!one.mail.RequireTLS || one.user != "ann@a.test" || one.protocol != "ESMTPSA" {
		t.Errorf("the first: %+v", one)
	}
	if two.body != "Subject: zwei\r\n\r\ngrüße\r\n" || two.mail.From.String() != "jürgen@a.test" || two.protocol != "UTF8SMTPSA" {
		t.Errorf("the second: %+v", two)
	}
}

func TestSwaksHandsMailIn(t *testing.T) {
	swaks := peer(t, "swaks")
	r := start(t, nil, nil)
	for _, more := range []string{"--protocol=ESMTP", "--protocol=SMTP", "--pipeline"} {
		run(t, swaks, "--server", r.addr, "--ehlo", "client.example", "--from", "ann@a.test", "--to", "bob@b.test,cat@c.test",
			"--body", ".\n..\nthe end", "--silent", "1", more)
	}
	got := r.in.taken()
	if len(got) != 3 {
		t.Fatalf("%d messages taken, want 3", len(got))
	}
	for i, want := range []string{"ESMTP", "SMTP", "ESMTP"} {
		if m := got[i]; m.protocol != want || len(m.rcpts) != 2 || !strings.Contains(m.body, "\r\n.\r\n..\r\nthe end\r\n") {
			t.Errorf("message %d: %+v", i, m)
		}
	}
}

func TestPostfixSmtpSourceHandsMailIn(t *testing.T) {
	source := peer(t, "smtp-source")
	r := start(t, nil, nil)
	run(t, source, "-s", "4", "-m", "40", "-r", "3", "-l", "10240", "-f", "ann@a.test", "-t", "bob@b.test", r.addr)
	got := r.in.taken()
	if len(got) != 40 {
		t.Fatalf("%d messages taken, want 40", len(got))
	}
	for _, m := range got {
		if len(m.rcpts) != 3 || len(m.body) < 10240 || !m.whole {
			t.Fatalf("%d recipients, %d octets, whole %v", len(m.rcpts), len(m.body), m.whole)
		}
	}
}

func TestMsmtpHandsMailIn(t *testing.T) {
	msmtp := peer(t, "msmtp")
	var seen []Credentials
	r := start(t, nil, func(o *Options) { withAuth(&seen)(o); o.Without = nil })
	host, port, _ := strings.Cut(r.addr, ":")
	cmd := exec.CommandContext(t.Context(), msmtp, "--host="+host, "--port="+port, "--tls=on", "--tls-starttls=on", "--tls-certcheck=off", "--auth=plain",
		"--user=ann", "--passwordeval=echo secret", "--from=ann@a.test", "--dsn-notify=failure,delay", "bob@b.test", "cat@c.test")
	cmd.Stdin = strings.NewReader("Subject: one\n\n.\n..dots\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("msmtp: %v\n%s", err, out)
	}
	got := r.in.taken()
	if len(got) != 1 {
		t.Fatalf("%d messages taken, want 1", len(got))
	}
	if m := got[0]; m.user != "ann@a.test" || m.protocol != "ESMTPSA" || len(m.rcpts) != 2 || m.rcpts[0].Notify.String() != "FAILURE,DELAY" ||
		!strings.HasSuffix(m.body, "\r\n\r\n.\r\n..dots\r\n") {
		t.Errorf("it arrived as %+v", m)
	}
}
