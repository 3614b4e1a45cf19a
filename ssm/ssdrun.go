package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

const (
	// chunkedTokens is the length from which a piece of a chunk is computed by
	// matrix products: measured, with 64 channels and 128 states.
	chunkedTokens = 12
	// batchPieces is how many pieces of chunks are prepared together; a head then
	// goes through them with its state in the nearest cache.
	batchPieces = 8
)

// piece is a part of a segment that lies in one chunk.
type piece struct {
	segment int
	t, n    int // first row, rows
	pos     int // of the token behind it
	last    bool
}

// ssdScratch is the working memory of a call.
type ssdScratch struct {
	group     parallel.Group
	sequences sequences
	list      []segment
	op        *SSD
	call      SSDCall
	pieces    []piece
	shared    [batchPieces]ssdShared
	workers   []ssdWork

	prepare, heads func(worker, i int)
}

// ssdShared is what all heads read of a piece.
type ssdShared struct {
	dt, log, decay []float32 // [n, H]: steps, logarithms of decays, decays
	cb             []float32 // [G][n, n]: C B^T
	b              asm.Matrix
}

// ssdWork is what each worker has for itself.
type ssdWork struct {
	sum, ends  []float32    // [n]: sums of the logarithms from the piece's begin, and what decays to or from its ends
	dt         []float32    // [n]
	mask, y    []float32    // [n, n], [n, P]
	row        []float32    // [P]
	state      []asm.Matrix // a panel of channels each, [N, width]
	now, later []asm.Matrix // [n, width]: dt x, and what of it is left at the end of the piece
}

// run takes the rows of the segments through the recurrence and brings their
// values up to date.
func (s *ssdScratch) run(ctx context.Context, op *SSD, call *SSDCall, list []segment, workers int) error {
	if s.prepare == nil {
		s.prepare, s.heads = s.prepareGroup, s.runHead
	}
	s.op, s.call, s.list = op, *call, list
	defer func() { s.call, s.list = SSDCall{}, nil }()
	for len(s.workers) < workers {
		s.workers = append(s.workers, ssdWork{})
	}
	s.pieces = s.pieces[:0]
	for i, g := range list {
		for t, pos := g.from, g.pos; t < g.to; {
			n := untilBorder(pos, g.to-t)
			t, pos = t+n, pos+n
			s.pieces = append(s.pieces, piece{i, t - n, n, pos, t == g.to})
			if len(s.pieces) == batchPieces {
				if err := s.batch(ctx, workers); err != nil {
					return err
				}
			}
		}
	}
	return s.batch(ctx, workers)
}

func (s *ssdScratch) batch(ctx context.Context, workers int) error {
	if len(s.pieces) == 0 {
		return wrap(ctx.Err())
	}
	err := s.group.Run(ctx, workers, len(s.pieces), s.prepare)
	if err == nil {
		err = s.group.Run(ctx, workers, s.op.cfg.Heads, s.heads)
	}
	s.pieces = s.pieces[:0]
	return wrap(err)
}

func (op *SSD) chunked(p piece) bool { return p.n >= chunkedTokens && !op.cfg.Recurrent }

