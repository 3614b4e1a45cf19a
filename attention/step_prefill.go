package attention

import (
	"context"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/rope"
)

// prefillQueries is from how many queries of a state Forward's tiles are faster than those
// of decoding.
const prefillQueries = 16

// PrefillScratchBytes returns the working memory that Call.Prefill takes besides
// StepScratchBytes, for a step of that many new tokens of a state that then has as many as keys.
func (a *Attention) PrefillScratchBytes(tokens, keys int) int64 {
	if tokens < prefillQueries {
		return 0
	}
	return a.ScratchBytes(tokens, keys)
}

// TurnedScratchBytes returns the working memory that a step takes besides StepScratchBytes where
// the state is of Int8 and some of its rows stand turned (see StateConfig.Format): its queries
// and its sums a second time.
func (a *Attention) TurnedScratchBytes(tokens, keys int) int64 {
	cfg, sizes := &a.cfg, &a.sizes
	unit := a.stepTile.Unit()
	rows := int64(min(tokens, max(1, sizes.StepRows/cfg.Heads))) * int64(cfg.Heads)
	splits := int64(max(1, min(64, (keys+sizes.StepKeys-1)/sizes.StepKeys)))
	const rest = 1 << 10
	return 4*rows*(int64(whole(cfg.HeadDim, unit))+splits*int64(whole(cfg.ValueDim, unit))) + a.integerBytes(rows, parallel.Workers(cfg.Workers)) + rest
}

// prefill attends from the wave's queries of states that have many, and notes which.
func (d *stepRun) prefill(ctx context.Context) error {
	d.tiled = d.tiled[:0]
	for b := range d.states {
		first, window, ok := d.tileable(b)
		if d.tiled = append(d.tiled, ok); !ok {
			continue
		}
		if err := d.attendTiles(ctx, b, first, window); err != nil {
			return err
		}
	}
	return nil
}

// tileable tells whether the wave's queries of a state are for Forward's tiles, and what they see:
// the tokens from a position on, of a window.
func (d *stepRun) tileable(b int) (first, window int, ok bool) {
	c, cfg, s := &d.call, &d.op.cfg, d.states[b]
	switch {
	case !c.Prefill || d.taken[b] < prefillQueries || d.diagnosingStep():
		return
	case c.Tree != nil || c.Mask != nil || c.Bias != nil || c.Visible != nil || len(c.Extra) > 0 || c.Select != nil || c.Read != nil:
		return
	case cfg.Bias != nil || cfg.ReLU || s.list != nil || s.schedule != nil && s.cfg.Policy == rope.EachStep:
		return
	}
	if window = s.cfg.Window; window == 0 || cfg.Window > 0 && cfg.Window < window {
		window = cfg.Window
	}
	if first = s.first; window > 0 {
		first = max(first, d.firstQuery(b)-window+1)
	}
	// What a ring keeps for all queries stands before the window's tokens.
	if s.cfg.Keep > 0 && d.firstQuery(b)+d.taken[b] > window {
		return
	}
	return first, window, true
}

// firstQuery is the position of the wave's first query of a state.
func (d *stepRun) firstQuery(b int) int {
	if d.look {
		return d.states[b].n - d.taken[b]
	}
	return d.states[b].n
}

// attendTiles attends from the wave's queries of a state to its tokens from a position on.
func (d *stepRun) attendTiles(ctx context.Context, b, first, window int) error {
	a, s, r := d.op, d.states[b], &d.tiles
	from, n := d.offsets[b]+d.done[b], d.taken[b]
	at := d.firstQuery(b)
	q := mat.Rows(d.call.Q, from, from+n)
	if s.schedule != nil {
		var err error
		if q, err = d.rotated(&d.qRotated, s.rotation, q, at, at); err != nil {
			return err
		}
	}
	r.op, r.src, r.window = a, r.src[:0], window
	src := r.source(0)
	src.clear()
	src.spans = s.spans(src.spans, first, at+n)
	src.single[0], src.heads = s, a.cfg.KVHeads
	src.states = src.single[:]
	for _, x := range src.spans {
		src.starts = append(src.starts, src.rows)
		src.rows += x.n
	}
	src.offsets = append(src.offsets, 0, src.rows)
	r.qOffsets = append(r.qOffsets[:0], 0, n)
	d.firsts[0], d.firsts[1] = int64(at), int64(first)
	call := Call{
		Dst: mat.Rows(d.call.Dst, from, from+n), Q: q, Partial: d.call.Partial, Workers: d.call.Workers,
		QueryPos: d.firsts[:1], KeyPos: d.firsts[1:],
	}
	if d.lse.Rows > 0 {
		call.LSE = mat.Rows(d.lse, from, from+n)
	}
	defer r.dropCall()
	return r.attendAll(ctx, &call)
}
