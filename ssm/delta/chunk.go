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
// faster than the recurrence. Products of panels as narrow as AVX2's gain little, with keys of
// 128 or more and one decay for all their channels; of NEON's nothing is known. Pairs have
// twice the products.
func (op *Recurrence) chunked(n int) bool {
	c := &op.cfg
	if c.Recurrent || n < chunkTokens || c.Erase == ErasePair {
		return false
	}
	switch tier := isa.Active(); {
	case chunkAlways || c.Erase == NoErase || tier == isa.Generic || tier == isa.AVX512:
		return true
	case tier == isa.AVX2:
		return c.Decay != KeyDecay && c.KeyDim >= 128
	}
	return false
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
// with c_(i-1) in place of c_i in L and R exp c for EraseFirst. S and U go panel by panel.
// What a token reads from S and from U is a product each, and the rows of U follow from each
// other, without an inverse.
type chunkWork struct {
	states  []headPanels
	u, kept kernel.Matrix // [n, panel]: U, and times what decays leave of it after the piece

	kT         kernel.Matrix // [K, n]: keys turned around
	kk, rk, qk []float32     // [n, n]: products of keys, of R and keys, of queries and keys, without decay
	asked      int           // the query head that qk and w.q are of; -1 for none

	sum   []float64 // [n+1]: of the logarithms of a head's decays, before each token
	falls []float32 // [3n+1]: memory for the next three
	grow  []float32 // [n+1]: exp of the sums before a token
	rest  []float32 // [n]: and of those after it
	step  []float32 // [n]: decays
	ones  []float32 // [n]
	less  []float32 // [n]: -beta
	by    []float32 // [n]: times grow
	keys  keyWork
	ahead kernel.Ahead

	left, ask  reading        // what U and y are made of; ask for each query, one below the other
	written    blas32.General // [n, K]: what U is written to the state with
	last       []float32      // [K]: the decay of the whole piece
	after      bool           // which what is written has before it, too
	eraserRows []float32      // [n, K]
}

// reading is what tokens read with: from the state by times x [n, K], from U m [n, n].
type reading struct {
	x     blas32.General
	by, m []float32
}

func (c *chunkWork) begin(heads int) {
	c.asked = -1
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
			kernel.DeltaProducts(mat.Of(c.kk, n, n), keys, &c.kT)
		}
	}
	c.left.m, c.ask.m = scratch.Floats(c.left.m, n*n), scratch.Floats(c.ask.m, op.each*n*n)
	c.last = scratch.Floats(c.last, width)
	c.less, c.by, c.ones = scratch.Floats(c.less, n), scratch.Floats(c.by, n), scratch.Floats(c.ones, n)
	fill(c.ones, 1)
	panel := kernel.PanelCols()
	c.u.Reshape(n, panel)
	c.kept.Reshape(n, panel)
	for i := range p.heads {
		h := p.first + i
		w.betas(op, call, p, h)
		for t, b := range w.beta {
			c.less[t] = -b
		}
		if q := op.queryHead(h); q != c.asked {
			c.asked = q
			w.queries(op, call, p, h)
			if !byKey {
				for i := range op.each {
					kernel.DeltaProducts(mat.Of(c.qk[i*n*n:], n, n), mat.Of(w.q[i*n*width:], n, width), &c.kT)
				}
			}
		}
		if !byKey {
			w.weighByHead(op, call, p, h)
		} else if !w.weighByKey(op, call, p, h) {
			w.sweepHead(op, call, p, i)
			continue
		}
		c.load(op, p, i)
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
	d := kernel.DeltaRows{Ahead: &c.ahead}
	if v := rows(call.V, from); op.cfg.Erase == NoErase {
		if cols < width {
			clear(u.Data)
		}
		kernel.ScaleRows(mat.Columns(u, 0, cols), w.beta, v)
		kernel.ScaleRows(kept, c.rest, u)
	} else {
		if mat.Given(call.WriteGate) {
			w.u = scratch.Floats(w.u, n*cols)
			gated, gate := mat.Of(w.u, n, cols), rows(call.WriteGate, from)
			for t := range n {
				asm.Mul(mat.Row(gated, t), mat.Row(v, t), mat.Row(gate, t))
			}
			v = gated
		}
		d.A, d.By, d.M = c.left.x, c.left.by, mat.Of(c.left.m, n, n)
		d.Solve(s, u.Data, kept.Data, w.beta, v, c.rest)
	}
	for q := range op.each {
		d.A, d.By, d.M = mat.Rows(c.ask.x, q*n, (q+1)*n), c.ask.by, mat.Of(c.ask.m[q*n*n:], n, n)
		d.Ask(rows(call.Dst, (h*op.each+q)*op.cfg.ValueDim+j*width), s, u.Data)
	}
	kernel.DeltaWrite(s, c.last, c.written, kept.Data, c.after)
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
}

// workFloats is what goroutines have, in float32.
func (op *Recurrence) workFloats(tokens, workers int) int64 {
	c := &op.cfg
	n := int64(min(max(tokens, 0), pieceTokens))
	k, each := int64(c.KeyDim), int64(op.each)
	whole := func(x int) int64 { return int64((x + panelWidth) / panelWidth * panelWidth) }
	keys, _ := op.taskKeys(1, 1)
	heads := int64(keys) * int64(c.Heads/c.KeyHeads)
	own := n*k*(6+each) + n*(14+n*(3+2*each)) + n*96 + k*(1+whole(int(n))) + 32*32
	own += heads * k * whole(c.ValueDim)
	if c.Decay == KeyDecay {
		own += n*k*(2+each) + k*whole(int(n))
	}
	own += int64(math.Ceil(float64(heads*k) * float64(c.ValueDim))) // states that nobody keeps
	return own * int64(min(workers, c.Heads))
}
