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
// made of a and b. S, and below it U, or block by block V and E, stand in panels, so that
// U and y of a block of rows are a product each with all that is above them. A block's own
// triangle of 1 + beta L is inverted: it is small enough for that to cost no digits.
type chunkWork struct {
	block  int // rows of a block
	parts  int // what stands in panels for each token: U, or V and E
	states []headPanels
	x      kernel.Matrix // [block, panel]: the right side of a block's triangular system

	kT, bT kernel.Matrix // [K, n]: keys, and b of a pair, turned around
	kk, qk []float32     // [n, n]: products of keys, and of queries and keys, without decay
	asked  int           // the query head that qk and w.q are of; -1 for none

	sum        []float64 // [n+1]: of the logarithms of a head's decays, before each token
	grow, rest []float32 // [n+1], [n]: exp of the sums before and after a token
	step       []float32 // [n]: decays
	falls      []float32 // [n, n]: their products from token to token
	keys       keyWork
	products   []keyProduct

	m          [4][]float32 // [n, n]: products with decay, of products below
	left, ask  []float32    // [n, K + parts n]: what U and y are made of; ask of each query
	tail       []float32    // [parts n, K]: what is written to the state
	solve      []float32    // [n, block]: inverses
	last       []float32    // [K]: the decay of the whole piece
	eraserRows []float32    // [n, K]
}

// Products of a head: what is read or asked with, and what was written with.
const (
	readKey = iota
	readPair
	askKey
	askPair
)

// headPanels is a head's state in panels, above the rows of a chunk.
type headPanels struct {
	panels []kernel.Matrix
	loaded bool
}

// blockRows is how many rows of a chunk make a block: few, and full tiles of products.
func blockRows() int {
	tile := kernel.TileRows()
	return tile * max(1, 12/tile)
}

func (c *chunkWork) begin(op *Recurrence, heads int) {
	c.block, c.parts, c.asked = blockRows(), 1, -1
	if op.cfg.Erase == ErasePair {
		c.parts = 2
	}
	for len(c.states) < heads {
		c.states = append(c.states, headPanels{})
	}
	for i := range c.states {
		c.states[i].loaded = false
	}
}

// eachColumns calls f with panel j of a head's state, [K, panel], and with the parts of its
// values that stand there.
func (c *chunkWork) eachColumns(op *Recurrence, p piece, head, j int, f func(panel, values blas32.General)) {
	width := kernel.PanelCols()
	panel := c.statePanel(op, p.before+head, j)
	for at := 0; at < panel.Cols; {
		from := j*width + at
		s := op.panel(p.values, head, from/panelWidth*panelWidth)
		n := min(panel.Cols-at, s.Cols-from%panelWidth)
		f(mat.Columns(panel, at, n), mat.Columns(s, from%panelWidth, n))
		at += n
	}
}

// statePanel returns the state in panel j of a head of a task, [K, width].
func (c *chunkWork) statePanel(op *Recurrence, head, j int) blas32.General {
	return mat.Rows(c.states[head].panels[j].Panel(0), 0, op.cfg.KeyDim)
}

// load brings a head's state into panels, unless it is there.
func (c *chunkWork) load(op *Recurrence, p piece, head int) {
	h := &c.states[p.before+head]
	if h.loaded {
		return
	}
	h.loaded = true
	width := kernel.PanelCols()
	n := (op.cfg.ValueDim + width - 1) / width
	h.panels = h.panels[:cap(h.panels)] // with the memory that they have
	for len(h.panels) < n {
		h.panels = append(h.panels, kernel.Matrix{})
	}
	h.panels = h.panels[:n]
	for j := range h.panels {
		h.panels[j].Reshape(op.cfg.KeyDim+c.parts*pieceTokens, min(width, op.cfg.ValueDim-j*width))
		c.eachColumns(op, p, head, j, func(panel, values blas32.General) { mat.Copy(panel, values) })
	}
}

