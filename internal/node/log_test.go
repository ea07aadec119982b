package node

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/pawl-mail/pawl/internal/config"
)

func TestARedactedLogNamesNoMailbox(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log := slog.New(logHandler(config.Log{Format: format, Redact: true}, slog.LevelInfo, &out))
		log.With("from", "ann@a.test").Info("for bob@b.test", "err", errors.New("550 cid@c.test"), "all", []string{"dan@d.test"}, "n", 5)
		for _, name := range []string{"ann", "bob", "cid", "dan"} {
			if strings.Contains(out.String(), name) {
				t.Errorf("%s stands in %s", name, out.String())
			}
		}
		if !strings.Contains(out.String(), "*@a.test") || !strings.Contains(out.String(), "*@c.test") {
			t.Error(out.String())
		}
	}
}
