package account

import (
	"fmt"
	"strings"

	"github.com/pawl-mail/pawl/internal/resolve"
	"github.com/pawl-mail/pawl/internal/smtp"
)

const (
	maxName    = 128
	maxSenders = 1000
)

// AnySender allows every address in MAIL FROM.
const AnySender = "*"

// submitterName is a name as it is stored, or [ErrSubmitter].
func submitterName(name string) (string, error) {
	name = strings.ToLower(name)
	ok := name != "" && len(name) <= maxName && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._+-@") == ""
	if !ok {
		return "", fmt.Errorf("%w: the name %q; a name has letters, digits and . _ + - @, %d at most", ErrSubmitter, name, maxName)
	}
	return name, nil
}

// senders are the addresses and domains as they are stored, domains in A-labels.
func senders(list []string) ([]string, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: nothing may stand in its MAIL FROM; name addresses or domains, or %s for any", ErrSubmitter, AnySender)
	}
	if len(list) > maxSenders {
		return nil, fmt.Errorf("%w: more than %d addresses and domains", ErrSubmitter, maxSenders)
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		one, err := sender(s)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func sender(s string) (string, error) {
	if s == AnySender {
		return s, nil
	}
	local, domain := "", strings.TrimPrefix(s, "@")
	if at := strings.LastIndexByte(domain, '@'); at >= 0 {
		path, err := smtp.ParseMailbox(s, true)
		if err != nil {
			return "", fmt.Errorf("%w: the sender %q: %w", ErrSubmitter, s, err)
		}
		local, domain = path.Local+"@", path.Domain
	}
	ascii, err := resolve.Name(domain)
	if err != nil {
		return "", fmt.Errorf("%w: the sender %q is neither an address nor a domain", ErrSubmitter, s)
	}
	return local + ascii, nil
}
