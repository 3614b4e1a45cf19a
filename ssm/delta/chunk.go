package delta

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// pieceTokens is the grid of absolute positions at which sequences are cut into pieces, a
// divisor of Chunk: more tokens would be more work within a piece, fewer more work on the
// states.
const pieceTokens = 32

// chunkTokens is from how many tokens on a piece may be computed by matrix products, and
// chunkAlways has that done for every kind in every tier: tests lower and set them.
var (
	chunkTokens = pieceTokens
	chunkAlways = false
)

// chunked tells whether a piece of n tokens is computed by matrix products: where that is
// faster than the recurrence, with states of 128 x 128. Products of panels as narrow as
// AVX2's and NEON's gain less than the solution of a piece's system costs, pairs have twice
// the products, and decays of key channels take as long as is gained, or far longer where
// they are strong.
func (op *Recurrence) chunked(n int) bool {
	if op.cfg.Recurrent || n < chunkTokens {
		return false
	}
	tier := isa.Active()
	return chunkAlways || op.cfg.Erase == NoErase || tier == isa.Generic || tier == isa.AVX512 && op.cfg.Erase != ErasePair && op.cfg.Decay != KeyDecay
}

// chunkWork is the working memory of pieces that are computed by matrix products. With c_i
// the sum of g up to and with token i of the piece, R what the state is read with for the
// erasure, and all exponents 0 or less:
//
//	L_ij = sum_d R_id k_jd exp(c_id - c_jd)  for j < i
//	A_ij = sum_d q_id k_jd exp(c_id - c_jd)  for j <= i
//	U = beta (V - (R exp c) S - L U)
//	y = (q exp c) S + A U
//	S = exp(c_n) S + (k exp(c_n - c))^T U
//
// with c_(i-1) in place of c_i in L and R exp c for EraseFirst. Of a pair, which reads with
// a and writes k v^T and b E^T, E is what U is otherwise: E = (a exp c) S + L V + L' E, L'
// made of a and b. S and U, or V and E, go panel by panel. What a token reads from S and
// from U is a product each, and the rows of U follow from each other, without an inverse.
type chunkWork struct {
	block   int // rows of a pair's block, in which V and E stand one below the other
	parts   int // rows of U for each token: 1, or 2 of V and E
	states  []headPanels
	u, kept kernel.Matrix // [parts n, panel]: U, and times what decays leave of it after the piece

	kT, bT kernel.Matrix // [K, n]: keys, and b of a pair, turned around
	kk, qk []float32     // [n, n]: products of keys, and of queries and keys, without decay
	asked  int           // the query head that qk and w.q are of; -1 for none

	sum   []float64 // [n+1]: of the logarithms of a head's decays, before each token
	falls []float32 // [3n+1]: memory for the next three
	grow  []float32 // [n+1]: exp of the sums before a token
	rest  []float32 // [n]: and of those after it
	step  []float32 // [n]: decays
	ones  []float32 // [n]
	less  []float32 // [n]: -beta
	by    []float32 // [n]: times grow
	rows  kernel.DeltaRows
	ahead kernel.Ahead
	keys  keyWork

	m          [4][]float32   // [n, n]: products with decay, of products below
	left, ask  reading        // what U and y are made of; ask for each query, one below the other
	written    blas32.General // [parts n, K]: what U is written to the state with
	tail       []float32      // memory for it, where it is not the keys
	last       []float32      // [K]: the decay of the whole piece
	eraserRows []float32      // [n, K]
	nothing    []float32      // [n, panel]: zeros
}

// reading is what tokens read with: from the state by times x [n, K], from U m [n, parts n].
type reading struct {
	x     blas32.General
	by, m []float32
}

// Products of a head: what is read or asked with, and what was written with.
const (
	readKey = iota
	readPair
	askKey
	askPair
)

func (c *chunkWork) begin(op *Recurrence, heads int) {
	c.parts, c.asked = 1, -1
	c.block = max(kernel.TileRows(), 12)
	if op.cfg.Erase == ErasePair {
		c.parts = 2
	}
	for len(c.states) < heads {
		c.states = append(c.states, headPanels{})
	}
	for i := range c.states {
		c.states[i].forget()
	}
}

// sweepChunk takes a piece through the recurrence by matrix products.
func (w *headWork) sweepChunk(op *Recurrence, call *Call, p piece) {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	w.k = scratch.Floats(w.k, n*width)
	w.normalized(op, w.k, call.K, p, p.key, 1)
	c.asked = -1
	c.kk, c.qk = scratch.Floats(c.kk, n*n), scratch.Floats(c.qk, op.each*n*n)
	byKey := op.cfg.Decay == KeyDecay
	keys := mat.Of(w.k, n, width)
	if !byKey {
		c.kT.SetT(keys)
		if op.cfg.Erase == EraseKey {
			kernel.Gemm(mat.Of(c.kk, n, n), keys, &c.kT, nil)
		}
	}
	c.left.m, c.ask.m = scratch.Floats(c.left.m, c.parts*n*n), scratch.Floats(c.ask.m, op.each*c.parts*n*n)
	c.last, c.less, c.by = scratch.Floats(c.last, width), scratch.Floats(c.less, n), scratch.Floats(c.by, n)
	c.ones = scratch.Floats(c.ones, n)
	fill(c.ones, 1)
	panel := kernel.PanelCols()
	c.u.Reshape(c.parts*n, panel)
	c.kept.Reshape(c.parts*n, panel)
	for i := range p.heads {
		h := p.first + i
		c.load(op, p, i)
		w.betas(op, call, p, h)
		for t, b := range w.beta {
			c.less[t] = -b
		}
		if q := op.queryHead(h); q != c.asked {
			c.asked = q
			w.queries(op, call, p, h)
			if !byKey {
				kernel.Gemm(mat.Of(c.qk, op.each*n, n), mat.Of(w.q, op.each*n, width), &c.kT, nil)
			}
		}
		if byKey {
			w.weighByKey(op, call, p, h)
		} else {
			w.weighByHead(op, call, p, h)
		}
		w.expect(op, call, p, i)
		for j := range c.states[p.before+i].panels {
			w.sweepPanel(op, call, p, i, j)
		}
		c.ahead.Finish()
	}
}