// prepareGroup computes what the heads share of piece i.
func (s *ssdScratch) prepareGroup(_, i int) {
	op, call, p, sh := s.op, &s.call, s.pieces[i], &s.shared[i]
	heads, n := op.cfg.Heads, p.n
	sh.dt, sh.log, sh.decay = scratch.Floats(sh.dt, n*heads), scratch.Floats(sh.log, n*heads), scratch.Floats(sh.decay, n*heads)
	for t := range n {
		row := func(m []float32) []float32 { return m[t*heads:][:heads] }
		part := func(m blas32.General) []float32 { return m.Data[(p.t+t)*m.Stride:][:heads] }
		dt, log := row(sh.dt), row(sh.log)
		if gated(call.Dt) {
			steps(dt, part(call.Dt), op.bias, op.cfg.Softplus, op.cfg.DtMin, op.cfg.DtMax)
		} else {
			for h := range dt {
				dt[h] = 1
			}
		}
		if call.Filter != nil {
			call.Filter(p.pos-n+t, 0, dt)
		}
		if gated(call.Decay) {
			copy(log, part(call.Decay))
		} else {
			asm.Mul(log, dt, op.a)
		}
	}
	if !op.chunked(p) {
		asm.Exp(sh.decay, sh.log)
		return
	}
	sh.cb = scratch.Floats(sh.cb, op.cfg.Groups*n*n)
	for g := range op.cfg.Groups {
		sh.b.SetT(s.of(call.B, p, g)) // [N, n]
		asm.Gemm(dense.Matrix(sh.cb[g*n*n:], n, n), s.of(call.C, p, g), &sh.b, nil)
	}
}

// of returns the rows of a piece of B or C, [n, N] of a group.
func (s *ssdScratch) of(m blas32.General, p piece, group int) blas32.General {
	return dense.Columns(dense.Rows(m, p.t, p.t+p.n), group*s.op.cfg.States, s.op.cfg.States)
}

// runHead takes head h through all pieces.
func (s *ssdScratch) runHead(worker, h int) {
	op, w := s.op, &s.workers[worker]
	width := op.cfg.HeadDim
	size := op.cfg.States * width
	w.row, w.y = scratch.Floats(w.row, width), scratch.Floats(w.y, chunk*width)
	loaded := false
	for i, p := range s.pieces {
		values := dense.Matrix(s.list[p.segment].values[h*size:], op.cfg.States, width)
		chunked := op.chunked(p)
		if chunked {
			if !loaded {
				w.load(values)
			}
			w.chunk(s, h, i)
		} else {
			w.tokens(s, h, i, values)
		}
		// The next piece may go on with the state where it is.
		loaded = chunked && i+1 < len(s.pieces) && s.pieces[i+1].segment == p.segment && op.chunked(s.pieces[i+1])
		if chunked && !loaded {
			w.unload(values)
		}
		if p.pos%chunk == 0 {
			if loaded {
				for j := range w.state {
					asm.Flush(w.state[j].Panel(0).Data)
				}
			} else {
				asm.Flush(values.Data)
			}
		}
		s.finish(w, h, p)
	}
}

// load brings a state [N, P] into panels.
func (w *ssdWork) load(values blas32.General) {
	each := asm.PanelCols()
	for len(w.state)*each < values.Cols {
		w.state, w.now, w.later = append(w.state, asm.Matrix{}), append(w.now, asm.Matrix{}), append(w.later, asm.Matrix{})
	}
	panels := (values.Cols + each - 1) / each
	w.state, w.now, w.later = w.state[:panels], w.now[:panels], w.later[:panels]
	for j := range w.state {
		w.state[j].Reshape(values.Rows, min(each, values.Cols-j*each))
		copyRows(w.state[j].Panel(0), dense.Columns(values, j*each, w.state[j].Panel(0).Cols))
	}
}

func (w *ssdWork) unload(values blas32.General) {
	for j := range w.state {
		p := w.state[j].Panel(0)
		copyRows(dense.Columns(values, j*asm.PanelCols(), p.Cols), p)
	}
}

func copyRows(dst, x blas32.General) {
	for t := range x.Rows {
		copy(dst.Data[t*dst.Stride:][:x.Cols], x.Data[t*x.Stride:][:x.Cols])
	}
}

