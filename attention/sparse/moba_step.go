package sparse

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// mobaFewTokens is how many tokens of a state read their blocks where they stand, at the most:
// packing pays for more.
const mobaFewTokens = 4

// advance has states take up the call's tokens and attends from these; after an error states
// are as before.
func (r *mobaRun) advance(ctx context.Context) error {
	r.few.lens = r.few.lens[:0]
	for _, s := range r.layout.States {
		r.few.lens = append(r.few.lens, s.Len())
	}
	err := r.step(ctx)
	if err != nil {
		for i, s := range r.layout.States {
			if n := r.few.lens[i]; s.Len() > n {
				s.Truncate(n) // what was just taken up can be taken back
			}
		}
	}
	return err
}

func (r *mobaRun) step(ctx context.Context) error {
	most := 0
	for i, s := range r.layout.States {
		x := r.layout.Segments[i]
		c := r.call.part(x)
		if err := s.take(ctx, c.k, c.v); err != nil {
			return err
		}
		if n := x.To - x.From; n <= mobaFewTokens {
			most = max(most, n)
			continue
		}
		k, v := s.keys()
		if err := r.attendTo(ctx, c, k, v, s.meansMatrix()); err != nil {
			return err
		}
	}
	for t := range most {
		if err := r.attendFew(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// meansMatrix returns the means of the whole blocks.
func (s *MoBAState) meansMatrix() blas32.General {
	cols := s.op.cfg.KVHeads * s.op.cfg.HeadDim
	return mat.Of(s.means, len(s.means)/cols, cols)
}

// mobaFew is what single tokens of states need: exact attention of one head takes each head of
// each token as a sequence of its own, which sees the blocks that it chose.
type mobaFew struct {
	lens        []int // of the states before
	q, dst, lse []float32
	views       []*attention.View
	past        []attention.Past
	selections  []attention.Selection
	runs        [][]attention.Run
	rows        []int // of the call, one for each token
	lists       []int32
	gate        gateWork
	call        attention.Call
}

// forget drops what belongs to the caller.
func (f *mobaFew) forget() {
	clear(f.past)
	for _, v := range f.views {
		*v = attention.View{}
	}
	f.call = attention.Call{}
}

// attendFew attends from token t of each state's, where it has few and so many.
func (r *mobaRun) attendFew(ctx context.Context, t int) error {
	f, m := &r.few, r.op
	cfg := &m.cfg
	d, dv := cfg.HeadDim, cfg.ValueDim
	f.past, f.selections, f.rows = f.past[:0], f.selections[:0], f.rows[:0]
	for i, s := range r.layout.States {
		x := r.layout.Segments[i]
		if n := x.To - x.From; n > mobaFewTokens || t >= n {
			continue
		}
		f.rows = append(f.rows, x.From+t)
		if err := r.lookAt(s, x.From+t, f.lens[i]+t); err != nil {
			return err
		}
	}
	n := len(f.rows) * cfg.Heads
	f.q, f.dst, f.lse = scratch.Floats(f.q, n*d), scratch.Floats(f.dst, n*dv), scratch.Floats(f.lse, n)
	for i, row := range f.rows {
		copy(f.q[i*cfg.Heads*d:][:cfg.Heads*d], mat.Row(r.call.q, row))
	}
	f.call = attention.Call{Dst: mat.Of(f.dst, n, dv), Q: mat.Of(f.q, n, d), States: f.past, Select: f.selections, Workers: r.call.workers}
	if r.call.lse.Rows > 0 {
		f.call.LSE = mat.Of(f.lse, n, 1)
	}
	if err := m.one.Run(ctx, &f.call); err != nil {
		return named(err)
	}
	for i, row := range f.rows {
		copy(mat.Row(r.call.dst, row), f.dst[i*cfg.Heads*dv:])
		if r.call.lse.Rows > 0 {
			copy(mat.Row(r.call.lse, row), f.lse[i*cfg.Heads:])
		}
	}
	return nil
}

// lookAt adds what the heads of a token, a row of the call at a position, see of a state.
func (r *mobaRun) lookAt(s *MoBAState, row, at int) error {
	f, m := &r.few, r.op
	cfg := &m.cfg
	k, v := s.keys()
	k, v = mat.Rows(k, 0, at+1), mat.Rows(v, 0, at+1)
	own, top := at/cfg.Block, cfg.TopK-1
	if own > top {
		r.gates.pack(&m.engine, cfg.KVHeads, top, mat.Rows(s.meansMatrix(), 0, own))
		f.lists = scratch.Sized(f.lists, top)
	}
	for h := range cfg.Heads {
		g := h / (cfg.Heads / cfg.KVHeads)
		n := len(f.past)
		if n == len(f.views) {
			f.views = append(f.views, new(attention.View))
		}
		if n == len(f.runs) {
			f.runs = append(f.runs, nil)
		}
		st, err := f.views[n].Of(m.one, mat.Columns(k, g*cfg.HeadDim, cfg.HeadDim), mat.Columns(v, g*cfg.ValueDim, cfg.ValueDim), 0)
		if err != nil {
			return named(err)
		}
		runs := f.runs[n][:0]
		if own > top {
			q := mat.Columns(mat.Rows(r.call.q, row, row+1), h*cfg.HeadDim, cfg.HeadDim)
			r.gates.choose(&f.gate, q, g, at, f.lists)
			for _, b := range f.lists[:top] {
				runs = append(runs, attention.Run{From: int(b) * cfg.Block, To: (int(b) + 1) * cfg.Block})
			}
			runs = append(runs, attention.Run{From: own * cfg.Block, To: at + 1})
		} else {
			runs = append(runs, attention.Run{From: 0, To: at + 1})
		}
		f.runs[n] = runs
		f.past, f.selections = append(f.past, st), append(f.selections, runs)
	}
	return nil
}
