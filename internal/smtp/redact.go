package smtp

import "strings"

// Redact puts a star in the place of every local part in a text: "RCPT
// TO:<*@example.com>". What stands before an @ counts as one, be it an address
// or not; a mailbox that is named without its domain is not found.
func Redact(text string) string {
	end := ""
	for {
		at := strings.LastIndexByte(text, '@')
		if at < 0 {
			return text + end
		}
		start := localBefore(text[:at])
		if start < at {
			end = "*" + text[at:] + end
		} else {
			end = text[at:] + end
		}
		text = text[:start]
	}
}

// localBefore is where the local part at a text's end begins: a Quoted-string (RFC
// 5321 §4.1.2) with what is glued to its front, or what has no delimiter in it.
func localBefore(s string) int {
	i := len(s)
	if strings.HasSuffix(s, `"`) {
		for q := len(s) - 2; q >= 0; q-- {
			if s[q] == '"' && !escaped(s[:q]) {
				i = q
				break
			}
		}
	}
	for i > 0 && !strings.ContainsRune(" \t\r\n<>()[],;:@", rune(s[i-1])) {
		i--
	}
	return i
}

// escaped reports whether what follows a text has a backslash of its own.
func escaped(s string) bool {
	n := len(s) - len(strings.TrimRight(s, `\`))
	return n%2 == 1
}
