package web

import (
	"errors"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestInABrowser opens the pages in Chromium, as a reader does.
func TestInABrowser(t *testing.T) {
	b := newBrowser(t)
	for _, tt := range []struct {
		name string
		test func(t *testing.T, b *browser)
	}{
		{"every page is clean in every dress", everyPageInEveryDress},
		{"the page renews itself and leaves the reader where they were", renewsItself},
		{"the page says when it is cut off", saysWhenCutOff},
		{"a message's page stops asking when the message has ended", stopsAsking},
		{"everything can be read and done without script", withoutScript},
		{"the switch works without leaving the page", switchInPlace},
		{"the keyboard reaches everything", byKeyboard},
		{"the theme that was chosen stays chosen", themeStays},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, b) })
	}
}

// dress is how a page is looked at.
type dress struct {
	name, scheme string
	width        int64
}

var dresses = []dress{{"light", "light", 1280}, {"dark", "dark", 1280}, {"phone", "light", 390}, {"small phone", "dark", 320}}

func (p *tab) wear(d dress) {
	p.Helper()
	p.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: d.scheme}}),
		emulation.SetDeviceMetricsOverride(d.width, 900, 1, d.width < 600))
}

func everyPageInEveryDress(t *testing.T, b *browser) {
	f := busy()
	f.lab.On = true
	for _, d := range dresses {
		t.Run(d.name, func(t *testing.T) {
			p := b.open(t, f)
			p.wear(d)
			for _, path := range []string{"/", "/destination/bank.example.com", "/destination/" + longName, "/message/" + f.overview.Held[0].ID, "/message/done"} {
				p.goTo(path)
				p.run(chromedp.Evaluate(`document.querySelectorAll("details").forEach((d) => d.open = true)`, nil))
				if over := js[int](p, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
					p.Errorf("%s is %d px wider than the window", path, over)
				}
				if found := js[string](p, lowContrast); found != "" {
					p.Errorf("%s is too faint to read:\n%s", path, found)
				}
				if n := js[int](p, `document.querySelectorAll("h1").length`); n != 1 {
					p.Errorf("%s has %d headings of the first order, want 1", path, n)
				}
			}
			p.clean()
		})
	}
}

func renewsItself(t *testing.T, b *browser) {
	f := busy()
	p := b.open(t, f)
	p.goTo("/")
	p.until(`document.getElementById("fresh").dataset.state === "live"`)
	p.run(chromedp.Evaluate(`window.stayed = true; document.getElementById("more-destinations").open = true; scrollTo(0, 700)`, nil),
		chromedp.Evaluate(`const l = document.querySelector("#held a"); window.focused = l; l.focus({preventScroll: true})`, nil))
	before := js[int](p, "scrollY")
	f.change(func(f *fake) {
		f.overview.Totals.Held = 18
		f.overview.Held[4].Why = "mx.slow.example.org took too long"
	})
	p.until(`document.querySelector("h1").textContent.startsWith("18 ")`)
	p.until(`document.getElementById("held").textContent.includes("took too long")`)
	if at := js[int](p, "scrollY"); at != before {
		p.Errorf("the page scrolled from %d to %d", before, at)
	}
	if !js[bool](p, `document.activeElement === window.focused`) {
		p.Error("the focus was lost")
	}
	if !js[bool](p, `document.getElementById("more-destinations").open`) {
		p.Error("what the reader opened was closed")
	}
	if !js[bool](p, "window.stayed === true") {
		p.Error("the whole page was loaded anew")
	}
	p.clean()
}

func saysWhenCutOff(t *testing.T, b *browser) {
	f := busy()
	p := b.open(t, f)
	p.goTo("/")
	p.until(`document.getElementById("fresh").dataset.state === "live"`)
	f.change(func(f *fake) { f.err = errors.New("the database is gone") })
	p.until(`document.getElementById("fresh").textContent.includes("pawl answers with an error")`)
	if !js[bool](p, `document.querySelector("h1").textContent.startsWith("17 ")`) {
		p.Error("what was known is not shown any more")
	}
	f.change(func(f *fake) { f.err = nil })
	p.until(`document.getElementById("fresh").dataset.state === "live"`)
}

func stopsAsking(t *testing.T, b *browser) {
	f := busy()
	id := f.overview.Held[0].ID
	p := b.open(t, f)
	p.goTo("/message/" + id)
	f.change(func(f *fake) {
		m := f.messages[id]
		m.State = "delivered"
		f.messages[id] = m
	})
	p.until(`document.getElementById("state-title").textContent === "Delivered"`)
	p.until(`document.getElementById("live").getAttribute("hx-trigger") === "refresh"`)
	p.clean()
	p.goTo("/message/done")
	p.until(`document.getElementById("fresh").dataset.state === "live"`)
	if n := p.asked("/live/message/done"); n != 0 {
		p.Errorf("the page of a message that has ended asked %d times", n)
	}
}

