package web

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// fake is a Source and a Lab that shows what a test puts in.
type fake struct {
	mu           sync.Mutex
	overview     Overview
	destinations map[string]DestinationPage
	messages     map[string]MessagePage
	err          error
	asked        int // calls of Overview

	lab    LabState
	labErr error
}

func (f *fake) Overview(context.Context) (Overview, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.overview, f.err
}

func (f *fake) Destination(_ context.Context, domain string) (DestinationPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.destinations[domain]
	if !ok {
		return d, ErrNotFound
	}
	return d, nil
}

func (f *fake) Message(_ context.Context, id string) (MessagePage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.messages[id]
	if !ok {
		return m, ErrNotFound
	}
	return m, nil
}

func (f *fake) Attack(context.Context) (LabState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lab, f.labErr
}

func (f *fake) SetAttack(_ context.Context, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lab.On = on
	return f.labErr
}

// change lets a test alter what is shown while it is served.
func (f *fake) change(alter func(f *fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	alter(f)
}

func (f *fake) questions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// options are those of a page in the demo, with a clock at which every answer
// is already too old to be given twice.
func (f *fake) options() Options {
	var mu sync.Mutex
	clock := noon
	return Options{
		Source: f, Lab: f, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "pawl_up 1") }),
		Ready:   func() error { return nil },
		Now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			clock = clock.Add(keptFor)
			return clock
		},
	}
}
