package lm

import (
	"context"
	"sync"
	"time"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Batch takes texts that are generated at the same time through a model together, a token of
// each in one call, so that weights are read once for all of them: continuous batching, as
// texts come and go at any token. Each has the bits that it has alone. Those that wait go in the
// order in which they came. It is for GenerateConfig.Batch, and safe for concurrent use; it has no
// goroutine of its own, for one of those that wait runs the call of all.
type Batch struct {
	m    *Model
	most int

	mu      sync.Mutex
	waiting []*seat // in the order they came
	led     bool    // one of them runs a call, or is about to
	texts   int     // that are generated
	came    chan struct{}

	// Of the one that runs a call.
	took  time.Duration // by the last
	timer *time.Timer
	seats []*seat
	call  Call
	memo  []float32
}

// seat is a text of a Batch.
type seat struct {
	token  int32
	state  *State
	logits []float32
	joined bool
	told   chan outcome // of which one fits
}

// outcome is what a text that waits is told: that it is to lead, or how its token went.
type outcome struct {
	lead bool
	err  error
}

// mostSeats bounds the texts of a call: they go through the layers together.
const mostSeats = pieceTokens

// NewBatch returns a Batch of at most so many texts in a call. Errors match ErrConfig, or ErrCall
// where the model cannot go on from a state.
func (m *Model) NewBatch(most int) (*Batch, error) {
	switch {
	case !m.streams:
		return nil, check.Errorf(subquad.ErrCall, "%s: the model cannot go on from a state", m.cfg.Package)
	case most < 1 || most > mostSeats:
		return nil, check.Errorf(subquad.ErrConfig, "%s: a batch of %d texts, want 1 to %d", m.cfg.Package, most, mostSeats)
	}
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &Batch{m: m, most: most, came: make(chan struct{}, 1), timer: t}, nil
}

// Texts returns how many texts are generated together now, those that wait for a call and those
// that are in one.
func (b *Batch) Texts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.texts
}

// take runs a call of a text: of a token with others, and of several by itself.
func (b *Batch) take(ctx context.Context, call *Call, s *seat) error {
	if len(call.Tokens) != 1 || call.Tokens[0] < 0 || int(call.Tokens[0]) >= b.m.vocab {
		return b.m.Run(ctx, call) // which may say what is wrong with it
	}
	s.token = call.Tokens[0]
	return b.step(ctx, s)
}

// step takes a text's next token through the model.
func (b *Batch) step(ctx context.Context, s *seat) error {
	if err := check.Call(b.m.cfg.Package, ctx, true); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	if !s.joined {
		s.joined = true
		b.texts++
	}
	b.waiting = append(b.waiting, s)
	lead := !b.led
	b.led = true
	b.mu.Unlock()
	b.tell()
	if lead {
		return b.lead(ctx, s)
	}
	select {
	case o := <-s.told:
		if o.lead {
			return b.lead(ctx, s)
		}
		return o.err
	case <-ctx.Done():
	}
	b.mu.Lock()
	gone := b.remove(s)
	b.mu.Unlock()
	if gone {
		// It may have been told to lead by then.
		select {
		case <-s.told:
			b.pass()
		default:
		}
		return ctx.Err()
	}
	if o := <-s.told; o.lead { // it is in a call, which does not end for one of many
		return b.lead(ctx, s)
	} else if o.err != nil {
		return o.err
	}
	return ctx.Err()
}

// tell wakes the one that waits for others to come.
func (b *Batch) tell() {
	select {
	case b.came <- struct{}{}:
	default:
	}
}

// remove takes a text out of those that wait, and returns whether it was there.
func (b *Batch) remove(s *seat) bool {
	for i, x := range b.waiting {
		if x == s {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// pass lets the first of those that wait lead.
func (b *Batch) pass() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.led = len(b.waiting) > 0; b.led {
		b.waiting[0].told <- outcome{lead: true}
	}
}

// leave ends a text.
func (b *Batch) leave(s *seat) {
	b.mu.Lock()
	if s.joined {
		s.joined = false
		b.texts--
	}
	b.mu.Unlock()
	b.tell()
}

// lead runs a call of those that wait, s among them, which is the first. A call of several does not
// end where one of them is given up.
func (b *Batch) lead(ctx context.Context, s *seat) (own error) {
	b.gather()
	b.mu.Lock()
	n := min(len(b.waiting), b.most)
	b.seats = append(b.seats[:0], b.waiting[:n]...)
	b.waiting = append(b.waiting[:0], b.waiting[n:]...)
	b.mu.Unlock()
	begun := time.Now()
	if n > 1 {
		ctx = context.Background()
	}
	err := b.run(ctx, b.seats)
	b.took = time.Since(begun)
	for i, x := range b.seats {
		each := err
		if err != nil && n > 1 {
			each = b.run(ctx, b.seats[i:i+1]) // what is wrong with one is nothing to the others
		}
		if x == s {
			own = each
			continue
		}
		x.told <- outcome{err: each}
	}
	clear(b.seats)
	b.pass()
	return own
}

// gather waits for texts that are on their way, an eighth of what a call takes at the most.
func (b *Batch) gather() {
	for first := true; ; first = false {
		b.mu.Lock()
		all := len(b.waiting) >= min(b.most, b.texts)
		b.mu.Unlock()
		if all {
			break
		}
		if first {
			b.timer.Reset(b.took / 8)
		}
		select {
		case <-b.came:
			continue
		case <-b.timer.C:
		}
		break
	}
	b.timer.Stop()
}

// run takes a token of each text through the model, in one call.
func (b *Batch) run(ctx context.Context, seats []*seat) error {
	v := b.m.vocab
	if len(b.memo) < len(seats)*v {
		b.memo = make([]float32, len(seats)*v)
	}
	b.call.Tokens, b.call.States = b.call.Tokens[:0], b.call.States[:0]
	for _, s := range seats {
		b.call.Tokens, b.call.States = append(b.call.Tokens, s.token), append(b.call.States, s.state)
	}
	b.call.Logits = mat.Of(b.memo, len(seats), v)
	err := b.m.Run(ctx, &b.call)
	if err == nil {
		for i, s := range seats {
			copy(s.logits, b.memo[i*v:][:v])
		}
	}
	clear(b.call.States)
	return err
}
