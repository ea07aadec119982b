package lab

import "context"

// trial is one cell being run with pawl's relay as the sender: its scene, its
// message, what was seen.
type trial struct {
	*Scene
	w      *world
	letter letter
	cell   Cell
}

// newTrial makes the cell's scene.
func (w *world) newTrial(a Attack, variant int, c Column) *trial {
	v := a.Variants[variant]
	t := &trial{w: w, Scene: NewScene(w.net, a, variant, c, v.Want(c), "")}
	t.letter = letter{from: t.From, to: t.To, requireTLS: c == RequireTLS, tlsOptional: v.Message == TLSOptional}
	t.cell = t.Cell()
	return t
}

// prime lets an honest message through, so that the policy is cached.
func (t *trial) prime() letter { return letter{from: t.PrimeFrom(), to: t.PrimeTo()} }

// state is where the message stands: what the receiving ends saw counts for
// more than what the relay says.
func (t *trial) state() Outcome {
	switch {
	case t.Leak() != "":
		return Leaked
	case t.Took() != "":
		return Delivered
	}
	tries := t.w.tries.at(t.letter.to)
	switch {
	case len(tries) == 0:
		return ""
	case tries[len(tries)-1].State == Delivered:
		return "lost" // the relay says so, and nobody has it
	}
	return tries[len(tries)-1].State
}

// rested reports whether the message has been tried.
func (t *trial) rested() bool {
	return t.state() != "" && len(t.w.tries.at(t.letter.to)) > 0
}

// told reports whether the sender of a message that bounced knows of it.
func (t *trial) told() bool { return t.state() != Bounced || len(t.Bounces()) > 0 }

// waiting reports whether the relay still has the message.
func (t *trial) waiting() bool {
	tries := t.w.tries.at(t.letter.to)
	return len(tries) == 0 || tries[len(tries)-1].State == Held
}

// sendAll sends each letter.
func (w *world) sendAll(ctx context.Context, letters []letter) error {
	for _, l := range letters {
		if err := w.send(ctx, l); err != nil {
			return err
		}
	}
	return nil
}
