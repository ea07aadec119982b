package web

import (
	"os"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// TestPictures writes pictures of all pages, for a person to look at, into the
// folder that PAWL_PICTURES names.
func TestPictures(t *testing.T) {
	dir := os.Getenv("PAWL_PICTURES")
	if dir == "" {
		t.Skip("PAWL_PICTURES names no folder")
	}
	b := newBrowser(t)
	attacked, plainServer := busy(), busy()
	attacked.lab.On = true
	held := "/message/" + busy().overview.Held[0].ID
	empty := quiet()
	empty.lab = demoLab()
	for _, s := range []struct {
		name, path  string
		f           *fake
		dark, phone bool
	}{
		{"busy", "/", plainServer, false, false},
		{"busy-dark", "/", attacked, true, false},
		{"busy-phone", "/", attacked, false, true},
		{"quiet", "/", empty, false, false},
		{"quiet-phone-dark", "/", empty, true, true},
		{"destination", "/destination/bank.example.com", plainServer, false, false},
		{"destination-dark", "/destination/bank.example.com", plainServer, true, false},
		{"destination-phone", "/destination/bank.example.com", plainServer, false, true},
		{"long", "/destination/" + longName, plainServer, false, true},
		{"message", held, plainServer, false, false},
		{"message-phone-dark", held, plainServer, true, true},
		{"done", "/message/done", plainServer, true, false},
		{"missing", "/nowhere", plainServer, false, false},
	} {
		t.Run(s.name, func(t *testing.T) {
			p := b.open(t, s.f)
			width, scheme := int64(1280), "light"
			if s.phone {
				width = 390
			}
			if s.dark {
				scheme = "dark"
			}
			p.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
				emulation.SetDeviceMetricsOverride(width, 900, 1, s.phone))
			p.goTo(s.path)
			if over := js[int](p, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
				t.Errorf("the page is %d px wider than the window", over)
			}
			var png []byte
			p.run(chromedp.FullScreenshot(&png, 100))
			if err := os.WriteFile(shotFile(dir, s.name), png, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}