// unload brings the states of a piece's heads back to where they are kept.
func (c *chunkWork) unload(op *Recurrence, p piece) {
	for head := range p.heads {
		h := &c.states[p.before+head]
		if !h.loaded {
			continue
		}
		h.loaded = false
		for j := range h.panels {
			c.eachColumns(op, p, head, j, func(panel, values blas32.General) { mat.Copy(values, panel) })
		}
	}
}

// flush sets tiny values of the states of a piece's heads to 0.
func (c *chunkWork) flush(op *Recurrence, p piece) {
	size := op.cfg.KeyDim * op.cfg.ValueDim
	for head := range p.heads {
		h := &c.states[p.before+head]
		if !h.loaded {
			kernel.Flush(p.values[head*size:][:size])
			continue
		}
		for j := range h.panels {
			s := c.statePanel(op, p.before+head, j)
			kernel.Flush(s.Data[:s.Rows*s.Stride])
		}
	}
}

// sweepChunk takes a piece through the recurrence by matrix products.
func (w *headWork) sweepChunk(op *Recurrence, call *Call, p piece) {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	w.k = scratch.Floats(w.k, n*width)
	w.normalized(op, w.k, call.K, p, p.key, 1)
	if op.cfg.Erase == EraseKey {
		w.negative = scratch.Floats(w.negative, n*width)
		asm.Scale(w.negative, -1, w.k)
	}
	c.asked = -1
	c.kk, c.qk = scratch.Floats(c.kk, n*n), scratch.Floats(c.qk, op.each*n*n)
	for i := range c.m {
		c.m[i] = scratch.Floats(c.m[i], op.each*n*n)
	}
	byKey := op.cfg.Decay == KeyDecay
	if !byKey {
		k := mat.Of(w.k, n, width)
		c.kT.SetT(k)
		if op.cfg.Erase == EraseKey {
			kernel.Gemm(mat.Of(c.kk, n, n), mat.Of(w.negative, n, width), &c.kT, nil)
		}
	}
	wide := width + c.parts*n
	c.left, c.ask = scratch.Floats(c.left, n*wide), scratch.Floats(c.ask, op.each*n*wide)
	c.tail, c.solve, c.last = scratch.Floats(c.tail, c.parts*n*width), scratch.Floats(c.solve, n*c.block), scratch.Floats(c.last, width)
	for i := range p.heads {
		h := p.first + i
		c.load(op, p, i)
		w.betas(op, call, p, h)
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
		c.invert(op, w.beta, n)
		for j := range c.states[p.before+i].panels {
			w.sweepPanel(op, call, p, i, j)
		}
	}
}

