package ssm

import (
	"context"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// batchPieces is how many pieces of chunks are prepared together; a head then goes
// through them with its state in the nearest cache.
const batchPieces = 8

// piece is a part of a segment that lies in one chunk.
type piece struct {
	segment int
	t, n    int // first row, rows
	pos     int // of the token behind it
}

// ssdScratch is the working memory of a call.
type ssdScratch struct {
	group     parallel.Group
	sequences sequences
	list      []segment
	op        *SSD
	call      SSDCall
	direct    bool // nothing is added to or multiplied with the sums
	pieces    []piece
	shared    [batchPieces]ssdShared
	workers   []ssdWork

	prepare, heads func(worker, i int)
}

// ssdShared is what all heads read of a piece.
type ssdShared struct {
	dt, log, decay []float32 // [n, H]: steps, logarithms of decays, decays
	forms          []form    // [H]
	bc             []float32 // [G][2 n N]: for mild heads, B and C packed
	c              []float32 // [G][n, N+n]: for products, C beside C B^T, which is 0 above its diagonal
	b              kernel.Matrix
}

// ssdWork is what each worker has for itself.
type ssdWork struct {
	sum        []float64       // [n]: sums of the logarithms from the piece's begin
	row, scale []float32       // [n]: differences of them; factors of rows
	c          []float32       // [n, N+n]
	y, now, x  []float32       // [n, P], [n, P], [P]
	state      []kernel.Matrix // a panel of channels each, [N+Chunk, width]: S, and below it x scaled
	still      kernel.Matrix   // for sparse pieces: S
	packed     bool            // still is the state
}

// ScratchBytes returns the working memory that a call of one sequence of so many
// tokens holds, at the most, besides its arguments; it stops growing with them.
func (op *SSD) ScratchBytes(tokens int) int64 {
	return scratchBytes(int64(op.kind.size) + op.holds(tokens, parallel.Workers(op.cfg.Workers)))
}

// holds is what pieces and workers have, in float32.
func (op *SSD) holds(tokens, workers int) int64 {
	n := min(tokens, Chunk)
	heads, width, states := op.cfg.Heads, op.cfg.HeadDim, op.cfg.States
	pieces := min(batchPieces, (tokens+Chunk-1)/Chunk+1)
	whole := func(x int) int { return (x + kernel.PanelCols() - 1) / kernel.PanelCols() * kernel.PanelCols() }
	each := 3*n*heads + op.cfg.Groups*n*(3*states+n) + states*whole(n)
	own := n*(4+states+n+width) + width + Chunk*width + (2*states+Chunk)*whole(width)
	return int64(pieces)*int64(each) + int64(min(workers, heads))*int64(own)
}

// run takes the rows of the segments through the recurrence and brings their
// values up to date.
func (s *ssdScratch) run(ctx context.Context, op *SSD, call *SSDCall, list []segment, workers int) error {
	if s.prepare == nil {
		s.prepare, s.heads = s.preparePiece, s.runHead
	}
	s.op, s.call, s.list = op, *call, list
	s.direct = op.skip == nil && !gated(call.Z) && !mat.Overlap(call.Dst, call.X)
	defer func() { s.call, s.list = SSDCall{}, nil }()
	for len(s.workers) < workers {
		s.workers = append(s.workers, ssdWork{})
	}
	s.pieces = s.pieces[:0]
	for i, g := range list {
		for t, pos := g.from, g.pos; t < g.to; {
			n := untilBorder(pos, g.to-t)
			t, pos = t+n, pos+n
			s.pieces = append(s.pieces, piece{i, t - n, n, pos})
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

// preparePiece computes what the heads share of piece i.
func (s *ssdScratch) preparePiece(_, i int) {
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
		if filter := s.list[p.segment].filter; filter != nil {
			filter(p.pos-n+t, 0, dt)
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
	sh.forms = sh.forms[:0]
	for h := range heads {
		sh.forms = append(sh.forms, op.form(sh.dt[h:], sh.log[h:], n))
	}
	if slices.Contains(sh.forms, recurrent) {
		asm.Exp(sh.decay, sh.log)
	}
	states := op.cfg.States
	if slices.Contains(sh.forms, mild) {
		sh.bc = scratch.Floats(sh.bc, op.cfg.Groups*2*n*states)
		for g := range op.cfg.Groups {
			kernel.PackBC(sh.bc[g*2*n*states:][:2*n*states], s.of(call.B, p, g), s.of(call.C, p, g))
		}
	}
	if !slices.Contains(sh.forms, products) {
		return
	}
	wide := states + n
	sh.c = scratch.Floats(sh.c, op.cfg.Groups*n*wide)
	for g := range op.cfg.Groups {
		c := mat.Of(sh.c[g*n*wide:], n, wide)
		copyRows(c, s.of(call.C, p, g))
		sh.b.SetT(s.of(call.B, p, g)) // [N, n]
		kernel.Gemm(mat.Columns(c, states, n), s.of(call.C, p, g), &sh.b, nil)
		for t := range n {
			clear(c.Data[t*wide+states+t+1 : (t+1)*wide])
		}
	}
}

// of returns the rows of a piece of B or C, [n, N] of a group.
func (s *ssdScratch) of(m blas32.General, p piece, group int) blas32.General {
	return mat.Columns(mat.Rows(m, p.t, p.t+p.n), group*s.op.cfg.States, s.op.cfg.States)
}

// runHead takes head h through all pieces.
func (s *ssdScratch) runHead(worker, h int) {
	op, w := s.op, &s.workers[worker]
	width := op.cfg.HeadDim
	size := op.cfg.States * width
	w.x, w.y = scratch.Floats(w.x, width), scratch.Floats(w.y, Chunk*width)
	loaded := false // the state is in panels
	w.packed = false
	for i, p := range s.pieces {
		values := mat.Of(s.list[p.segment].values[h*size:], op.cfg.States, width)
		y := s.output(w, h, p)
		switch s.shared[i].forms[h] {
		case products:
			if !loaded {
				w.load(op, values)
			}
			w.chunk(s, h, i, y)
			// The next piece may go on with the state where it is.
			loaded = i+1 < len(s.pieces) && s.pieces[i+1].segment == p.segment && s.shared[i+1].forms[h] == products
			if !loaded {
				w.unload(op, values)
			}
		case mild:
			w.mild(s, h, i, y, values)
		case sparse:
			w.sparse(s, h, i, y, values)
		case recurrent:
			w.tokens(s, h, i, y, values)
		}
		// What a sparse piece has packed serves the next one, if that is of the same
		// sequence and sparse, and nothing tiny has just been dropped.
		w.packed = w.packed && p.n == Chunk && p.pos > Chunk && i+1 < len(s.pieces) && s.pieces[i+1].segment == p.segment && s.shared[i+1].forms[h] == sparse
		if p.pos%Chunk == 0 {
			if loaded {
				for j := range w.state {
					kernel.Flush(w.panel(op, j).Data)
				}
			} else {
				kernel.Flush(values.Data)
			}
		}
		if !s.direct {
			s.finish(w, h, p)
		}
	}
}

// output returns where the sums of a piece of head h go: their own place, or memory
// from which finish brings them there.
func (s *ssdScratch) output(w *ssdWork, h int, p piece) blas32.General {
	width := s.op.cfg.HeadDim
	if s.direct {
		return mat.Columns(mat.Rows(s.call.Dst, p.t, p.t+p.n), h*width, width)
	}
	return mat.Of(w.y, p.n, width)
}

// load brings a state [N, P] into panels.
func (w *ssdWork) load(op *SSD, values blas32.General) {
	each := kernel.PanelCols()
	panels := (values.Cols + each - 1) / each
	for len(w.state) < panels {
		w.state = append(w.state, kernel.Matrix{})
	}
	w.state = w.state[:panels]
	for j := range w.state {
		w.state[j].Reshape(values.Rows+Chunk, min(each, values.Cols-j*each))
		p := w.panel(op, j)
		copyRows(p, mat.Columns(values, j*each, p.Cols))
	}
}

func (w *ssdWork) unload(op *SSD, values blas32.General) {
	for j := range w.state {
		p := w.panel(op, j)
		copyRows(mat.Columns(values, j*kernel.PanelCols(), p.Cols), p)
	}
}

// panel returns the state of the channels of panel j, [N, width].
func (w *ssdWork) panel(op *SSD, j int) blas32.General {
	p := mat.Rows(w.state[j].Panel(0), 0, op.cfg.States)
	p.Data = p.Data[:p.Rows*p.Stride]
	return p
}

func copyRows(dst, x blas32.General) {
	for t := range x.Rows {
		copy(dst.Data[t*dst.Stride:][:x.Cols], x.Data[t*x.Stride:][:x.Cols])
	}
}

// finish adds the skip, gates, and puts a piece's y in its place.
func (s *ssdScratch) finish(w *ssdWork, h int, p piece) {
	width := s.op.cfg.HeadDim
	for t := range p.n {
		part := func(m blas32.General) []float32 { return m.Data[(p.t+t)*m.Stride+h*width:][:width] }
		y, dst := w.y[t*width:][:width], part(s.call.Dst)
		if s.op.skip != nil {
			asm.Mul(w.x, s.op.skip[h*width:][:width], part(s.call.X))
			asm.Add(y, y, w.x)
		}
		if gated(s.call.Z) {
			asm.SiLU(w.x, part(s.call.Z))
			asm.Mul(dst, y, w.x)
		} else {
			copy(dst, y)
		}
	}
}
