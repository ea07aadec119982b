package smtp

import "fmt"

// Error is a reply of 4yz or 5yz as an error. Where a callback may answer with
// one, the client is told exactly this.
type Error struct {
	Code     int
	Enhanced Enhanced
	Text     string // one line
}

// Errorf returns an [*Error] with a formatted text.
func Errorf(code int, enhanced Enhanced, format string, args ...any) *Error {
	return &Error{Code: code, Enhanced: enhanced, Text: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.Reply().String() }

// Temporary reports whether the same may be tried again later (4yz).
func (e *Error) Temporary() bool { return e.Code/100 == 4 }

// Reply returns the error as the reply that it is.
func (e *Error) Reply() Reply {
	if e.Text == "" {
		return Reply{Code: e.Code, Enhanced: e.Enhanced}
	}
	return Reply{Code: e.Code, Enhanced: e.Enhanced, Lines: []string{e.Text}}
}
