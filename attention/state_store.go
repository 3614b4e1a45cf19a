package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mapped"
	"github.com/subquad/subquad/internal/mat"
)

// store holds the keys or the values of tokens, [tokens, heads*dim], in one of
// the storage types; state_int8.go has more of Int8.
type store struct {
	format             asm.Format
	heads, dim, tokens int
	stride             int // of a token
	float32            []float32
	half               []uint16
	int8               []int8
	scale              []float32 // [parts, heads, tokens]
	turned             bool      // some row of int8 stands turned, or did
	value              int       // columns of a key that are its value, a part of their own; 0 for keys of one part
}

// newStore makes a store in a region; value is how many columns of a key are its value, if
// any.
func newStore(format asm.Format, heads, dim, value, tokens int, region *mapped.Region) store {
	s := store{format: format, heads: heads, dim: dim, tokens: tokens, stride: heads * dim}
	if value < dim {
		s.value = value
	}
	n := heads * dim * tokens
	switch format {
	case asm.Float32:
		s.float32 = region.Float32s(n)
	case asm.Int8:
		s.int8, s.scale = region.Int8s(n), region.Float32s(s.parts()*heads*tokens)
	default:
		s.half = region.Uint16s(n)
	}
	return s
}

// storeOf is a matrix of float32 where it stands, to be read.
func storeOf(m blas32.General, heads, dim int) store {
	return store{format: asm.Float32, heads: heads, dim: dim, tokens: m.Rows, stride: m.Stride, float32: m.Data}
}

// tokenBytes is the memory of a token's keys or values, in int8 of a number of parts.
func tokenBytes(format asm.Format, heads, dim, parts int) int64 {
	n := int64(heads) * int64(dim)
	switch format {
	case asm.Float32:
		return 4 * n
	case asm.Int8:
		return n + 4*int64(heads)*int64(parts)
	}
	return 2 * n
}

// put stores rows of x from row at on.
func (s *store) put(at int, x blas32.General) {
	cols := s.heads * s.dim
	var turned [mostTurned]float32
	for i := range x.Rows {
		row := mat.Part(x, i, 0, cols)
		to := (at + i) * cols
		switch s.format {
		case asm.Float32:
			copy(s.float32[to:], row)
		case asm.BFloat16:
			for j, v := range row {
				s.half[to+j] = asm.BFloat16Bits(v)
			}
		case asm.Float16:
			for j, v := range row {
				s.half[to+j] = asm.Float16Bits(saturated(v))
			}
		case asm.Int8:
			s.putInt8(at+i, row, &turned)
		}
	}
}

// saturated brings a finite number into the range of float16: beyond it, it would be Inf,
// and outputs NaN.
func saturated(v float32) float32 {
	const largest = 65504
	switch {
	case v > largest && v <= math.MaxFloat32:
		return largest
	case v < -largest && v >= -math.MaxFloat32:
		return -largest
	}
	return v
}

// copyRows copies n rows of another store of the kind, as they are; it may be s itself.
func (s *store) copyRows(at int, from *store, row, n int) {
	cols := s.heads * s.dim
	to, begin, end := at*cols, row*cols, (row+n)*cols
	switch s.format {
	case asm.Float32:
		if from.stride != cols { // a view's
			for i := range n {
				copy(s.float32[to+i*cols:][:cols], from.float32[(row+i)*from.stride:])
			}
			return
		}
		copy(s.float32[to:], from.float32[begin:end])
	case asm.Int8:
		copy(s.int8[to:], from.int8[begin:end])
		for h := range s.parts() * s.heads {
			copy(s.scale[h*s.tokens+at:], from.scale[h*from.tokens+row:][:n])
		}
		s.turned = s.turned || from.turned
	default:
		copy(s.half[to:], from.half[begin:end])
	}
}

// head returns n rows of one head, the first cols columns of it.
func (s *store) head(h, row, n, cols int) kernel.Strided {
	m := kernel.Strided{Format: kernel.Format(s.format), Rows: n, Cols: cols, Stride: s.stride}
	at := row*m.Stride + h*s.dim
	switch s.format {
	case asm.Float32:
		m.Float32 = s.float32[at:]
	case asm.Int8:
		m.Int8 = s.int8[at:]
	default:
		m.Half = s.half[at:]
	}
	return m
}

// widen sets dst [n, cols] to rows of one head as they count, the first cols
// columns of it.
func (s *store) widen(dst blas32.General, h, row int) {
	m := s.head(h, row, dst.Rows, dst.Cols)
	for i := range dst.Rows {
		x := mat.Row(dst, i)
		m.Widen(x, i, 0)
		if s.format == asm.Int8 {
			s.scaleRow(x, h, row+i)
		}
	}
}

// block is room for the keys and values of some tokens. A page is a block that
// several states may have a part in.
type block struct {
	k, v    store // v has no memory where values are a prefix of keys
	shared  bool
	weights []float32 // added to logits: [KVHeads, tokens], or none
	id      int       // of a page
	refs    int       // guarded by the pool
}

func (a *Attention) newBlock(cfg *StateConfig, tokens int) *block {
	return a.newBlockIn(nil, cfg, tokens)
}

// newBlockIn makes a block in a region, or on the heap.
func (a *Attention) newBlockIn(region *mapped.Region, cfg *StateConfig, tokens int) *block {
	c, value := &a.cfg, 0
	if cfg.SharedValues {
		value = c.ValueDim
	}
	b := &block{k: newStore(cfg.Format, c.KVHeads, c.HeadDim, value, tokens, region), shared: cfg.SharedValues}
	if !b.shared {
		b.v = newStore(cfg.Format, c.KVHeads, c.ValueDim, 0, tokens, region)
	}
	if cfg.LogWeights {
		b.weights = region.Float32s(a.cfg.KVHeads * tokens)
	}
	return b
}

// keyStore is where keys stand.
func (b *block) keyStore() *store { return &b.k }

// valueStore is where values stand.
func (b *block) valueStore() *store {
	if b.shared {
		return &b.k
	}
	return &b.v
}

func (b *block) tokens() int { return b.k.tokens }

func (b *block) moveRows(at int, from *block, row, n int) {
	b.k.copyRows(at, &from.k, row, n)
	if !b.shared {
		b.v.copyRows(at, &from.v, row, n)
	}
	for g := 0; g*b.tokens() < len(b.weights); g++ {
		copy(b.weights[g*b.tokens()+at:], from.logWeights(g, row, n))
	}
}

// logWeights are those of n rows of a head.
func (b *block) logWeights(h, row, n int) []float32 { return b.weights[h*b.tokens()+row:][:n] }

// putLogWeights sets them for all heads to rows of w, [n, 1] or [n, KVHeads], or to 0
// where w is empty.
func (b *block) putLogWeights(row, n int, w blas32.General) {
	for h := range b.k.heads {
		to := b.logWeights(h, row, n)
		clear(to)
		for i := range min(n, w.Rows) {
			to[i] = mat.Row(w, i)[min(h, w.Cols-1)]
		}
	}
}

// tokenBytes is what a token takes.
func (a *Attention) tokenBytes(cfg *StateConfig) int64 {
	c, parts := &a.cfg, 1
	if cfg.SharedValues && c.ValueDim < c.HeadDim {
		parts = 2
	}
	n := tokenBytes(cfg.Format, c.KVHeads, c.HeadDim, parts)
	if !cfg.SharedValues {
		n += tokenBytes(cfg.Format, c.KVHeads, c.ValueDim, 1)
	}
	if cfg.LogWeights {
		n += 4 * int64(a.cfg.KVHeads)
	}
	return n
}
