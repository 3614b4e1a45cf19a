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
// AVX2's and NEON's gain less than the solution of a piece's system costs, and pairs have
// twice the products.
func (op *Recurrence) chunked(n int) bool {
	if op.cfg.Recurrent || n < chunkTokens {
		return false
	}
	tier := isa.Active()
	return chunkAlways || op.cfg.Erase == NoErase || tier == isa.Generic || tier == isa.AVX512 && op.cfg.Erase != ErasePair
}

// chunkWork is the working memory of pieces that are computed by matrix products. With c_i
// the sum of g up to and with token i of the piece, R what the state is read with for the
// erasure, and all exponents 0 or less:
//
//	L_ij = beta_i sum_d R_id k_jd exp(c_id - c_jd)  for j < i
//	A_ij = sum_d q_id k_jd exp(c_id - c_jd)         for j <= i
//	U = beta (V - (R exp c) S) - L U
//	y = (q exp c) S + A U
//	S = exp(c_n) S + (k exp(c_n - c))^T U
//
// with c_(i-1) in place of c_i in L and R exp c for EraseFirst. Of a pair, which reads with
// a and writes k v^T and b E^T, E is what U is otherwise: E = (a exp c) S + L V + L' E, L'
// made of a and b. S, and below it U, or block by block V and E, stand in panels, so that
// U and y of a block of rows are a product each with all that is above them. A block's own
// triangle of L is inverted: it is small enough for that to cost no digits.
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
	step, row  []float32 // [n]: decays, and their products up to a token
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
	panel := c.statePanel(op, head, j)
	for at := 0; at < panel.Cols; {
		from := j*width + at
		s := op.panel(p.values, head, from/panelWidth*panelWidth)
		n := min(panel.Cols-at, s.Cols-from%panelWidth)
		f(mat.Columns(panel, at, n), mat.Columns(s, from%panelWidth, n))
		at += n
	}
}

// statePanel returns the state in panel j of a head, [K, width].
func (c *chunkWork) statePanel(op *Recurrence, head, j int) blas32.General {
	return mat.Rows(c.states[head].panels[j].Panel(0), 0, op.cfg.KeyDim)
}

// load brings a head's state into panels, unless it is there.
func (c *chunkWork) load(op *Recurrence, p piece, head int) {
	h := &c.states[head]
	if h.loaded {
		return
	}
	h.loaded = true
	width := kernel.PanelCols()
	n := (op.cfg.ValueDim + width - 1) / width
	for len(h.panels) < n {
		h.panels = append(h.panels, kernel.Matrix{})
	}
	h.panels = h.panels[:n]
	for j := range h.panels {
		h.panels[j].Reshape(op.cfg.KeyDim+c.parts*pieceTokens, min(width, op.cfg.ValueDim-j*width))
		c.eachColumns(op, p, head, j, func(panel, values blas32.General) { mat.Copy(panel, values) })
	}
}

// unload brings the states of a task's heads back to where they are kept.
func (c *chunkWork) unload(op *Recurrence, p piece) {
	for head := range p.heads {
		h := &c.states[head]
		if !h.loaded {
			continue
		}
		h.loaded = false
		for j := range h.panels {
			c.eachColumns(op, p, head, j, func(panel, values blas32.General) { mat.Copy(values, panel) })
		}
	}
}

// flush sets tiny values of the states of a task's heads to 0.
func (c *chunkWork) flush(op *Recurrence, p piece) {
	size := op.cfg.KeyDim * op.cfg.ValueDim
	for head := range p.heads {
		if !c.states[head].loaded {
			kernel.Flush(p.values[head*size:][:size])
			continue
		}
		for j := range c.states[head].panels {
			s := c.statePanel(op, head, j)
			kernel.Flush(s.Data[:s.Rows*s.Stride])
		}
	}
}

// sweepChunk takes a piece through the recurrence by matrix products.
func (w *headWork) sweepChunk(op *Recurrence, call *Call, p piece) {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	w.k = scratch.Floats(w.k, n*width)
	op.normalized(w.k, call.K, p, p.key, 1)
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
			kernel.Gemm(mat.Of(c.kk, n, n), k, &c.kT, nil)
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
		c.invert(op, n)
		for j := range c.states[i].panels {
			w.sweepPanel(op, call, p, i, j)
		}
	}
}

// noneLeft is a logarithm whose exponential is 0 in float32. Decays below it are taken for
// it: differences of -Inf would be NaN, and huge sums lose the digits of small ones.
const noneLeft = -256

