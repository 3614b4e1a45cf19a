package lm

import (
	"context"
	"slices"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// Pooling makes one vector of a sequence's hidden states.
type Pooling uint8

const (
	Mean  Pooling = iota // the mean
	Sum                  // the sum
	Max                  // the largest of each column
	First                // the first token's
	Last                 // the last token's
)

// pooler gathers what poolings need, token by token, for some columns in a task. Sums are
// float32 within dense.BlockRows tokens of a sequence and float64 beyond, so that no bit
// depends on pieces and workers.
type pooler struct {
	sum, one []float32 // [D]: of the block of tokens, and the first, last or largest
	total    []float64 // [D]
	strips   []strip
	inputs   []float32 // of the classifier, [sequences, D]
}

// strip is what a task keeps between pieces, of the sequence that goes on.
type strip struct {
	counted int // tokens that count
	block   int // of them, in the block
	last    int // the token whose hidden state a classifier reads
}

// stripCols is how many columns a task gathers.
const stripCols = 128

// beginPools makes room for the vectors that a call asks for, and sets them to 0.
func (p *pooler) beginPools(s *run) {
	if s.call.Pooled == nil && s.call.Classes == nil {
		p.strips = p.strips[:0]
		return
	}
	clear(s.call.Pooled)
	dim, strips := s.m.dim, (s.m.dim+stripCols-1)/stripCols
	p.strips = slices.Grow(p.strips[:0], strips)[:strips]
	p.sum, p.one = scratch.Floats(p.sum, dim), scratch.Floats(p.one, dim)
	if len(p.total) < dim {
		p.total = make([]float64, dim)
	}
	if s.call.Classes != nil {
		p.inputs = scratch.Floats(p.inputs, len(s.layout.Segments)*dim)
		clear(p.inputs)
	}
}

// poolPiece gathers the hidden states of the piece, where they are wanted.
func (s *run) poolPiece(ctx context.Context) error {
	return s.group.Run(ctx, s.workers, len(s.pool.strips), s.gather)
}

// poolColumns gathers some columns of the piece's hidden states.
func (s *run) poolColumns(_, i int) {
	p, call, h := &s.pool, &s.call, s.hiddenRows()
	st := &p.strips[i]
	from, to := i*stripCols, min((i+1)*stripCols, s.m.dim)
	sum, one, total := p.sum[from:to], p.one[from:to], p.total[from:to]
	for k, sequence := range s.sequences {
		g := s.layout.Segments[sequence]
		for t := s.offsets[k]; t < s.offsets[k+1]; t++ {
			row := s.from + t
			x := mat.Part(h, t, from, to-from)
			if row == g.From {
				*st = strip{last: s.m.lastToken(call.Tokens[g.From:g.To])}
				clear(sum)
				clear(total)
			}
			if call.Mask == nil || call.Mask[row] {
				asm.Add(sum, sum, x)
				switch {
				case call.Pooling == Last || st.counted == 0:
					copy(one, x)
				case call.Pooling == Max:
					for c, v := range x {
						one[c] = max(one[c], v)
					}
				}
				st.counted++
				st.block++
			}
			if call.Classes != nil && row-g.From == st.last {
				copy(p.inputs[sequence*s.m.dim+from:], x)
			}
			ends := row == g.To-1
			if st.block > 0 && (ends || (row-g.From+1)%dense.BlockRows == 0) {
				for c, v := range sum {
					total[c] += float64(v)
				}
				clear(sum)
				st.block = 0
			}
			if ends && st.counted > 0 {
				if call.Pooled != nil {
					pooled(call.Pooled[sequence*s.m.dim+from:][:to-from], one, total, call.Pooling, st.counted)
				}
				if call.Classes != nil && st.last < 0 {
					pooled(p.inputs[sequence*s.m.dim+from:][:to-from], one, total, Mean, st.counted)
				}
			}
		}
	}
}

// pooled sets dst to a pooling of counted tokens.
func pooled(dst, one []float32, total []float64, pooling Pooling, counted int) {
	switch pooling {
	case Mean, Sum:
		if pooling == Sum {
			counted = 1
		}
		for c, v := range total {
			dst[c] = float32(v / float64(counted))
		}
	default:
		copy(dst, one)
	}
}

// lastToken returns the token whose hidden state the classifier reads: that before the
// first padding, or the last one where there is none or the first token is padding. It is
// -1 for a classifier that reads the mean.
func (m *Model) lastToken(tokens []int32) int {
	c := m.cfg.Classifier
	if c == nil || !c.Last {
		return -1
	}
	if t := slices.Index(tokens, c.Pad); t > 0 {
		return t - 1
	}
	return len(tokens) - 1
}

// classify runs the classifier on what has been gathered.
func (s *run) classify() {
	n, classes := len(s.layout.Segments), s.m.Classes()
	s.m.cfg.Classifier.Weights.Forward(mat.Of(s.call.Classes, n, classes), mat.Of(s.pool.inputs, n, s.m.dim))
}
