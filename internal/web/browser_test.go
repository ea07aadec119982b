package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browserTimeout is how long one test may keep the browser.
const browserTimeout = 2 * time.Minute

// browser is a Chromium that runs for one test function; each subtest has a tab.
type browser struct {
	ctx context.Context
}

// tab is a page in it, with what it complained about and whom it asked.
type tab struct {
	*testing.T
	ctx  context.Context
	base string

	mu         sync.Mutex
	complaints []string
	requests   []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is not installed")
		}
		t.Skip("chromium is not installed")
	}
	if testing.Short() {
		t.Skip("a browser is slow")
	}
	alloc, stopAlloc := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WSURLReadTimeout(time.Minute))...)
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("ending the browser: %v", err)
		}
		stop()
		stopAlloc()
	})
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	return &browser{ctx}
}

// open serves the source and opens a tab for it.
func (b *browser) open(t *testing.T, f *fake) *tab {
	t.Helper()
	srv := httptest.NewServer(New(f.options()))
	ctx, closeTab := chromedp.NewContext(b.ctx)
	ctx, cancel := context.WithTimeout(ctx, browserTimeout)
	p := &tab{T: t, ctx: ctx, base: srv.URL}
	t.Cleanup(func() {
		cancel()
		closeTab()
		srv.Close()
	})
	chromedp.ListenTarget(ctx, p.note)
	// A page asks for nothing while nobody looks at it: this tab is looked at.
	p.run(network.Enable(), log.Enable(), runtime.Enable(), page.BringToFront())
	return p
}

// note takes down what the page complains about, and whom it asks.
func (p *tab) note(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, ev.Request.URL)
	case *log.EventEntryAdded:
		p.complaints = append(p.complaints, ev.Entry.Text+" "+ev.Entry.URL)
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, ev.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.APITypeError || ev.Type == runtime.APITypeWarning {
			for _, a := range ev.Args {
				p.complaints = append(p.complaints, string(a.Value))
			}
		}
	}
}

// clean reports what the page complained about and whoever else it asked.
func (p *tab) clean() {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.complaints {
		p.Errorf("the console says: %s", c)
	}
	if len(p.requests) == 0 {
		p.Error("the page asked for nothing")
	}
	for _, r := range p.requests {
		if !strings.HasPrefix(r, p.base+"/") && !strings.HasPrefix(r, "data:") {
			p.Errorf("the page asked elsewhere: %s", r)
		}
	}
}

func (p *tab) asked(prefix string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, r := range p.requests {
		if strings.HasPrefix(r, p.base+prefix) {
			n++
		}
	}
	return n
}

func (p *tab) run(actions ...chromedp.Action) {
	p.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.Fatal(err)
	}
}

func (p *tab) goTo(path string) {
	p.Helper()
	p.run(chromedp.Navigate(p.base + path))
}

// js evaluates an expression in the page.
func js[T any](p *tab, expression string) T {
	p.Helper()
	var value T
	p.run(chromedp.Evaluate(expression, &value))
	return value
}

// until waits for an expression to be true.
func (p *tab) until(expression string) {
	p.Helper()
	if err := chromedp.Run(p.ctx, chromedp.Poll(expression, nil, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second))); err != nil {
		p.Fatalf("waiting for %s: %v", expression, err)
	}
}

var _ http.Handler = assets(nil)

func shotFile(dir, name string) string { return filepath.Join(dir, name+".png") }