// sumLogs sets c.sum to the sums of a head's logarithms, c.grow and c.rest to the
// exponentials of those before and after each token, and c.step to a token's own.
func (c *chunkWork) sumLogs(op *Recurrence, call *Call, p piece, h int) {
	n := p.n
	c.sum = append(scratch.Sized(c.sum, n+1)[:0], 0)
	var sum float64
	c.grow, c.rest = scratch.Floats(c.grow, n+1), scratch.Floats(c.rest, n)
	c.step, c.row = scratch.Floats(c.step, n), scratch.Floats(c.row, n)
	for t := range n {
		var g float32
		switch op.cfg.Decay {
		case ConstantDecay:
			g = op.cfg.LogDecay[h]
		case HeadDecay:
			g = max(mat.Row(call.Decay, p.t+t)[h], noneLeft)
		}
		c.step[t] = g
		sum += float64(g)
		c.sum = append(c.sum, sum)
	}
	for t, s := range c.sum {
		c.grow[t] = float32(s)
	}
	for t := range n {
		c.rest[t] = float32(sum - c.sum[t+1])
	}
	asm.Exp(c.grow, c.grow)
	asm.Exp(c.rest, c.rest)
	asm.Exp(c.step, c.step)
}

// weighByHead makes c.left, c.ask and c.tail of a head with one decay for all key channels:
// products without decay, times exp(c_i - c_j).
func (w *headWork) weighByHead(op *Recurrence, call *Call, p piece, h int) {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	c.sumLogs(op, call, p, h)
	erasers := w.k
	read, asked := c.kk, c.qk
	if op.cfg.Erase >= EraseGated {
		erasers = w.erasers(op, call, p, h)
		read = c.m[readKey]
		kernel.Gemm(mat.Of(read, n, n), mat.Of(erasers, n, width), &c.kT, nil)
	}
	pair := c.parts == 2
	if pair {
		c.bT.SetT(mat.Columns(mat.Rows(call.Insert, p.t, p.t+n), h*width, width))
		kernel.Gemm(mat.Of(c.m[readPair], n, n), mat.Of(erasers, n, width), &c.bT, nil)
		kernel.Gemm(mat.Of(c.m[askPair], op.each*n, n), mat.Of(w.q, op.each*n, width), &c.bT, nil)
	}
	decayed := op.cfg.Decay != NoDecay
	times := func(dst, from []float32, m int) {
		if decayed {
			asm.Mul(dst[:m], from[:m], c.row[:m])
		} else {
			copy(dst[:m], from[:m])
		}
	}
	wide := width + c.parts*n
	row := c.row
	for i := range n {
		erase := func() {
			if op.cfg.Erase == NoErase {
				return
			}
			times(c.m[readKey][i*n:], read[i*n:], i)
			if pair {
				times(c.m[readPair][i*n:], c.m[readPair][i*n:], i)
			}
		}
		if op.cfg.EraseFirst { // row has exp(c_(i-1) - c_j)
			erase()
		}
		if decayed {
			asm.Scale(row[:i], c.step[i], row[:i])
			row[i] = 1
		}
		if !op.cfg.EraseFirst {
			erase()
		}
		for q := range op.each {
			at := (q*n + i) * n
			if !pair {
				times(c.ask[(q*n+i)*wide+width:], asked[at:], i+1)
				continue
			}
			times(c.m[askKey][at:], asked[at:], i+1)
			times(c.m[askPair][at:], c.m[askPair][at:], i+1)
		}
	}
	rows := func(x []float32, at, wide int) blas32.General {
		return mat.Columns(mat.Of(x[at*wide:], n, wide), 0, width)
	}
	if op.cfg.Erase != NoErase {
		before := c.grow[1:]
		if op.cfg.EraseFirst {
			before = c.grow
		}
		for i := range row {
			row[i] = before[i] * c.sign(w.beta[i])
		}
		kernel.ScaleRows(rows(c.left, 0, wide), row, mat.Of(erasers, n, width))
	}
	for q := range op.each {
		kernel.ScaleRows(rows(c.ask, q*n, wide), c.grow[1:], rows(w.q, q*n, width))
	}
	for from := 0; from < n; from += c.block {
		own := min(c.block, n-from)
		kernel.ScaleRows(mat.Of(c.tailRow(from, 0, n, width), own, width), c.rest[from:from+own], mat.Of(w.k[from*width:], own, width))
		if pair {
			kernel.ScaleRows(mat.Of(c.tailRow(from, 1, n, width), own, width), c.rest[from:from+own], mat.Columns(mat.Rows(call.Insert, p.t+from, p.t+from+own), h*width, width))
		}
	}
	for d := range c.last {
		c.last[d] = c.grow[n]
	}
	w.assemble(op, n, width)
}

