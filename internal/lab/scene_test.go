package lab

import "testing"

func TestANoticeOfADelayIsNoBounce(t *testing.T) {
	for text, want := range map[string]bool{
		"Subject: Returned mail\n\nIt could not be delivered.\n":                                  false,
		"Final-Recipient: rfc822; a@b.test\nAction: failed\nStatus: 5.1.1\n":                      false,
		"Final-Recipient: rfc822; a@b.test\r\naction: Delayed\r\nStatus: 4.0.0\r\n":               true,
		"Action: relayed\n\nAction: failed\n":                                                     false,
		"Action: relayed (to a system that sends no notifications)\nFinal-Recipient: rfc822; c\n": true,
	} {
		if waits := !failed([]byte(text)); waits != want {
			t.Errorf("%q: still waits: %t, want %t", text, waits, want)
		}
	}
}
