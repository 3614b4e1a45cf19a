package dna

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/weights"
)

// Model is a HyenaDNA model. It is immutable and safe for concurrent use.
type Model struct {
	cfg        Config
	vocabulary Vocabulary
	letters    *Tokenizer     // of EmbedInto
	embedding  blas32.General // [V, D]
	blocks     []block
	norm       norm
	lm         *dense.Linear // D -> V
	head       *dense.Linear // D -> classes, nil where there is none
	classes    int
	headLast   bool // the head reads the last token that is not padding, not the mean
	scratch    scratch.List[run]
}

// norm is a LayerNorm.
type norm struct {
	weight, bias []float32
	eps          float32
}

func (n *norm) row(dst, x []float32) { asm.LayerNorm(dst, x, n.weight, n.bias, n.eps) }

// block is r += mixer(norm1(r)); r += mlp(norm2(r)).
type block struct {
	norm1, norm2 norm
	mixer        *hyena.Operator
	mlp          dense.MLP
}

// newModel builds the model of a checkpoint.
func newModel(f *weights.File, cfg Config) (*Model, error) {
	if err := cfg.check("dna: "); err != nil {
		return nil, err
	}
	c := newCheckpoint(f)
	if err := c.complete(&cfg); err != nil {
		return nil, err
	}
	m := &Model{cfg: cfg, vocabulary: c.vocabulary, embedding: c.Matrix(wordEmbeddings, cfg.Vocab, cfg.Dim), norm: c.norm("ln_f.", cfg)}
	var shared hyena.Scratch // the blocks run one after the other
	for i := range cfg.Layers {
		if c.Err != nil {
			return nil, c.Err
		}
		m.blocks = append(m.blocks, c.block(fmt.Sprintf("layers.%d.", i), cfg, &shared))
	}
	logits := m.embedding
	if c.Has("lm_head.weight") {
		logits = c.Matrix("lm_head.weight", cfg.Vocab, cfg.Dim)
	}
	var head blas32.General
	var bias []float32
	switch {
	case c.Has("head.output_transform.weight"):
		head = c.Matrix("head.output_transform.weight", -1, cfg.Dim)
		bias = c.Vector("head.output_transform.bias", head.Rows)
	case c.Has("score.weight"):
		head, m.headLast = c.Matrix("score.weight", -1, cfg.Dim), true
	}
	if c.Err != nil {
		return nil, c.Err
	}
	m.letters = m.Tokenizer(NoSpecial)
	m.lm = dense.NewLinear(cfg.Format, logits, nil)
	if m.classes = head.Rows; m.classes > 0 {
		m.head = dense.NewLinear(cfg.Format, head, bias)
	}
	return m, nil
}

// Config returns the model's configuration, complete.
func (m *Model) Config() Config { return m.cfg }

// Vocabulary returns the numbering of tokens that the checkpoint uses.
func (m *Model) Vocabulary() Vocabulary { return m.vocabulary }

// Tokenizer returns a tokenizer for the model, with the vocabulary of its
// checkpoint, upper case and, as in training, without a limit on the length.
func (m *Model) Tokenizer(special Special) *Tokenizer {
	t, err := NewTokenizer(TokenizerConfig{Vocabulary: m.vocabulary, Special: special, UpperCase: true})
	if err != nil {
		panic(err) // only an unknown Special is left to be wrong
	}
	return t
}

// Classes returns the number of classes of the checkpoint's head, 0 if it has none.
func (m *Model) Classes() int { return m.classes }

// ScratchBytes returns the working memory that a call of so many tokens holds,
// beside filters and spectra (hyena.Operator), when every worker is busy.
func (m *Model) ScratchBytes(tokens int) int64 {
	dim, tasks := int64(m.cfg.Dim), int64(tokens+dense.BlockRows-1)/dense.BlockRows
	workers := min(int64(parallel.Workers(m.cfg.Workers)), tasks)
	block := int64(min(tokens, dense.BlockRows))
	// The residual stream and a block's output; what workers have; what poolings
	// gather of each task; tokens; the rest.
	n := 4*(2*int64(tokens)*dim+workers*(block*(dim+max(dim, int64(m.cfg.Vocab)))+max(block*int64(m.cfg.Inner), int64(m.cfg.Vocab)))) +
		tasks*(8*dim+64) + 8*dim + 4*int64(tokens) + 1<<10
	if len(m.blocks) > 0 {
		n += m.blocks[0].mixer.ScratchBytes(tokens)
	}
	return n
}

// Bytes returns the memory that the model holds now: its weights, and the filters and
// spectra that calls have made (hyena.Operator).
func (m *Model) Bytes() int64 {
	n := 4*int64(len(m.embedding.Data)) + int64(m.lm.Bytes())
	for _, b := range m.blocks {
		n += b.mixer.Bytes() + int64(b.mlp.Up.Bytes()+b.mlp.Down.Bytes())
	}
	if m.head != nil {
		n += int64(m.head.Bytes())
	}
	return n
}
