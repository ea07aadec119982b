package lab

import (
	"slices"
	"testing"
)

// drawn are the arrows of a drawing, as "sender>mx.a.test EHLO", with "!" before
// what is the attacker's.
func drawn(x Exchange) []string {
	d := draw(x)
	name := func(x int) string {
		i := slices.IndexFunc(d.Lanes, func(l lane) bool { return l.X == x })
		return d.Lanes[i].Name
	}
	var list []string
	for _, a := range d.Arrows {
		text := name(a.From) + ">" + name(a.To) + " " + a.Full
		if a.Hostile {
			text = "!" + text
		}
		list = append(list, text)
	}
	return list
}

func TestWhatTheAttackerLetsThroughIsDrawnPastHim(t *testing.T) {
	for name, c := range map[string]struct {
		exchange Exchange
		want     []string
	}{
		"a reply changed": {
			Exchange{Via: []string{"strip-starttls"}, Lines: []Line{
				{From: "mx.a.test", To: "attacker", Text: "220"},
				{From: "attacker", To: "mx.a.test", Text: "EHLO"},
				{From: "mx.a.test", To: "attacker", Text: "250-A"},
				{From: "mx.a.test", To: "attacker", Text: "250 STARTTLS"},
				{From: "attacker", To: "sender", Text: "250 A"},
				{From: "attacker", To: "mx.a.test", Text: "QUIT"},
				{From: "mx.a.test", To: "attacker", Text: "221"},
			}},
			[]string{"mx.a.test>sender 220", "sender>mx.a.test EHLO", "mx.a.test>attacker 250-A", "mx.a.test>attacker 250 STARTTLS", "!attacker>sender 250 A", "sender>mx.a.test QUIT", "mx.a.test>sender 221"},
		},
		"a command answered in the host's place": {
			Exchange{Via: []string{"starttls-454"}, Lines: []Line{
				{From: "mx.a.test", To: "attacker", Text: "250 STARTTLS"},
				{From: "sender", To: "attacker", Text: "STARTTLS"},
				{From: "attacker", To: "sender", Text: "454"},
				{From: "attacker", To: "mx.a.test", Text: "MAIL"},
			}},
			[]string{"mx.a.test>sender 250 STARTTLS", "sender>attacker STARTTLS", "!attacker>sender 454", "sender>mx.a.test MAIL"},
		},
		"commands of the attacker's own": {
			Exchange{Lines: []Line{{From: "client", To: "server", Text: "STARTTLS"}, {From: "attacker", To: "server", Text: "MAIL"}, {From: "server", To: "client", Text: "554"}}},
			[]string{"client>server STARTTLS", "!attacker>server MAIL", "server>client 554"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := drawn(c.exchange); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}