// sign returns what a row of L is multiplied by in c.left: -beta, or 1 of a pair.
func (c *chunkWork) sign(beta float32) float32 {
	if c.parts == 2 {
		return 1
	}
	return -beta
}

// at returns where token j's part stands among the rows below a state: blocks of n tokens
// in all, each with its parts one after the other.
func (c *chunkWork) at(j, part, n int) int {
	from := j / c.block * c.block
	return c.parts*from + part*min(c.block, n-from) + j - from
}

// tailRow returns c.tail from the row of token j's part on.
func (c *chunkWork) tailRow(j, part, n, width int) []float32 {
	return c.tail[c.at(j, part, n)*width:]
}

// erasers sets and returns the rows that a head's state is read with for the erasure.
func (w *headWork) erasers(op *Recurrence, call *Call, p piece, h int) []float32 {
	c, width := &w.chunk, op.cfg.KeyDim
	c.eraserRows = scratch.Floats(c.eraserRows, p.n*width)
	for t := range p.n {
		row := c.eraserRows[t*width:][:width]
		if e := w.eraser(op, call, p, h, t, row); &e[0] != &row[0] {
			copy(row, e)
		}
	}
	return c.eraserRows
}

// assemble brings the products into c.left and c.ask, to the right of what multiplies the
// state, and a block's own triangle of L, without its sign, into c.solve.
func (w *headWork) assemble(op *Recurrence, n, width int) {
	c := &w.chunk
	wide := width + c.parts*n
	for from := 0; from < n; from += c.block {
		own := min(c.block, n-from)
		if op.cfg.Erase != NoErase {
			c.assembleLeft(w.beta, from, own, n, width)
		}
		for q := range op.each {
			for i := from; i < from+own; i++ {
				row := c.ask[(q*n+i)*wide+width:][:c.parts*(from+own)]
				if c.parts == 1 {
					clear(row[i+1:])
					continue
				}
				c.spread(row, c.m[askKey][(q*n+i)*n:], 0, i+1, n)
				c.spread(row, c.m[askPair][(q*n+i)*n:], 1, i+1, n)
			}
		}
	}
}

// assembleLeft is assemble for own rows of L from a block's first one on.
func (c *chunkWork) assembleLeft(beta []float32, from, own, n, width int) {
	wide := width + c.parts*n
	if c.parts == 1 {
		c.row = scratch.Floats(c.row, n)
		for i := range own {
			c.row[i] = -beta[from+i]
		}
		read := mat.Rows(mat.Of(c.m[readKey], n, n), from, from+own)
		kernel.ScaleRows(mat.Columns(mat.Rows(mat.Of(c.left, n, wide), from, from+own), width, from), c.row[:own], mat.Columns(read, 0, from))
		kernel.ScaleRows(mat.Columns(mat.Rows(mat.Of(c.solve, n, c.block), from, from+own), 0, own), beta[from:from+own], mat.Columns(read, from, own))
		return
	}
	for i := from; i < from+own; i++ {
		row := c.left[i*wide+width:][:c.parts*(from+own)]
		c.spread(row, c.m[readKey][i*n:], 0, i, n)
		c.spread(row, c.m[readPair][i*n:], 1, from, n)
		asm.Scale(c.solve[i*c.block:][:i-from], -1, c.m[readPair][i*n+from:][:i-from])
	}
}

// spread copies the first m products of a row to where their tokens' part stands, and
// zeros to the rest of their block.
func (c *chunkWork) spread(row, from []float32, part, m, n int) {
	for j := 0; j < n && c.at(j, part, n) < len(row); j += c.block {
		own := min(c.block, n-j)
		to := row[c.at(j, part, n):][:own]
		k := copy(to, from[j:max(j, min(j+own, m))])
		clear(to[k:])
	}
}

// invert replaces each block's triangle N in c.solve by the inverse of 1 + N.
func (c *chunkWork) invert(op *Recurrence, n int) {
	if op.cfg.Erase == NoErase {
		return
	}
	var line [64]float32
	for from := 0; from < n; from += c.block {
		own := min(c.block, n-from)
		for i := range own {
			row := c.solve[(from+i)*c.block:][:own]
			weights := line[:i]
			copy(weights, row)
			clear(row)
			for j, x := range weights {
				for k, v := range c.solve[(from+j)*c.block:][:j+1] {
					row[k] -= float32(x * v)
				}
			}
			row[i] = 1
		}
	}
}

