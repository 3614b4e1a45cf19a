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
	segment int // its index in the list
	t, n    int // first row of the call, and how many
	pos     int // tokens of the sequence up to the piece's end
}

// ssdWork is the working memory of a call of an SSD, or of that of a Mamba2.
type ssdWork struct {
	group    parallel.Group
	segments segments // of a call of the SSD itself

	op      *SSD
	call    SSDCall   // a copy of the caller's
	list    []segment // the rows to run; values are [H][N, P]
	direct  bool      // sums go straight to Dst: nothing is added to or multiplied with them
	pieces  []piece   // those that are run together
	shared  [batchPieces]pieceShared
	workers []headWork // of each worker

	prepare, heads func(worker, i int) // tasks: what heads share of piece i; head i
}

// pieceShared is what all heads read of a piece of n rows.
type pieceShared struct {
	dt, log, decay []float32     // [n, H]: steps, logarithms of decays, decays
	forms          []form        // [H]
	bc             []float32     // [G][2 n N]: for mild heads, B and C packed
	c              []float32     // [G][n, N+n]: for products, C beside C B^T, which is 0 above its diagonal
	b              kernel.Matrix // [N, n]: B of a group, turned around
}

// headWork is what a worker has for itself, for a head and a piece of n rows.
type headWork struct {
	sum        []float64       // [n]: sums of the logarithms of decays, from the piece's first row on
	row, scale []float32       // [n]: differences of them; factors of rows
	c          []float32       // [n, N+n]: what multiplies state and inputs
	y, now, x  []float32       // [n, P] sums, [n, P] inputs, [P] one input
	state      []kernel.Matrix // a panel of channels each, [N+Chunk, width]: S, and below it x scaled
	still      kernel.Matrix   // [N, P]: S, for sparse pieces
	packed     bool            // still is the state
}

// workFloats is what pieces and workers have, in float32.
func (op *SSD) workFloats(tokens, workers int) int64 {
	n := min(max(tokens, 0), Chunk)
	heads, width, states := op.cfg.Heads, op.cfg.HeadDim, op.cfg.States
	pieces := min(batchPieces, (max(tokens, 0)-1)/Chunk+2)
	whole := func(x int) int { return (x + kernel.PanelCols() - 1) / kernel.PanelCols() * kernel.PanelCols() }
	each := 3*n*heads + op.cfg.Groups*n*(3*states+n) + states*whole(n)
	own := n*(4+states+n+width) + width + Chunk*width + (2*states+Chunk)*whole(width)
	return int64(pieces)*int64(each) + int64(min(workers, heads))*int64(own)
}

// sweep takes the rows of segments through the recurrence and brings their values up to
// date.
func (s *ssdWork) sweep(ctx context.Context, op *SSD, call *SSDCall, list []segment, workers int) error {
	if s.prepare == nil {
		s.prepare, s.heads = s.preparePiece, s.sweepHead
	}
	s.op, s.call, s.list = op, *call, list
	s.direct = op.skip == nil && !mat.Given(call.Z) && !mat.Overlap(call.Dst, call.X)
	defer func() { s.call, s.list = SSDCall{}, nil }()
	for len(s.workers) < min(workers, op.cfg.Heads) {
		s.workers = append(s.workers, headWork{})
	}
	s.pieces = s.pieces[:0]
	for i, g := range list {
		for t, pos := g.From, g.Pos; t < g.To; {
			n := untilBorder(pos, g.To-t)
			t, pos = t+n, pos+n
			s.pieces = append(s.pieces, piece{i, t - n, n, pos})
			if len(s.pieces) == batchPieces {
				if err := s.sweepPieces(ctx, workers); err != nil {
					return err
				}
			}
		}
	}
	return s.sweepPieces(ctx, workers)
}

// sweepPieces takes the pieces that have been gathered through the recurrence.
func (s *ssdWork) sweepPieces(ctx context.Context, workers int) error {
	err := ctx.Err()
	if len(s.pieces) > 0 {
		if err = s.group.RunAs(ctx, "ssm", workers, len(s.pieces), s.prepare); err == nil {
			err = s.group.RunAs(ctx, "ssm", workers, s.op.cfg.Heads, s.heads)
		}
	}
	s.pieces = s.pieces[:0]
	return err
}

