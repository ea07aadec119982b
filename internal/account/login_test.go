package account

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db/dbtest"
)

var (
	home  = netip.MustParseAddr("192.0.2.1")
	other = netip.MustParseAddr("192.0.2.2")
)

// office is a store with one submitter, "app", and its logins.
func office(t *testing.T) (*Store, *Logins, *clock) {
	t.Helper()
	c := noon()
	s := NewStore(dbtest.SQLite(t), c.now)
	if _, err := s.Add(t.Context(), Submitter{Name: "app", Senders: []string{"example.com"}}, secret); err != nil {
		t.Fatal(err)
	}
	l, err := NewLogins(s, c.now)
	if err != nil {
		t.Fatal(err)
	}
	l.decoy.memory = 8 // a wrong name is quick here
	return s, l, c
}

// busy takes all turns of hashing and all places in the line for them, so that
// who needs one is told so.
func (l *Logins) busy() (end func()) {
	for range cap(l.turns) {
		l.turns <- struct{}{}
	}
	for range maxWaiting {
		l.waiting <- struct{}{}
	}
	return func() {
		for range cap(l.turns) {
			<-l.turns
		}
		for range maxWaiting {
			<-l.waiting
		}
	}
}

func TestALoginIsNameAndPassword(t *testing.T) {
	s, l, _ := office(t)
	if sub, err := l.Check(t.Context(), home, "App", secret); err != nil || sub.Name != "app" || !sub.MaySend("x", "example.com") {
		t.Fatalf("%+v, %v", sub, err)
	}
	for what, try := range map[string][2]string{
		"a wrong password": {"app", secret + "x"}, "no password": {"app", ""},
		"an unknown name": {"nobody", secret}, "a password with a control": {"app", secret + "\x00"},
	} {
		if _, err := l.Check(t.Context(), home, try[0], try[1]); !errors.Is(err, ErrCredentials) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Disable(t.Context(), "app", true); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Check(t.Context(), home, "app", secret); !errors.Is(err, ErrCredentials) {
		t.Errorf("disabled: %v", err)
	}
	if f := l.Failures(); f["credentials"] != 4 || f["disabled"] != 1 {
		t.Errorf("counted: %v", f)
	}
}

func TestANewPasswordEndsTheOldOneAtOnce(t *testing.T) {
	s, l, _ := office(t)
	if _, err := l.Check(t.Context(), home, "app", secret); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPassword(t.Context(), "app", "another long one"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Check(t.Context(), home, "app", secret); !errors.Is(err, ErrCredentials) {
		t.Errorf("the old one: %v", err)
	}
	if _, err := l.Check(t.Context(), home, "app", "another long one"); err != nil {
		t.Errorf("the new one: %v", err)
	}
}

func TestAnUnknownNameCostsAHashToo(t *testing.T) {
	_, l, _ := office(t)
	end := l.busy()
	defer end()
	for _, name := range []string{"app", "nobody"} {
		if _, err := l.Check(t.Context(), home, name, secret); !errors.Is(err, ErrBusy) {
			t.Errorf("%s does not wait for its turn: %v", name, err)
		}
	}
}

func TestAPasswordThatWasRightLatelyNeedsNoTurn(t *testing.T) {
	_, l, c := office(t)
	if _, err := l.Check(t.Context(), home, "app", secret); err != nil {
		t.Fatal(err)
	}
	end := l.busy()
	defer end()
	if _, err := l.Check(t.Context(), home, "app", secret); err != nil {
		t.Errorf("while others keep the processors busy: %v", err)
	}
	if _, err := l.Check(t.Context(), home, "app", secret+"x"); !errors.Is(err, ErrBusy) {
		t.Errorf("a wrong one: %v", err)
	}
	c.Time = c.Add(recentFor + time.Second)
	if _, err := l.Check(t.Context(), home, "app", secret); !errors.Is(err, ErrBusy) {
		t.Errorf("an hour later: %v", err)
	}
}

func TestAFloodOfLoginsWaitsInABoundedLine(t *testing.T) {
	_, l, _ := office(t)
	end := l.busy()
	if _, err := l.Check(t.Context(), home, "app", secret); !errors.Is(err, ErrBusy) {
		t.Errorf("one more than may wait: %v", err)
	}
	<-l.waiting
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.turn(ctx); !errors.Is(err, ErrBusy) || !errors.Is(err, context.Canceled) {
		t.Errorf("a client that leaves the line: %v", err)
	}
	l.waiting <- struct{}{}
	end()
	if _, err := l.Check(t.Context(), home, "app", secret); err != nil {
		t.Errorf("after the flood: %v", err)
	}
	if l.Failures()["busy"] != 1 {
		t.Errorf("counted: %v", l.Failures())
	}
}

func TestWrongPasswordsAreLimitedPerClient(t *testing.T) {
	_, l, c := office(t)
	try := func(client netip.Addr, i int) error {
		_, err := l.Check(t.Context(), client, "nobody"+strconv.Itoa(i), secret)
		return err
	}
	for i := range clientFailures().Burst {
		if err := try(home, i); !errors.Is(err, ErrCredentials) {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	if _, err := l.Check(t.Context(), home, "app", secret); !errors.Is(err, ErrThrottled) {
		t.Errorf("after them the right one: %v", err)
	}
	if _, err := l.Check(t.Context(), other, "app", secret); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	c.Time = c.Add(time.Minute)
	if _, err := l.Check(t.Context(), home, "app", secret); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestWrongPasswordsAreLimitedPerSubmitterButNotForWhereItLogsInFrom(t *testing.T) {
	_, l, _ := office(t)
	if _, err := l.Check(t.Context(), home, "nobody", secret); !errors.Is(err, ErrCredentials) {
		t.Fatal(err)
	}
	if _, err := l.Check(t.Context(), home, "app", secret); err != nil {
		t.Fatal(err)
	}
	l.submitters.Take("app", submitterFailures().Burst) // as many failures from all over the world
	if _, err := l.Check(t.Context(), other, "app", secret); !errors.Is(err, ErrThrottled) {
		t.Errorf("from elsewhere: %v", err)
	}
	if _, err := l.Check(t.Context(), home, "app", secret); err != nil {
		t.Errorf("from where it has logged in: %v", err)
	}
	if l.Failures()["throttled"] != 1 {
		t.Errorf("counted: %v", l.Failures())
	}
}

func TestLoginsThatGoWellAreNotLimited(t *testing.T) {
	_, l, _ := office(t)
	for i := range 5 * submitterFailures().Burst {
		if _, err := l.Check(t.Context(), home, "app", secret); err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
	}
}
