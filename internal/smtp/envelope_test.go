package smtp_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-mail/pawl/internal/smtp"
)

func everything() smtp.Offer {
	return smtp.Offer{Size: true, EightBit: true, UTF8: true, DSN: true, RequireTLS: true, Auth: true}
}

func TestMailCommandsAreRead(t *testing.T) {
	ann := smtp.Path{Local: "ann", Domain: "a.test"}
	for _, tt := range []struct {
		in   string
		want smtp.Mail
	}{
		{"FROM:<ann@a.test>", smtp.Mail{From: ann}},
		{"from:<>", smtp.Mail{}},
		{"FROM: <ann@a.test>  SIZE=10  ", smtp.Mail{From: ann, Size: 10}},
		{"FROM:<ann@a.test> SIZE=99999999999999999999", smtp.Mail{From: ann, Size: math.MaxInt64}},
		{"FROM:<ann@a.test> body=8bitmime", smtp.Mail{From: ann, Body: smtp.Body8Bit}},
		{"FROM:<ann@a.test> BODY=7BIT SMTPUTF8", smtp.Mail{From: ann, Body: smtp.Body7Bit, UTF8: true}},
		{"FROM:<ü@a.test> SMTPUTF8", smtp.Mail{From: smtp.Path{Local: "ü", Domain: "a.test"}, UTF8: true}},
		{"FROM:<ann@a.test> RET=HDRS ENVID=QQ+2B314+20x", smtp.Mail{From: ann, Ret: smtp.RetHdrs, EnvID: "QQ+314 x"}},
		{"FROM:<ann@a.test> REQUIRETLS RET=full", smtp.Mail{From: ann, Ret: smtp.RetFull, RequireTLS: true}},
		{"FROM:<ann@a.test> AUTH=<>", smtp.Mail{From: ann, Auth: "<>"}},
		{"FROM:<ann@a.test> AUTH=e+3Dmc2@a.test", smtp.Mail{From: ann, Auth: "e=mc2@a.test"}},
	} {
		got, err := smtp.ParseMail(tt.in, everything())
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestRefusedMailCommands(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"no FROM", "<ann@a.test>", "501 5.5.4"},
		{"nothing", "", "501 5.5.4"},
		{"no brackets", "FROM:ann@a.test", "501 5.1.7"},
		{"postmaster without a domain", "FROM:<postmaster>", "501 5.1.7"},
		{"no blank before a parameter", "FROM:<ann@a.test>SIZE=1", "501 5.5.4"},
		{"an unknown parameter", "FROM:<ann@a.test> MT-PRIORITY=3", "555 5.5.4"},
		{"a parameter twice", "FROM:<ann@a.test> SIZE=1 size=2", "501 5.5.4"},
		{"no value", "FROM:<ann@a.test> SIZE", "501 5.5.4"},
		{"an empty value", "FROM:<ann@a.test> SIZE=", "501 5.5.4"},
		{"a negative size", "FROM:<ann@a.test> SIZE=-1", "501 5.5.4"},
		{"a size of 21 digits", "FROM:<ann@a.test> SIZE=100000000000000000000", "501 5.5.4"},
		{"an unknown body", "FROM:<ann@a.test> BODY=9BIT", "501 5.5.4"},
		{"binary content", "FROM:<ann@a.test> BODY=BINARYMIME", "555 5.6.3"},
		{"a value for SMTPUTF8", "FROM:<ann@a.test> SMTPUTF8=yes", "501 5.5.4"},
		{"a value for REQUIRETLS", "FROM:<ann@a.test> REQUIRETLS=yes", "501 5.5.4"},
		{"an unknown RET", "FROM:<ann@a.test> RET=ALL", "501 5.5.4"},
		{"an ENVID that is no xtext", "FROM:<ann@a.test> ENVID=a+2", "501 5.5.4"},
		{"an ENVID in lower-case hex", "FROM:<ann@a.test> ENVID=a+2b", "501 5.5.4"},
		{"an ENVID that hides a line end", "FROM:<ann@a.test> ENVID=a+0D+0Ab", "501 5.5.4"},
		{"an ENVID that is too long", "FROM:<ann@a.test> ENVID=" + strings.Repeat("x", 101), "501 5.5.4"},
		{"an AUTH that hides a line end", "FROM:<ann@a.test> AUTH=a+0D+0A@a.test", "501 5.5.4"},
		{"an address beyond ASCII without SMTPUTF8", "FROM:<ü@a.test>", "553 5.6.7"},
		{"two equals signs", "FROM:<ann@a.test> ENVID=a=b", "501 5.5.4"},
		{"a keyword with an underscore", "FROM:<ann@a.test> A_B=1", "501 5.5.4"},
		{"a control in a value", "FROM:<ann@a.test> ENVID=a\tb", "501 5.5.4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := smtp.ParseMail(tt.in, everything())
			wantError(t, err, tt.want)
		})
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	var e *smtp.Error
	if !errors.As(err, &e) || !strings.HasPrefix(e.Error(), want+" ") {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestAParameterThatIsNotOfferedIsRefused(t *testing.T) {
	for _, param := range []string{"SIZE=1", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=x", "REQUIRETLS", "AUTH=<>"} {
		_, err := smtp.ParseMail("FROM:<ann@a.test> "+param, smtp.Offer{})
		wantError(t, err, "555 5.5.4")
	}
	for _, param := range []string{"NOTIFY=NEVER", "ORCPT=rfc822;a@a.test"} {
		_, err := smtp.ParseRcpt("TO:<ann@a.test> "+param, smtp.Offer{})
		wantError(t, err, "555 5.5.4")
	}
}

func TestRcptCommandsAreRead(t *testing.T) {
	bob := smtp.Path{Local: "bob", Domain: "b.test"}
	for _, tt := range []struct {
		in   string
		want smtp.Rcpt
	}{
		{"TO:<bob@b.test>", smtp.Rcpt{To: bob}},
		{"to:<Postmaster>", smtp.Rcpt{To: smtp.Path{Local: "Postmaster"}}},
		{"TO:<bob@b.test> NOTIFY=never", smtp.Rcpt{To: bob, Notify: smtp.NotifyNever}},
		{"TO:<bob@b.test> NOTIFY=DELAY,SUCCESS", smtp.Rcpt{To: bob, Notify: smtp.NotifyDelay | smtp.NotifySuccess}},
		{
			"TO:<bob@b.test> ORCPT=RFC822;bob+2B1@b.test NOTIFY=FAILURE",
			smtp.Rcpt{To: bob, Notify: smtp.NotifyFailure, ORcpt: smtp.ORcpt{Type: "rfc822", Addr: "bob+1@b.test"}},
		},
		{`TO:<bob@b.test> ORCPT=utf-8;\x{FC}ber@b.test`, smtp.Rcpt{To: bob, ORcpt: smtp.ORcpt{Type: "utf-8", Addr: "über@b.test"}}},
		{`TO:<bob@b.test> ORCPT=utf-8;über\x{2B}1@b.test`, smtp.Rcpt{To: bob, ORcpt: smtp.ORcpt{Type: "utf-8", Addr: "über+1@b.test"}}},
	} {
		got, err := smtp.ParseRcpt(tt.in, everything())
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestRefusedRcptCommands(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"no TO", "FROM:<bob@b.test>", "501 5.5.4"},
		{"the null path", "TO:<>", "501 5.1.3"},
		{"no domain", "TO:<bob>", "501 5.1.3"},
		{"an address beyond ASCII", "TO:<ü@b.test>", "553 5.6.7"},
		{"NEVER among others", "TO:<bob@b.test> NOTIFY=NEVER,DELAY", "501 5.5.4"},
		{"a word twice", "TO:<bob@b.test> NOTIFY=DELAY,DELAY", "501 5.5.4"},
		{"an unknown word", "TO:<bob@b.test> NOTIFY=ALWAYS", "501 5.5.4"},
		{"an empty word", "TO:<bob@b.test> NOTIFY=DELAY,", "501 5.5.4"},
		{"an ORCPT without a type", "TO:<bob@b.test> ORCPT=bob@b.test", "501 5.5.4"},
		{"an ORCPT without an address", "TO:<bob@b.test> ORCPT=rfc822;", "501 5.5.4"},
		{"an ORCPT that hides a line end", "TO:<bob@b.test> ORCPT=rfc822;a+0D+0ADATA", "501 5.5.4"},
		{"an ORCPT in UTF-8 that hides a line end", `TO:<bob@b.test> ORCPT=utf-8;a\x{0D}\x{0A}`, "501 5.5.4"},
		{"an ORCPT with a surrogate", `TO:<bob@b.test> ORCPT=utf-8;a\x{D800}`, "501 5.5.4"},
		{"an ORCPT that is too long", "TO:<bob@b.test> ORCPT=rfc822;" + strings.Repeat("x", 500), "501 5.5.4"},
		{"a parameter of MAIL", "TO:<bob@b.test> SIZE=1", "555 5.5.4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			offer := everything()
			offer.UTF8 = false
			_, err := smtp.ParseRcpt(tt.in, offer)
			wantError(t, err, tt.want)
		})
	}
}

func TestCommandsAreWrittenWithWhatTheOtherEndOffers(t *testing.T) {
	m := smtp.Mail{
		From: smtp.Path{Local: "ann", Domain: "a.test"}, Size: 10, Body: smtp.Body8Bit, UTF8: true,
		Ret: smtp.RetHdrs, EnvID: "a b+c", RequireTLS: true, Auth: "<>",
	}
	r := smtp.Rcpt{
		To:     smtp.Path{Local: "bob", Domain: "b.test"},
		Notify: smtp.NotifySuccess | smtp.NotifyFailure, ORcpt: smtp.ORcpt{Type: "utf-8", Addr: "ü+1@b.test"},
	}
	full := everything()
	ascii := full
	ascii.UTF8 = false
	for _, tt := range []struct{ got, want string }{
		{string(m.Append(nil, full)), "MAIL FROM:<ann@a.test> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+20b+2Bc REQUIRETLS AUTH=<>"},
		{string(m.Append(nil, smtp.Offer{})), "MAIL FROM:<ann@a.test>"},
		{string(smtp.Mail{}.Append(nil, full)), "MAIL FROM:<>"},
		{string(r.Append(nil, full)), `RCPT TO:<bob@b.test> NOTIFY=SUCCESS,FAILURE ORCPT=utf-8;ü\x{2B}1@b.test`},
		{string(r.Append(nil, ascii)), `RCPT TO:<bob@b.test> NOTIFY=SUCCESS,FAILURE ORCPT=utf-8;\x{FC}\x{2B}1@b.test`},
		{string(r.Append(nil, smtp.Offer{})), "RCPT TO:<bob@b.test>"},
	} {
		if tt.got != tt.want {
			t.Errorf("got  %s\nwant %s", tt.got, tt.want)
		}
	}
}

func FuzzMail(f *testing.F) {
	f.Add("FROM:<ann@a.test> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+20b+2Bc REQUIRETLS AUTH=<>")
	f.Add("FROM: <> AUTH=e+3Dmc2@a.test")
	f.Fuzz(func(t *testing.T, arg string) {
		m, err := smtp.ParseMail(arg, everything())
		var e *smtp.Error
		if err != nil {
			if !errors.As(err, &e) || e.Code < 500 {
				t.Fatalf("error %v", err)
			}
			return
		}
		line := string(m.Append(nil, everything()))
		checkLine(t, line)
		again, err := smtp.ParseMail(strings.TrimPrefix(line, "MAIL "), everything())
		if err != nil || again != m {
			t.Fatalf("%q became %+v, then %q, then %+v, %v", arg, m, line, again, err)
		}
	})
}

func FuzzRcpt(f *testing.F) {
	f.Add("TO:<bob@b.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob+2B@b.test")
	f.Add(`TO:<Postmaster> ORCPT=utf-8;ü\x{2B}1@b.test`)
	f.Fuzz(func(t *testing.T, arg string) {
		r, err := smtp.ParseRcpt(arg, everything())
		var e *smtp.Error
		if err != nil {
			if !errors.As(err, &e) || e.Code < 500 {
				t.Fatalf("error %v", err)
			}
			return
		}
		for _, utf8 := range []bool{true, false} {
			offer := everything()
			offer.UTF8 = utf8
			line := string(r.Append(nil, offer))
			checkLine(t, line)
			again, err := smtp.ParseRcpt(strings.TrimPrefix(line, "RCPT "), everything())
			if len(r.ORcpt.String()) <= smtp.MaxORcpt && (err != nil || again != r) {
				t.Fatalf("%q became %+v, then %q, then %+v, %v", arg, r, line, again, err)
			}
		}
	})
}

// checkLine fails if something that came in could end the line that goes out.
func checkLine(t *testing.T, line string) {
	t.Helper()
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Fatalf("a control character in %q", line)
	}
}