func withoutScript(t *testing.T, b *browser) {
	f := busy()
	p := b.open(t, f)
	p.run(emulation.SetScriptExecutionDisabled(true))
	p.goTo("/")
	reads := func(selector, want string) {
		t.Helper()
		var got string
		p.run(chromedp.Text(selector, &got, chromedp.ByQuery))
		if !strings.Contains(got, want) {
			t.Errorf("%s reads %q, want %q in it", selector, got, want)
		}
	}
	reads("h1", "17 messages are held back")
	reads("#fresh", "as of 12:00:00 UTC")
	p.run(chromedp.Click("#attack"), chromedp.WaitVisible("#attack.safe"))
	reads(".lab .badge", "attacking four domains")
	p.run(chromedp.Click("#more-held summary"), chromedp.WaitVisible("#more-held table"))
	p.run(chromedp.SendKeys("#look", "bank.example.com"+kb.Enter), chromedp.WaitVisible("#steps-title"))
	reads("h1", "bank.example.com")
	p.run(chromedp.Click("table.held a"), chromedp.WaitVisible("#attempts-title"))
	reads("h1", "Mail to bank.example.com")
	p.clean()
	if n := p.asked("/live"); n != 0 {
		t.Errorf("without script the page asked for live parts %d times", n)
	}
}

func switchInPlace(t *testing.T, b *browser) {
	f := busy()
	p := b.open(t, f)
	p.goTo("/")
	p.until("window.htmx !== undefined")
	p.run(chromedp.Evaluate("window.stayed = true", nil), chromedp.Click("#attack"), chromedp.WaitVisible("#attack.safe"))
	f.change(func(f *fake) {
		if !f.lab.On {
			t.Error("the attack is not on")
		}
	})
	if !js[bool](p, `window.stayed === true && location.pathname === "/"`) {
		p.Error("the reader was sent away from the page")
	}
	p.run(chromedp.Click("#attack"), chromedp.WaitVisible("#attack.danger"))
	p.clean()
}

func byKeyboard(t *testing.T, b *browser) {
	f := busy()
	p := b.open(t, f)
	p.goTo("/")
	p.until("window.htmx !== undefined")
	p.run(chromedp.KeyEvent(kb.Tab))
	if !js[bool](p, `document.activeElement.className === "skip"`) {
		p.Fatal("the first stop is not the way past the masthead")
	}
	p.run(chromedp.KeyEvent(kb.Enter))
	p.until(`document.activeElement.id === "main"`)
	p.run(chromedp.KeyEvent(kb.Tab)) // the notice's link
	p.run(chromedp.KeyEvent(kb.Tab))
	if !js[bool](p, `document.activeElement.id === "attack" && getComputedStyle(document.activeElement).outlineStyle !== "none"`) {
		p.Fatal("the switch is not the next stop, or does not show that it is")
	}
	p.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("#attack.safe"))
	if !js[bool](p, `document.activeElement.id === "attack"`) {
		p.Error("the focus left the switch")
	}
	// What can be pressed can be reached, and has a name.
	const mute = `[...document.querySelectorAll("a, button, input, summary")].filter((e) =>
		e.tabIndex < 0 || !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length)).map((e) => e.outerHTML).join(" ")`
	if said := js[string](p, mute); said != "" {
		p.Errorf("not reachable, or without a name: %s", said)
	}
	p.clean()
}

func themeStays(t *testing.T, b *browser) {
	p := b.open(t, busy())
	p.wear(dresses[0])
	p.goTo("/")
	ground := `getComputedStyle(document.body).backgroundColor`
	light := js[string](p, ground)
	p.run(chromedp.Click("#theme"))
	dark := js[string](p, ground)
	if dark == light {
		p.Errorf("the button changed nothing: %s", dark)
	}
	p.goTo("/destination/bank.example.com")
	if got := js[string](p, ground); got != dark {
		p.Errorf("the next page has %s, want %s", got, dark)
	}
	p.clean()
}

// lowContrast lists the texts of a page that have less than 4.5 to 1 against
// their ground (WCAG 2.2, 1.4.3).
const lowContrast = `(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
  const found = new Set();
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.add(e.tagName + "." + e.className + " " + ratio.toFixed(2) + ": " + e.textContent.trim().slice(0, 30));
  }
  return [...found].join("\n");
})()`
