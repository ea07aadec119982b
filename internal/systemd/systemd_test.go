package systemd

import (
	"net"
	"path/filepath"
	"regexp"
	"testing"
)

func TestTheServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv(socketVariable, path)
	for _, tc := range []struct {
		said []string
		want string
	}{
		{[]string{Ready, Status("two\nlines")}, `^READY=1\nSTATUS=two lines$`},
		{[]string{Reloading()}, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`},
		{[]string{Stopping}, `^STOPPING=1$`},
	} {
		if err := Notify(tc.said...); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 200)
		n, err := manager.Read(got)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(tc.want).Match(got[:n]) {
			t.Errorf("the manager heard %q, want %s", got[:n], tc.want)
		}
	}
}

func TestWithoutAServiceManagerNothingIsSaid(t *testing.T) {
	t.Setenv(socketVariable, "")
	if err := Notify(Ready); err != nil {
		t.Error(err)
	}
	t.Setenv(socketVariable, filepath.Join(t.TempDir(), "nobody"))
	if err := Notify(Ready); err == nil {
		t.Error("a manager that is not there was told")
	}
}