// preparePiece computes what the heads share of piece i.
func (s *ssdWork) preparePiece(_, i int) {
	op, call, p, sh := s.op, &s.call, s.pieces[i], &s.shared[i]
	heads, n := op.cfg.Heads, p.n
	sh.dt, sh.log, sh.decay = scratch.Floats(sh.dt, n*heads), scratch.Floats(sh.log, n*heads), scratch.Floats(sh.decay, n*heads)
	for t := range n {
		dt, log := sh.dt[t*heads:][:heads], sh.log[t*heads:][:heads]
		if mat.Given(call.Dt) {
			steps(dt, mat.Row(call.Dt, p.t+t), op.bias, op.cfg.Softplus, op.cfg.DtMin, op.cfg.DtMax)
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
		if mat.Given(call.Decay) {
			copy(log, mat.Row(call.Decay, p.t+t))
		} else {
			asm.Mul(log, dt, op.a)
		}
	}
	sh.forms = sh.forms[:0]
	for h := range heads {
		sh.forms = append(sh.forms, op.chooseForm(sh.dt[h:], sh.log[h:], n))
	}
	if slices.Contains(sh.forms, recurrent) {
		asm.Exp(sh.decay, sh.log)
		kernel.Flush(sh.decay)
	}
	states := op.cfg.States
	if slices.Contains(sh.forms, mild) {
		sh.bc = scratch.Floats(sh.bc, op.cfg.Groups*2*n*states)
		for g := range op.cfg.Groups {
			kernel.PackBC(sh.bc[g*2*n*states:][:2*n*states], s.groupPart(call.B, p, g), s.groupPart(call.C, p, g))
		}
	}
	if !slices.Contains(sh.forms, products) {
		return
	}
	wide := states + n
	sh.c = scratch.Floats(sh.c, op.cfg.Groups*n*wide)
	for g := range op.cfg.Groups {
		c := mat.Of(sh.c[g*n*wide:], n, wide)
		mat.Copy(c, s.groupPart(call.C, p, g))
		sh.b.SetT(s.groupPart(call.B, p, g)) // [N, n]
		kernel.Gemm(mat.Columns(c, states, n), s.groupPart(call.C, p, g), &sh.b, nil)
		for t := range n {
			clear(mat.Row(c, t)[states+t+1:])
		}
	}
}

// groupPart returns the rows of a piece of B or C, [n, N] of a group.
func (s *ssdWork) groupPart(m blas32.General, p piece, group int) blas32.General {
	return mat.Columns(mat.Rows(m, p.t, p.t+p.n), group*s.op.cfg.States, s.op.cfg.States)
}

// sweepHead takes head h through all pieces.
func (s *ssdWork) sweepHead(worker, h int) {
	op, w := s.op, &s.workers[worker]
	width := op.cfg.HeadDim
	size := op.cfg.States * width
	w.x, w.y = scratch.Floats(w.x, width), scratch.Floats(w.y, Chunk*width)
	loaded := false // the state is in panels
	w.packed = false
	for i, p := range s.pieces {
		values := mat.Of(s.list[p.segment].Values[h*size:], op.cfg.States, width)
		y := s.headOutput(w, h, p)
		switch s.shared[i].forms[h] {
		case products:
			if !loaded {
				w.loadState(op, values)
			}
			w.sweepProducts(s, h, i, y)
			// The next piece may go on with the state where it is.
			loaded = i+1 < len(s.pieces) && s.pieces[i+1].segment == p.segment && s.shared[i+1].forms[h] == products
			if !loaded {
				w.unloadState(op, values)
			}
		case mild:
			w.sweepMild(s, h, i, y, values)
		case sparse:
			w.sweepSparse(s, h, i, y, values)
		case recurrent:
			w.sweepTokens(s, h, i, y, values)
		}
		// The state that a sparse piece has packed serves the next one, if that is of the
		// same sequence and sparse, and no tiny values have just been set to 0.
		w.packed = w.packed && p.n == Chunk && p.pos > Chunk && i+1 < len(s.pieces) && s.pieces[i+1].segment == p.segment && s.shared[i+1].forms[h] == sparse
		if p.pos%Chunk == 0 {
			if loaded {
				for j := range w.state {
					kernel.Flush(w.statePanel(op, j).Data)
				}
			} else {
				kernel.Flush(values.Data)
			}
		}
		if !s.direct {
			s.finishPiece(w, h, p)
		}
	}
}

// headOutput returns where the sums of a piece of head h go: their own place, or memory
// from which finishPiece brings them there.
func (s *ssdWork) headOutput(w *headWork, h int, p piece) blas32.General {
	width := s.op.cfg.HeadDim
	if s.direct {
		return mat.Columns(mat.Rows(s.call.Dst, p.t, p.t+p.n), h*width, width)
	}
	return mat.Of(w.y, p.n, width)
}

// loadState brings a state [N, P] into panels.
func (w *headWork) loadState(op *SSD, values blas32.General) {
	each := kernel.PanelCols()
	panels := (values.Cols + each - 1) / each
	for len(w.state) < panels {
		w.state = append(w.state, kernel.Matrix{})
	}
	w.state = w.state[:panels]
	for j := range w.state {
		w.state[j].Reshape(values.Rows+Chunk, min(each, values.Cols-j*each))
		p := w.statePanel(op, j)
		mat.Copy(p, mat.Columns(values, j*each, p.Cols))
	}
}

func (w *headWork) unloadState(op *SSD, values blas32.General) {
	for j := range w.state {
		p := w.statePanel(op, j)
		mat.Copy(mat.Columns(values, j*kernel.PanelCols(), p.Cols), p)
	}
}

// statePanel returns the state of the channels of panel j, [N, width].
func (w *headWork) statePanel(op *SSD, j int) blas32.General {
	p := mat.Rows(w.state[j].Panel(0), 0, op.cfg.States)
	p.Data = p.Data[:p.Rows*p.Stride]
	return p
}

// finishPiece adds the skip, gates, and puts a piece's y in its place.
func (s *ssdWork) finishPiece(w *headWork, h int, p piece) {
	width := s.op.cfg.HeadDim
	for t := range p.n {
		x, dst := mat.Part(s.call.X, p.t+t, h*width, width), mat.Part(s.call.Dst, p.t+t, h*width, width)
		y := w.y[t*width:][:width]
		if s.op.skip != nil {
			asm.Mul(w.x, s.op.skip[h*width:][:width], x)
			asm.Add(y, y, w.x)
		}
		if mat.Given(s.call.Z) {
			asm.SiLU(w.x, mat.Part(s.call.Z, p.t+t, h*width, width))
			asm.Mul(dst, y, w.x)
		} else {
			copy(dst, y)
		}
	}
}
