package dna

import (
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
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

// pooler gathers what poolings need, for each task by itself and then in the
// tasks' order, so that the result does not depend on who ran which.
type pooler struct {
	want    bool
	pooling Pooling
	parts   []pooled
	total   []float64
}

// pooled is what has been gathered of a task's tokens.
type pooled struct {
	count    int
	sum, one []float32 // the sum, and the first or last token's
}

func (p *pooler) begin(call *Call, tasks, dim int) {
	p.want, p.pooling = call.Pooled != nil || call.Classes != nil, call.Pooling
	if !p.want {
		return
	}
	for len(p.parts) < tasks {
		p.parts = append(p.parts, pooled{})
	}
	p.parts = p.parts[:tasks]
	if len(p.total) < dim {
		p.total = make([]float64, dim)
	}
	for i := range p.parts {
		part := &p.parts[i]
		part.count = 0
		part.sum = slices.Grow(part.sum[:0], dim)[:dim]
		part.one = slices.Grow(part.one[:0], dim)[:dim]
	}
}

// add gathers the hidden states of task i, whose first token is from.
func (p *pooler) add(i, from int, h blas32.General, mask []bool) {
	if !p.want {
		return
	}
	part := &p.parts[i]
	clear(part.sum)
	for t := range h.Rows {
		if mask != nil && !mask[from+t] {
			continue
		}
		x := row(h, t)
		asm.Add(part.sum, part.sum, x)
		switch {
		case p.pooling == Last || part.count == 0:
			copy(part.one, x)
		case p.pooling == Max:
			for c, v := range x {
				part.one[c] = max(part.one[c], v)
			}
		}
		part.count++
	}
}

// result sets dst to the pooled vector: zeros where no token counts.
func (p *pooler) result(dst []float32, pooling Pooling) {
	total, count := p.total[:len(dst)], 0
	clear(total)
	clear(dst)
	for i := range p.parts {
		part := &p.parts[i]
		if part.count == 0 {
			continue
		}
		switch {
		case pooling <= Sum:
			for c, v := range part.sum {
				total[c] += float64(v)
			}
		case pooling == Last || count == 0:
			copy(dst, part.one)
		case pooling == Max:
			for c, v := range part.one {
				dst[c] = max(dst[c], v)
			}
		}
		count += part.count
	}
	if pooling > Sum || count == 0 {
		return
	}
	if pooling == Sum {
		count = 1
	}
	for c, v := range total {
		dst[c] = float32(v / float64(count))
	}
}
