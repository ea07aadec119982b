package web

import (
	"context"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// keptFor is for how long an answer of the Source serves all who ask: many
	// readers cost as much as one.
	keptFor = time.Second
	// askTimeout ends a question to the Source.
	askTimeout = 10 * time.Second
	// maxKept caps the answers that are kept at a time.
	maxKept = 256
)

// memo keeps the answers of the last second and lets only one reader at a time
// work one out; the others wait for it.
type memo[T any] struct {
	now    func() time.Time
	flight singleflight.Group

	mu   sync.Mutex
	turn int // answers of an earlier turn are not given to those who ask now
	kept map[string]kept[T]
}

type kept[T any] struct {
	value T
	at    time.Time
}

// get returns the answer to key. It is worked out in the name of all readers:
// one who leaves does not end it for the others.
func (m *memo[T]) get(ctx context.Context, key string, ask func(context.Context) (T, error)) (T, error) {
	value, turn, ok := m.lookup(key)
	if ok {
		return value, nil
	}
	made, err, _ := m.flight.Do(strconv.Itoa(turn)+" "+key, func() (any, error) {
		if value, _, ok := m.lookup(key); ok { // a flight that ended in between
			return value, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		value, err := ask(ctx)
		if err == nil {
			m.keep(key, turn, value)
		}
		return value, err
	})
	value, _ = made.(T)
	return value, err
}

func (m *memo[T]) lookup(key string) (value T, turn int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.kept[key]
	if age := m.now().Sub(k.at); ok && age >= 0 && age < keptFor {
		return k.value, m.turn, true
	}
	return value, m.turn, false
}

func (m *memo[T]) keep(key string, turn int, value T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if turn != m.turn {
		return
	}
	now := m.now()
	if len(m.kept) >= maxKept {
		for k, v := range m.kept {
			if now.Sub(v.at) >= keptFor {
				delete(m.kept, k)
			}
		}
	}
	if m.kept == nil {
		m.kept = make(map[string]kept[T])
	}
	if len(m.kept) < maxKept {
		m.kept[key] = kept[T]{value, now}
	}
}

// forget makes the next reader ask anew, also where an answer is being worked out.
func (m *memo[T]) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn++
	clear(m.kept)
}