// sweepPanel takes panel j of a task's head through a piece.
func (w *headWork) sweepPanel(op *Recurrence, call *Call, p piece, head, j int) {
	c, n, width, h := &w.chunk, p.n, op.cfg.KeyDim, p.first+head
	m := &c.states[head].panels[j]
	panel := m.Panel(0)
	from, cols, wide := h*op.cfg.ValueDim+j*kernel.PanelCols(), panel.Cols, width+c.parts*n
	c.x.Reshape(c.block, cols)
	left := mat.Of(c.left, n, wide)
	for t := 0; t < n; t += c.block {
		own := min(c.block, n-t)
		at := width + c.parts*t
		v := mat.Columns(mat.Rows(call.V, p.t+t, p.t+t+own), from, cols)
		u := mat.Rows(panel, at, at+own)
		steps := len(c.states[head].panels) * n
		w.prefetch(op, call, p, head, j*n+t, j*n+t+own, steps)
		x, solve := mat.Rows(c.x.Panel(0), 0, own), mat.Columns(mat.Rows(mat.Of(c.solve, n, c.block), t, t+own), 0, own)
		switch op.cfg.Erase {
		case NoErase:
			kernel.ScaleRows(u, w.beta[t:t+own], v)
		case ErasePair:
			mat.Copy(u, v)
			kernel.PanelProduct(x, mat.Columns(mat.Rows(left, t, t+own), 0, at+own), m, 0, 0, at+own, false, false)
			kernel.PanelProduct(mat.Rows(panel, at+own, at+2*own), solve, &c.x, 0, 0, own, false, false)
		default:
			kernel.ScaleRows(x, w.beta[t:t+own], v)
			if mat.Given(call.WriteGate) {
				for i := range own {
					row := mat.Row(x, i)
					asm.Mul(row, row, mat.Part(call.WriteGate, p.t+t+i, from, cols))
				}
			}
			kernel.PanelProduct(x, mat.Columns(mat.Rows(left, t, t+own), 0, at), m, 0, 0, at, false, true)
			kernel.PanelProduct(u, solve, &c.x, 0, 0, own, false, false)
		}
		for q := range op.each {
			ask := mat.Of(c.ask[q*n*wide:], n, wide)
			dst := mat.Columns(mat.Rows(call.Dst, p.t+t, p.t+t+own), (h*op.each+q)*op.cfg.ValueDim+j*kernel.PanelCols(), cols)
			kernel.PanelProduct(dst, mat.Columns(mat.Rows(ask, t, t+own), 0, at+c.parts*own), m, 0, 0, at+c.parts*own, false, false)
		}
	}
	s := c.statePanel(op, head, j)
	if op.cfg.Decay != NoDecay {
		kernel.ScaleRows(s, c.last, s)
	}
	kernel.PanelProduct(s, mat.Of(c.tail, c.parts*n, width), m, 0, width, width+c.parts*n, true, true)
}

// prefetch asks for some of the rows after a piece, from of steps to to of steps, so that
// they come while the piece is computed: those of one head stand far apart.
func (w *headWork) prefetch(op *Recurrence, call *Call, p piece, head, from, to, steps int) {
	k, v, h := op.cfg.KeyDim, op.cfg.ValueDim, p.first+head
	for t := p.t + p.n + p.ahead*from/steps; t < p.t+p.n+p.ahead*to/steps; t++ {
		kernel.Prefetch(mat.Part(call.V, t, h*v, v))
		kernel.Prefetch(mat.Part(call.Dst, t, h*op.each*v, op.each*v))
		if head == 0 {
			kernel.Prefetch(mat.Part(call.K, t, p.key*k, k))
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
	heads := int64(c.Heads / c.KeyHeads)
	own := n*k*(8+each) + n*(8+n*(2+5*each)) + n*(k+parts*n)*(1+each) + parts*n*k + n*32 + 2*k*whole(int(n)) + 32*32
	own += heads * (k + parts*pieceTokens) * whole(c.ValueDim)
	if c.Decay == KeyDecay {
		own += n*k*7 + 16*k*3
	}
	own += int64(math.Ceil(float64(heads*k) * float64(c.ValueDim))) // states that nobody keeps
	return own * int64(min(workers, c.Heads))
}