// chunk computes piece i of head h by matrix products:
//
//	y = exp(sum) C S + (C B^T * exp(sum_t - sum_j), j <= t) (dt x)
//	S = exp(sum_n) S + B^T (exp(sum_n - sum_j) dt x)
//
// with sum_t the logarithms of the decays up to and with t. Differences alone are
// exponentiated, never a quotient taken.
func (w *ssdWork) chunk(s *ssdScratch, h, i int) {
	op, p, sh := s.op, s.pieces[i], &s.shared[i]
	n, heads, width := p.n, op.cfg.Heads, op.cfg.HeadDim
	group := h / (heads / op.cfg.Groups)
	w.sum, w.ends, w.dt, w.mask = scratch.Floats(w.sum, n), scratch.Floats(w.ends, n), scratch.Floats(w.dt, n), scratch.Floats(w.mask, n*n)
	var sum float64
	for t := range n {
		sum += float64(sh.log[t*heads+h])
		w.sum[t] = float32(sum)
	}
	cb := sh.cb[group*n*n:]
	for t := range n {
		row := w.mask[t*n:][:n]
		asm.DecayRow(row[:t+1], cb[t*n:][:t+1], w.sum[:t+1], w.sum[t])
		clear(row[t+1:])
	}
	mask := dense.Matrix(w.mask, n, n)
	c, b := s.of(s.call.C, p, group), s.of(s.call.B, p, group)
	x := dense.Columns(dense.Rows(s.call.X, p.t, p.t+n), h*width, width)
	y := dense.Matrix(w.y, n, width)
	for t := range n {
		w.dt[t] = sh.dt[t*heads+h]
	}
	asm.Exp(w.ends, w.sum)
	last := w.ends[n-1]
	for j := range w.state {
		asm.Gemm(dense.Columns(y, j*asm.PanelCols(), w.state[j].Panel(0).Cols), c, &w.state[j], nil)
	}
	asm.ScaleRows(y, w.ends, y)
	for t := range n {
		w.ends[t] = w.sum[n-1] - w.sum[t]
	}
	asm.Exp(w.ends, w.ends)
	for j := range w.state {
		state, now, later := w.state[j].Panel(0), &w.now[j], &w.later[j]
		from := j * asm.PanelCols()
		now.Reshape(n, state.Cols)
		later.Reshape(n, state.Cols)
		asm.ScaleRows(now.Panel(0), w.dt, dense.Columns(x, from, state.Cols))
		asm.ScaleRows(later.Panel(0), w.ends, now.Panel(0))
		asm.GemmAdd(dense.Columns(y, from, state.Cols), mask, now)
		asm.Scale(state.Data, last, state.Data)
		asm.GemmTAdd(state, b, later)
	}
}

// tokens computes piece i of head h by the recurrence.
func (w *ssdWork) tokens(s *ssdScratch, h, i int, values blas32.General) {
	op, p, sh := s.op, s.pieces[i], &s.shared[i]
	heads, width := op.cfg.Heads, op.cfg.HeadDim
	group := h / (heads / op.cfg.Groups)
	b, c := s.of(s.call.B, p, group), s.of(s.call.C, p, group)
	for t := range p.n {
		row := func(m blas32.General) []float32 { return m.Data[t*m.Stride:][:m.Cols] }
		asm.Scale(w.row, sh.dt[t*heads+h], s.call.X.Data[(p.t+t)*s.call.X.Stride+h*width:][:width])
		asm.OuterStep(w.y[t*width:][:width], values, sh.decay[t*heads+h], row(b), row(c), w.row)
	}
}

// finish adds the skip, gates, and puts a piece's y in its place.
func (s *ssdScratch) finish(w *ssdWork, h int, p piece) {
	width := s.op.cfg.HeadDim
	for t := range p.n {
		part := func(m blas32.General) []float32 { return m.Data[(p.t+t)*m.Stride+h*width:][:width] }
		y, dst := w.y[t*width:][:width], part(s.call.Dst)
		if s.op.skip != nil {
			asm.Mul(w.row, s.op.skip[h*width:][:width], part(s.call.X))
			asm.Add(y, y, w.row)
		}
		if gated(s.call.Z) {
			asm.SiLU(w.row, part(s.call.Z))
			asm.Mul(dst, y, w.row)
		} else {
			copy(dst, y)
		}
	}
}