// sweepPanel takes panel j of a task's head through a piece.
func (w *headWork) sweepPanel(op *Recurrence, call *Call, p piece, head, j int) {
	c, n, h := &w.chunk, p.n, p.first+head
	width := kernel.PanelCols()
	s, from := c.states[p.before+head].panels[j].s, h*op.cfg.ValueDim+j*width
	cols := min(width, op.cfg.ValueDim-j*width)
	u, kept := c.u.Panel(0), c.kept.Panel(0)
	rows := func(m blas32.General, at int) blas32.General {
		return blas32.General{Rows: n, Cols: cols, Stride: m.Stride, Data: m.Data[p.t*m.Stride+at:]}
	}
	v := rows(call.V, from)
	switch {
	case op.cfg.Erase == NoErase:
		if cols < width {
			clear(u.Data)
		}
		kernel.ScaleRows(mat.Columns(u, 0, cols), w.beta, v)
		kernel.ScaleRows(kept, c.rest, u)
	case op.cfg.Erase == ErasePair:
		c.solvePair(s, v)
		kept = u
	default:
		if mat.Given(call.WriteGate) {
			w.u = scratch.Floats(w.u, n*cols)
			gated, gate := mat.Of(w.u, n, cols), rows(call.WriteGate, from)
			for t := range n {
				asm.Mul(mat.Row(gated, t), mat.Row(v, t), mat.Row(gate, t))
			}
			v = gated
		}
		d := kernel.DeltaRows{A: c.left.x, By: c.left.by, M: mat.Of(c.left.m, n, n), Ahead: &c.ahead}
		d.Solve(s, u.Data, kept.Data, w.beta, v, c.rest)
	}
	for q := range op.each {
		to := rows(call.Dst, (h*op.each+q)*op.cfg.ValueDim+j*width)
		c.answer(to, s, u.Data, q)
	}
	kernel.DeltaWrite(s, c.last, c.written, kept.Data)
}

// answer sets dst to what query q of a state reads from a panel.
func (c *chunkWork) answer(dst blas32.General, s, u []float32, q int) {
	n := dst.Rows
	d := kernel.DeltaRows{A: mat.Rows(c.ask.x, q*n, (q+1)*n), By: c.ask.by, M: mat.Rows(mat.Of(c.ask.m, len(c.ask.m)/(c.parts*n), c.parts*n), q*n, (q+1)*n), Ahead: &c.ahead}
	if c.parts == 1 {
		d.Ask(dst, s, u)
		return
	}
	for t := 0; t < n; t += c.block {
		own := min(c.block, n-t)
		c.pairRows(d, t, own, own).Ask(mat.Rows(dst, t, t+own), s, u)
	}
}

// expect has the rows that are next after a piece asked for while a head of it is computed:
// those of one head stand far apart.
func (w *headWork) expect(op *Recurrence, call *Call, p piece, head int) {
	k, v, h, next := op.cfg.KeyDim, op.cfg.ValueDim, p.next.first+head, p.next
	if next.n <= 0 {
		return
	}
	add := func(m blas32.General, from, cols int) {
		w.chunk.ahead.Add(mat.Columns(mat.Rows(m, next.t, next.t+next.n), from, cols))
	}
	add(call.V, h*v, v)
	add(call.Dst, h*op.each*v, op.each*v)
	if head == 0 {
		add(call.K, next.key*k, k)
		add(call.Q, op.queryHead(h)*k, op.each*k)
	}
	if op.cfg.Decay == KeyDecay {
		add(call.Decay, h*k, k)
	}
	if op.cfg.Erase >= EraseGated {
		add(call.Erase, h*k, k)
	}
	if op.cfg.Erase == ErasePair {
		add(call.Insert, h*k, k)
	}
}

// workFloats is what goroutines have, in float32.
func (op *Recurrence) workFloats(tokens, workers int) int64 {
	c := &op.cfg
	n, parts := int64(min(max(tokens, 0), pieceTokens)), int64(1)
	if c.Erase == ErasePair {
		parts = 2
	}
	k, each := int64(c.KeyDim), int64(op.each)
	whole := func(x int) int64 { return int64((x + panelWidth) / panelWidth * panelWidth) }
	keys, _ := op.taskKeys(1, 1)
	heads := int64(keys) * int64(c.Heads/c.KeyHeads)
	own := n*k*(6+each) + n*(12+n*(5+5*each)) + parts*n*k + parts*n*n*(1+each) + 2*parts*n*32 + n*64 + 2*k*whole(int(n)) + 32*32
	own += heads * k * whole(c.ValueDim)
	if c.Decay == KeyDecay {
		own += n*k*(8+each) + 16*k*3
	}
	own += int64(math.Ceil(float64(heads*k) * float64(c.ValueDim))) // states that nobody keeps
	return own * int64(min(workers, c.Heads))
}
