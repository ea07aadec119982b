package policy

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pawl-mail/pawl/internal/db/dbtest"
	"github.com/pawl-mail/pawl/mtasts"
)

// snapshot exports all that w has cached.
func (w *world) snapshot() string {
	w.Helper()
	var out bytes.Buffer
	if _, err := w.Export(w.Context(), &out); err != nil {
		w.Fatal(err)
	}
	return out.String()
}

func (w *world) key() string {
	w.Helper()
	key, err := w.SnapshotKey(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return key
}

func TestASnapshotSeedsAnotherNode(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("a.example", "one", week("mx.a.example", "*.b.example"))
		w.publish("b.example", "two", policyText("testing", "86400", "mx.b.example"))
		w.publish("c.example", "three", policyText("none", "86400"))
		for _, domain := range []string{"a.example", "b.example", "c.example", "d.example"} {
			w.sts(domain)
		}
		text := w.snapshot()

		other := newWorld(w.T, dbtest.SQLite(w.T), Options{})
		got, err := other.Import(w.Context(), strings.NewReader(text), w.key())
		if err != nil || got != (Imported{Taken: 2}) {
			w.Fatalf("got %+v, %v", got, err)
		}
		other.dns.fail("TXT _mta-sts.a.example") // DNS is blocked there at first contact
		d := other.want("a.example", "enforce", "1/not-asked/not-asked/live")
		if mine := w.sts("a.example"); d.STS.ID != "one" || !d.STS.Expires.Equal(mine.STS.Expires) || !d.STS.Policy.Equal(mine.STS.Policy) {
			w.Errorf("got %+v", d.STS)
		}
		other.want("b.example", "testing", "1/not-asked/not-asked/live")
	})
}

func TestAnImportNeverWeakensWhatIsCached(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		giver := newWorld(w.T, dbtest.SQLite(w.T), Options{})
		taker := newWorld(w.T, dbtest.SQLite(w.T), Options{})
		for domain, c := range map[string]struct{ cached, imported string }{
			"mode.example":  {week("mx.example"), policyText("testing", "604800", "mx.example")},
			"age.example":   {week("mx.example"), policyText("enforce", "604000", "mx.example")},
			"mx.example":    {week("mx.example"), week("mx.example", "other.example")},
			"same.example":  {week("mx.example"), week("mx.example")},
			"up.example":    {policyText("testing", "604800", "mx.example"), week("mx.example")},
			"new.example":   {"", week("mx.example")},
			"fewer.example": {week("mx.example", "other.example"), week("mx.example")},
		} {
			if c.cached != "" {
				taker.publish(domain, "cached", c.cached)
				taker.sts(domain)
			}
			giver.publish(domain, "imported", c.imported)
		}
		w.pass(time.Minute)
		for domain := range giver.web.texts {
			giver.sts(domain)
		}
		got, err := taker.Import(w.Context(), strings.NewReader(giver.snapshot()), giver.key())
		if err != nil || got != (Imported{Taken: 4, Kept: 3}) {
			w.Errorf("got %+v, %v", got, err)
		}
		for domain, id := range map[string]string{
			"mode.example": "cached", "age.example": "cached", "mx.example": "cached",
			"same.example": "imported", "up.example": "imported", "new.example": "imported", "fewer.example": "imported",
		} {
			d := taker.sts(domain)
			if d.STS.ID != id || d.STS.Policy.Mode != mtasts.Enforce {
				w.Errorf("%s: got %s %s", domain, d.STS.ID, d.STS.Policy.Mode)
			}
		}
		// An older one never takes the place of a newer one.
		again, err := giver.Import(w.Context(), strings.NewReader(taker.snapshot()), taker.key())
		if err != nil || again.Taken != 0 {
			w.Errorf("got %+v, %v", again, err)
		}
	})
}

func TestASnapshotThatIsNotWholeOrNotTrustedIsNotTaken(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("a.example", "one", week("mx.a.example"))
		w.publish("b.example", "one", week("mx.b.example"))
		w.sts("a.example")
		w.sts("b.example")
		text := w.snapshot()
		lines := strings.SplitAfter(text, "\n")
		other := newWorld(w.T, dbtest.SQLite(w.T), Options{})
		for name, bad := range map[string]string{
			"nothing":          "",
			"something else":   "{}\n{}\n",
			"a changed policy": strings.Replace(text, "mx.a.example", "mx.z.example", 1),
			"a line less":      lines[0] + lines[1] + lines[3],
			"a line more":      lines[0] + lines[1] + lines[1] + lines[2] + lines[3],
			"lines exchanged":  lines[0] + lines[2] + lines[1] + lines[3],
			"no end":           lines[0] + lines[1] + lines[2],
			"cut short":        text[:len(text)/2],
			"a line after":     text + lines[1],
			"a later version":  strings.Replace(text, `"version":1`, `"version":2`, 1),
			"a long line":      lines[0] + strings.Repeat("x", maxSnapshotLine+1) + "\n" + lines[3],
		} {
			got, err := other.Import(w.Context(), strings.NewReader(bad), w.key())
			if !errors.Is(err, ErrSnapshot) || got != (Imported{}) {
				w.Errorf("%s: got %+v, %v", name, got, err)
			}
		}
		if _, err := other.Import(w.Context(), strings.NewReader(text)); !errors.Is(err, ErrSnapshot) {
			w.Errorf("a stranger's: %v", err)
		}
		if got, err := w.Import(w.Context(), strings.NewReader(text)); err != nil || got.Kept != 2 {
			w.Errorf("our own: %+v, %v", got, err)
		}
		if known, _, _ := other.Count(w.Context()); known != 0 {
			w.Errorf("%d domains were taken", known)
		}
	})
}

func TestAnImportedPolicyThatEndedMeanwhileIsLeft(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.publish("a.example", "one", week("mx.a.example"))
		w.sts("a.example")
		text := w.snapshot()
		w.pass(7 * 24 * time.Hour)
		other := newWorld(w.T, dbtest.SQLite(w.T), Options{})
		if got, err := other.Import(w.Context(), strings.NewReader(text), w.key()); err != nil || got != (Imported{Expired: 1}) {
			w.Errorf("got %+v, %v", got, err)
		}
	})
}

func FuzzImport(f *testing.F) {
	f.Add(`{"kind":"pawl policy snapshot","version":1,"key":"AAAA"}` + "\n{}\n")
	f.Add("")
	f.Add("{\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		w := closable(t)
		defer w.db.Close()
		defer w.Close(t.Context())
		if _, err := w.Import(t.Context(), strings.NewReader(text)); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
