package mamba

import (
	"fmt"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/ssm"
)

// Model is a Mamba language model. It is immutable and safe for concurrent use.
type Model struct {
	cfg       Config
	embedding *dense.Linear // D -> V, lm where there is no other: a token's are an output's weights
	layers    []layer
	norm      norm
	lm        *dense.Linear // D -> V
	state     int           // bytes of a state
	scratch   scratch.List[run]
}

// norm is an RMSNorm or a LayerNorm.
type norm struct {
	weight, bias []float32
	eps          float32
	layer        bool
}

func (n *norm) row(dst, x []float32) {
	if n.layer {
		asm.LayerNorm(dst, x, n.weight, n.bias, n.eps)
	} else {
		asm.RMSNorm(dst, x, n.weight, n.eps)
	}
}

// layer is r += mixer(norm(r)) and, in hybrids,
//
//	y, gate = up(norm2(r));  r += down(y silu(gate)).
type layer struct {
	norm     norm
	mixer    ssm.Block
	norm2    norm
	up, down *dense.Linear // nil where there is no MLP
	inner    int
}

// newModel builds the model of a checkpoint.
func newModel(f *weights.File, cfg Config) (*Model, error) {
	if err := cfg.check("mamba: "); err != nil {
		return nil, err
	}
	c := newCheckpoint(f)
	if err := c.complete(&cfg); err != nil {
		return nil, err
	}
	m := &Model{norm: c.norm("norm_f.", cfg)}
	for i := range cfg.Layers {
		if c.Err != nil {
			return nil, c.Err
		}
		m.layers = append(m.layers, c.layer(fmt.Sprintf("layers.%d.", i), cfg))
	}
	m.embedding, m.lm = c.ends(cfg)
	if c.Err != nil {
		return nil, c.Err
	}
	m.cfg = cfg
	for _, st := range m.newLayers() {
		m.state += st.Bytes()
	}
	return m, nil
}

// ScratchBytes returns the working memory that a call of one sequence of so many
// tokens holds, at the most, besides its arguments; it stops growing with them.
func (m *Model) ScratchBytes(tokens int) int64 {
	n, inner := int64(min(tokens, pieceTokens)), 0
	var blocks [2]int64 // of either kind, which share little with each other
	for _, l := range m.layers {
		kind := 0
		if _, ok := l.mixer.(*ssm.Mamba2); ok {
			kind = 1
		}
		blocks[kind], inner = max(blocks[kind], l.mixer.ScratchBytes(tokens)), max(inner, l.inner)
	}
	each := taskTokens*int64(m.cfg.Dim+2*inner+m.cfg.Vocab) + int64(m.cfg.Vocab)
	const rest = 16 << 10
	return blocks[0] + blocks[1] + 4*(2*n*int64(m.cfg.Dim)+int64(parallel.Workers(m.cfg.Workers))*each) + 2*int64(m.state) + rest
}

// Config returns the model's configuration, complete.
func (m *Model) Config() Config { return m.cfg }

// Bytes returns the memory of the weights of dense layers and embedding.
func (m *Model) Bytes() int64 {
	n := int64(m.lm.Bytes())
	if m.embedding != m.lm {
		n += int64(m.embedding.Bytes())
	}
	for _, l := range m.layers {
		n += int64(l.mixer.Bytes())
		if l.up != nil {
			n += int64(l.up.Bytes() + l.down.Bytes())
		}
	}
	return n
}
