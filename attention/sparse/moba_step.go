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
			s.shorten(r.few.lens[i])
		}
	}
	return err
}

func (r *mobaRun) step(ctx context.Context) error {
	most := 0
	for i, s := range r.layout.States {
		x := r.layout.Segments[i]
		c := r.call.part(x)
		if err := s.take(ctx, &r.few.append, &r.few.wide, c.k, c.v); err != nil {
			return err
		}
		if n := x.To - x.From; n <= mobaFewTokens {
			most = max(most, n)
			continue
		}
		r.states = s.tokens
		if err := r.attendTo(ctx, c, s.Len(), s.meansMatrix()); err != nil {
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

// mobaFew is what single tokens of states need: exact attention of one head takes a key head of
// each token's state as a sequence of its own, of which a query head sees the blocks that it
// chose; query heads that share a key head go one after the other.
type mobaFew struct {
	lens        []int     // of the states before
	wide        []float32 // of tokens that are not stored as float32
	q, dst, lse []float32
	past        []attention.Past
	selections  []attention.Selection
	runs        [][]attention.Run
	tokens      []mobaToken
	call        attention.Call
	append      appends

	token mobaToken         // whose heads choose
	into  [][]attention.Run // [heads], what they see
	each  func(worker, head int)
}

// mobaToken is a token, a row of the call, at a position of a state.
type mobaToken struct {
	state   *MoBAState
	row, at int
}

// forget drops what belongs to the caller.
func (f *mobaFew) forget() {
	clear(f.past)
	clear(f.tokens)
	f.call, f.token, f.into = attention.Call{}, mobaToken{}, nil
}

// attendFew attends from token t of each state's, where it has few and so many.
func (r *mobaRun) attendFew(ctx context.Context, t int) error {
	f, group := &r.few, r.op.cfg.Heads/r.op.cfg.KVHeads
	f.tokens = f.tokens[:0]
	for i, s := range r.layout.States {
		x := r.layout.Segments[i]
		if n := x.To - x.From; n <= mobaFewTokens && t < n {
			f.tokens = append(f.tokens, mobaToken{s, x.From + t, f.lens[i] + t})
		}
	}
	n := len(f.tokens) * r.op.cfg.Heads // lists of runs
	for len(f.runs) < n {
		f.runs = append(f.runs, nil)
	}
	for i, x := range f.tokens {
		if err := r.chooseFew(ctx, x, f.runs[i*r.op.cfg.Heads:]); err != nil {
			return err
		}
	}
	for j := range group {
		if err := r.attendShare(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

// chooseFew makes runs of what each head of a token sees.
func (r *mobaRun) chooseFew(ctx context.Context, x mobaToken, runs [][]attention.Run) error {
	f, m := &r.few, r.op
	cfg := &m.cfg
	own, top := x.at/cfg.Block, cfg.TopK-1
	if own <= top {
		for h := range cfg.Heads {
			runs[h] = append(runs[h][:0], attention.Run{From: 0, To: x.at + 1})
		}
		return nil
	}
	if err := r.gates.pack(ctx, &m.engine, cfg.KVHeads, top, mat.Rows(x.state.meansMatrix(), 0, own)); err != nil {
		return err
	}
	if f.each == nil {
		f.each = r.chooseHead
	}
	f.token, f.into = x, runs
	workers := m.workersFor(r.call.workers, float64(own)*float64(cfg.Heads)*float64(cfg.HeadDim))
	for len(r.work) < workers {
		r.work = append(r.work, mobaWorker{})
	}
	return r.workers.RunAs(ctx, "sparse", workers, cfg.Heads, f.each)
}

// chooseHead makes runs of what one head of the token sees.
func (r *mobaRun) chooseHead(worker, h int) {
	f, w, cfg := &r.few, &r.work[worker], &r.op.cfg
	own := f.token.at / cfg.Block
	w.few = scratch.Sized(w.few, r.gates.top)
	q := mat.Columns(mat.Rows(r.call.q, f.token.row, f.token.row+1), h*cfg.HeadDim, cfg.HeadDim)
	r.gates.choose(&r.workers, &w.gate, q, h/(cfg.Heads/cfg.KVHeads), w.few, func(int) int { return own })
	list := f.into[h][:0]
	for _, b := range w.few {
		list = append(list, attention.Run{From: int(b) * cfg.Block, To: (int(b) + 1) * cfg.Block})
	}
	f.into[h] = append(list, attention.Run{From: own * cfg.Block, To: f.token.at + 1})
}

// attendShare attends from query head j of those of each key head, of all tokens.
func (r *mobaRun) attendShare(ctx context.Context, j int) error {
	f, cfg := &r.few, &r.op.cfg
	d, dv, group := cfg.HeadDim, cfg.ValueDim, cfg.Heads/cfg.KVHeads
	n := len(f.tokens) * cfg.KVHeads
	f.q, f.dst, f.lse = scratch.Floats(f.q, n*d), scratch.Floats(f.dst, n*dv), scratch.Floats(f.lse, n)
	f.past, f.selections = f.past[:0], f.selections[:0]
	for i, x := range f.tokens {
		for g, t := range x.state.tokens {
			h := g*group + j
			copy(f.q[(i*cfg.KVHeads+g)*d:][:d], mat.Part(r.call.q, x.row, h*d, d))
			f.past, f.selections = append(f.past, t), append(f.selections, f.runs[i*cfg.Heads+h])
		}
	}
	f.call = attention.Call{Dst: mat.Of(f.dst, n, dv), Q: mat.Of(f.q, n, d), States: f.past, Select: f.selections, Workers: r.call.workers}
	if r.call.lse.Rows > 0 {
		f.call.LSE = mat.Of(f.lse, n, 1)
	}
	if err := r.op.one.Run(ctx, &f.call); err != nil {
		return named(err)
	}
	for i, x := range f.tokens {
		for g := range cfg.KVHeads {
			h, at := g*group+j, i*cfg.KVHeads+g
			copy(mat.Part(r.call.dst, x.row, h*dv, dv), f.dst[at*dv:])
			if r.call.lse.Rows > 0 {
				mat.Row(r.call.lse, x.row)[h] = f.lse[at]
			}
		}
	}
	return nil
}