// sweepPanel takes panel j of a task's head through a piece. What comes from memory is asked
// for a little at a time, between the products.
func (w *headWork) sweepPanel(op *Recurrence, call *Call, p piece, head, j int) {
	const parts = 4 // of a panel's work, between which rows are asked for
	c, n, width, h := &w.chunk, p.n, op.cfg.KeyDim, p.first+head
	m := &c.states[p.before+head].panels[j]
	panel := m.Panel(0)
	from, cols, wide := h*op.cfg.ValueDim+j*kernel.PanelCols(), panel.Cols, width+c.parts*n
	var none blas32.General
	c.x.Reshape(c.block, cols)
	x := c.x.Panel(0)
	asked := parts * n * j
	ask := func(tokens int) {
		w.prefetch(op, call, p, head, asked, asked+tokens, parts*n*len(c.states[p.before+head].panels))
		asked += tokens
	}
	for t := 0; t < n; t += c.block {
		own := min(c.block, n-t)
		at := width + c.parts*t
		left := func(cols int) blas32.General {
			return blas32.General{Rows: own, Cols: cols, Stride: wide, Data: c.left[t*wide:]}
		}
		v := blas32.General{Rows: own, Cols: cols, Stride: call.V.Stride, Data: call.V.Data[(p.t+t)*call.V.Stride+from:]}
		x, u := mat.Rows(x, 0, own), mat.Rows(panel, at, at+own)
		solve := blas32.General{Rows: own, Cols: own, Stride: c.block, Data: c.solve[t*c.block:]}
		ask(own)
		switch op.cfg.Erase {
		case NoErase:
			kernel.ScaleRows(u, w.beta[t:t+own], v)
		case ErasePair:
			mat.Copy(u, v)
			kernel.PanelProduct(x, none, left(at+own), m, 0, 0, at+own, false)
			ask(own)
			kernel.PanelProduct(mat.Rows(panel, at+own, at+2*own), none, solve, &c.x, 0, 0, own, false)
		default:
			if mat.Given(call.WriteGate) {
				for i := range own {
					asm.Mul(mat.Row(x, i), mat.Row(v, i), mat.Part(call.WriteGate, p.t+t+i, from, cols))
				}
				v = x
			}
			kernel.PanelProduct(x, v, left(at), m, 0, 0, at, false)
			ask(own)
			kernel.PanelProduct(u, none, solve, &c.x, 0, 0, own, false)
		}
		for q := range op.each {
			a := blas32.General{Rows: own, Cols: at + c.parts*own, Stride: wide, Data: c.ask[(q*n+t)*wide:]}
			dst := blas32.General{Rows: own, Cols: cols, Stride: call.Dst.Stride, Data: call.Dst.Data[(p.t+t)*call.Dst.Stride+(h*op.each+q)*op.cfg.ValueDim+j*kernel.PanelCols():]}
			kernel.PanelProduct(dst, none, a, m, 0, 0, at+c.parts*own, false)
		}
		ask(own)
	}
	s := mat.Rows(panel, 0, width)
	if op.cfg.Decay != NoDecay {
		kernel.ScaleRows(s, c.last, s)
	}
	tail := mat.Of(c.tail, c.parts*n, width)
	half := width / 2 / c.block * c.block // whole tiles
	for _, rows := range [...][2]int{{0, half}, {half, width}} {
		part := mat.Rows(s, rows[0], rows[1])
		kernel.PanelProduct(part, part, mat.Columns(tail, rows[0], rows[1]-rows[0]), m, 0, width, width+c.parts*n, true)
		if rows[0] == 0 {
			ask(parts*n*(j+1) - asked)
		}
	}
}

// prefetch asks for some of the rows that are next after a piece, from of steps to to of
// steps, so that they come while the piece is computed: those of one head stand far apart.
func (w *headWork) prefetch(op *Recurrence, call *Call, p piece, head, from, to, steps int) {
	k, v, h := op.cfg.KeyDim, op.cfg.ValueDim, p.next.first+head
	for t := p.next.t + p.next.n*from/steps; t < p.next.t+p.next.n*to/steps; t++ {
		kernel.Prefetch(mat.Part(call.V, t, h*v, v))
		kernel.Prefetch(mat.Part(call.Dst, t, h*op.each*v, op.each*v))
		if head == 0 {
			kernel.Prefetch(mat.Part(call.K, t, p.next.key*k, k))
			kernel.Prefetch(mat.Part(call.Q, t, op.queryHead(h)*k, op.each*k))
		}
		if op.cfg.Decay == KeyDecay {
			kernel.Prefetch(mat.Part(call.Decay, t, h*k, k))
		}
		if op.cfg.Erase >= EraseGated {
			kernel.Prefetch(mat.Part(call.Erase, t, h*k, k))
		}
		if op.cfg.Erase == ErasePair {
			kernel.Prefetch(mat.Part(call.Insert, t, h*k, k))
		}
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
	own := n*k*(8+each) + n*(8+n*(2+5*each)) + n*(k+parts*n)*(1+each) + parts*n*k + n*32 + 2*k*whole(int(n)) + 32*32
	own += heads * (k + parts*pieceTokens) * whole(c.ValueDim)
	if c.Decay == KeyDecay {
		own += n*k*7 + 16*k*3
	}
	own += int64(math.Ceil(float64(heads*k) * float64(c.ValueDim))) // states that nobody keeps
	return own * int64(min(workers, c.Heads))
}
