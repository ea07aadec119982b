package db

import (
	"fmt"
	"time"
)

// commit makes the batch durable and tells everybody in it.
func (w *writer) commit() {
	if len(w.ran) == 0 {
		w.reset(nil)
		return
	}
	start := time.Now()
	if err := w.engine.commit(w.session); err != nil {
		w.commitFailed(err)
		return
	}
	w.stats.commit(len(w.ran), time.Since(start))
	w.session.trim(w.limits.statements)
	w.told, w.ran = w.ran, nil
	w.tell()
}

// tell tells those whose work is committed, each once.
func (w *writer) tell() {
	for len(w.told) > 0 {
		r := w.told[0]
		w.told = w.told[1:]
		w.finish(r, nil)
	}
}

// commitFailed tells apart: not committed and worth another run, not committed,
// and not known.
func (w *writer) commitFailed(err error) {
	w.note(err)
	ran := w.ran
	w.ran = nil
	unknown := w.engine.unknown(w.session, err)
	lost := w.engine.lost(w.session, err)
	again := w.engine.again(err)
	separate := len(ran) > 1 && w.engine.separate(err)
	w.reset(err)
	switch {
	case unknown:
		err = fmt.Errorf("%w: %w", ErrUnknownOutcome, named(w.engine, err))
		for _, r := range ran {
			w.fail(r, err)
		}
	case lost, again, separate:
		w.repeat(ran, err, !lost)
	default:
		for _, r := range ran {
			w.fail(r, named(w.engine, err))
		}
	}
}
