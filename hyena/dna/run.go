package dna

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// run is the working memory of a call.
type run struct {
	group        parallel.Group
	m            *Model
	call         Call
	block        int            // the block that is being run
	r, x         blas32.General // [n, D]: the residual stream, and a block's input or output
	rData, xData []float32
	pooled       pooler
	tokens       []int32 // of EmbedInto
	workers      []worker

	embed, mlp, finish func(worker, i int)
}

// worker is what each worker has for itself.
type worker struct{ h, hidden, out []float32 }

// run runs a call that has been checked.
func (s *run) run(ctx context.Context, m *Model, call *Call, workers int) error {
	if s.embed == nil {
		s.embed, s.mlp, s.finish = s.runEmbed, s.runMLP, s.runFinish
	}
	n, dim := len(call.Tokens), m.cfg.Dim
	s.m, s.call = m, *call
	defer func() { s.m, s.call = nil, Call{} }()
	s.rData, s.xData = scratch.Floats(s.rData, n*dim), scratch.Floats(s.xData, n*dim)
	s.r, s.x = mat.Of(s.rData, n, dim), mat.Of(s.xData, n, dim)
	for len(s.workers) < workers {
		s.workers = append(s.workers, worker{})
	}
	tasks := (n + dense.BlockRows - 1) / dense.BlockRows
	if err := s.group.Run(ctx, workers, tasks, s.embed); err != nil {
		return wrap(err)
	}
	for s.block = range m.blocks {
		// x = Hyena(LayerNorm(r))
		err := m.blocks[s.block].mixer.Run(ctx, &hyena.OperatorCall{Dst: s.x, X: s.x, Workers: workers})
		if err == nil {
			err = s.group.Run(ctx, workers, tasks, s.mlp)
		}
		if err != nil {
			return wrap(err)
		}
	}
	s.pooled.begin(call, tasks, dim)
	if err := s.group.Run(ctx, workers, tasks, s.finish); err != nil {
		return wrap(err)
	}
	if call.Pooled != nil {
		s.pooled.result(call.Pooled, call.Pooling)
	}
	if call.Classes != nil {
		s.classify()
	}
	return nil
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("dna: %w", err)
}

// rows returns the tokens of a task.
func (s *run) rows(i int) (from, to int) {
	return i * dense.BlockRows, min((i+1)*dense.BlockRows, len(s.call.Tokens))
}

// row returns row t of a matrix whose rows stand one behind the other.
func row(m blas32.General, t int) []float32 { return m.Data[t*m.Stride:][:m.Cols] }

// runEmbed sets r to the embeddings of a task's tokens and x to their norm.
func (s *run) runEmbed(_, i int) {
	from, to := s.rows(i)
	for t := from; t < to; t++ {
		copy(row(s.r, t), row(s.m.embedding, int(s.call.Tokens[t])))
	}
	s.nextInput(0, from, to)
}

// nextInput sets x to what a block reads, and keeps r where it is wanted.
func (s *run) nextInput(block, from, to int) {
	if s.call.Residuals != nil {
		for t := from; t < to; t++ {
			copy(row(s.call.Residuals[block], t), row(s.r, t))
		}
	}
	if block < len(s.m.blocks) {
		for t := from; t < to; t++ {
			s.m.blocks[block].norm1.row(row(s.x, t), row(s.r, t))
		}
	}
}

// runMLP adds the mixer's output and then the MLP's to r.
func (s *run) runMLP(worker, i int) {
	from, to := s.rows(i)
	m, w, n, dim := s.m, &s.workers[worker], to-from, s.m.cfg.Dim
	b := &m.blocks[s.block]
	w.h, w.out = scratch.Floats(w.h, n*dim), scratch.Floats(w.out, n*dim)
	w.hidden = scratch.Floats(w.hidden, n*m.cfg.Inner)
	h, out := mat.Of(w.h, n, dim), mat.Of(w.out, n, dim)
	for t := range n {
		r := row(s.r, from+t)
		asm.Add(r, r, row(s.x, from+t))
		b.norm2.row(row(h, t), r)
	}
	b.mlp.Forward(out, h, mat.Of(w.hidden, n, m.cfg.Inner))
	for t := range n {
		r := row(s.r, from+t)
		asm.Add(r, r, row(out, t))
	}
	s.nextInput(s.block+1, from, to)
}

// runFinish makes the outputs of a task's tokens.
func (s *run) runFinish(worker, i int) {
	from, to := s.rows(i)
	m, call, w, n, dim := s.m, &s.call, &s.workers[worker], to-from, s.m.cfg.Dim
	w.h = scratch.Floats(w.h, n*dim)
	h := mat.Of(w.h, n, dim)
	if call.Hidden.Rows > 0 {
		h = mat.Rows(call.Hidden, from, to)
	}
	for t := range n {
		m.norm.row(row(h, t), row(s.r, from+t))
	}
	s.pooled.add(i, from, h, call.Mask)
	if call.Logits.Rows == 0 && from >= len(call.LogLikelihood) {
		return
	}
	w.out = scratch.Floats(w.out, n*m.cfg.Vocab)
	logits := mat.Of(w.out, n, m.cfg.Vocab)
	if call.Logits.Rows > 0 {
		logits = mat.Rows(call.Logits, from, to)
	}
	m.lm.Forward(logits, h)
	w.hidden = scratch.Floats(w.hidden, m.cfg.Vocab)
	for t := from; t < min(to, len(call.LogLikelihood)); t++ {
		target := call.target(t)
		if target < 0 {
			call.LogLikelihood[t] = 0
			continue
		}
		// ln softmax(logits)[target]
		z := row(logits, t-from)
		largest := asm.Max(z)
		sum := kernel.ExpSum(w.hidden, z, largest)
		call.LogLikelihood[t] = float32(float64(z[target]) - float64(largest) - math.Log(float64(sum)))
	}
}

// classify runs the head.
func (s *run) classify() {
	m, w := s.m, &s.workers[0]
	w.h = scratch.Floats(w.h, m.cfg.Dim)
	if m.headLast && len(s.call.Tokens) > 0 {
		m.norm.row(w.h, row(s.r, m.lastToken(s.call.Tokens)))
	} else {
		s.pooled.result(w.h, Mean)
	}
	m.head.Forward(mat.Of(s.call.Classes, 1, m.classes), mat.Of(w.h, 1, m.cfg.Dim))
}

// lastToken returns the token before the first padding, or the last one where
// there is none or the first token is padding: the Hugging Face port's rule.
func (m *Model) lastToken(tokens []int32) int {
	if t := slices.Index(tokens, m.vocabulary.Pad()); t > 0 {
		return t - 1
	}
	return len(tokens) - 1
}
