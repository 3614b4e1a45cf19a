package lm

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// embedRows sets r to the embeddings of a task's tokens, and takes them to the first mixer.
func (s *run) embedRows(worker, i int) {
	from, to := s.block(i)
	for t := from; t < to; t++ {
		s.m.cfg.Embedding.Row(mat.Row(s.r, t), int(s.call.Tokens[s.from+t]))
	}
	s.branches(&s.workspaces[worker], from, to, 0)
}

// takeRows adds a mixer's outputs to r, and takes a task's rows to the next mixer.
func (s *run) takeRows(worker, i int) {
	from, to := s.block(i)
	w, at := &s.workspaces[worker], s.m.mixers[s.mixed]
	b := &s.m.program[at]
	parallel := at+1 < len(s.m.program) && s.m.program[at+1].Parallel
	if parallel { // the next branch reads what the mixer read
		s.normRows(w, from, to, b)
	}
	s.addRows(mat.Rows(s.x, from, to), from, b.Branch)
	if parallel {
		at++
		next := s.m.program[at].Branch
		if next.Mixer != nil {
			mat.Copy(mat.Rows(s.x, from, to), mat.Of(w.normed, to-from, s.m.dim))
			return
		}
		s.mlpRows(w, from, to, next)
	}
	s.branches(w, from, to, at+1)
}

// branches takes rows from branch at on to the next mixer's input, or to the outputs.
func (s *run) branches(w *workspace, from, to, at int) {
	for ; at < len(s.m.program); at++ {
		b := &s.m.program[at]
		if b.first {
			s.keepResiduals(b.layer, from, to)
		}
		if b.Mixer != nil {
			for t := from; t < to; t++ {
				b.Norm.Row(mat.Row(s.x, t), mat.Row(s.r, t))
			}
			return
		}
		s.normRows(w, from, to, b)
		s.mlpRows(w, from, to, b.Branch)
		if s.group.Stopped() {
			return // an MLP of a large model takes some milliseconds
		}
	}
	s.keepResiduals(len(s.m.cfg.Layers), from, to)
	s.finishRows(w, from, to)
}

// keepResiduals copies r, as it is before a layer, to the caller's matrix for it.
func (s *run) keepResiduals(layer, from, to int) {
	if s.call.Residuals == nil || !mat.Given(s.call.Residuals[layer]) {
		return
	}
	mat.Copy(mat.Rows(s.call.Residuals[layer], s.from+from, s.from+to), mat.Rows(s.r, from, to))
}

// normRows sets a worker's rows to the norm of r in front of a branch.
func (s *run) normRows(w *workspace, from, to int, b *step) {
	w.normed = scratch.Floats(w.normed, (to-from)*s.m.dim)
	h := mat.Of(w.normed, to-from, s.m.dim)
	for t := range h.Rows {
		b.Norm.Row(mat.Row(h, t), mat.Row(s.r, from+t))
	}
}

// mlpRows adds to r what an MLP makes of a worker's rows.
func (s *run) mlpRows(w *workspace, from, to int, b *Branch) {
	n, dim, wide := to-from, s.m.dim, b.MLP.Hidden()
	w.hidden, w.out = scratch.Floats(w.hidden, n*wide), scratch.Floats(w.out, n*dim)
	out := mat.Of(w.out, n, dim)
	b.MLP.Forward(&s.group, out, mat.Of(w.normed, n, dim), mat.Of(w.hidden, n, wide))
	s.addRows(out, from, b)
}

// addRows adds the outputs y of a branch, of rows from on, to r; y is overwritten.
func (s *run) addRows(y blas32.General, from int, b *Branch) {
	for t := range y.Rows {
		x, r := mat.Row(y, t), mat.Row(s.r, from+t)
		if b.Post.Given() {
			b.Post.Row(x, x)
		}
		if b.Scale != 0 {
			asm.Axpy(r, b.Scale, x)
		} else {
			asm.Add(r, r, x)
		}
	}
}

// finishRows makes hidden states, logits and likelihoods of rows.
func (s *run) finishRows(w *workspace, from, to int) {
	m := s.m
	h := mat.Rows(s.hiddenRows(), from, to)
	for t := range h.Rows {
		m.cfg.Norm.Row(mat.Row(h, t), mat.Row(s.r, from+t))
	}
	// Logits that nobody asked for are made for some rows at a time.
	for at := 0; at < h.Rows; at += scoreRows {
		end := min(at+scoreRows, h.Rows)
		s.scoreRows(w, mat.Rows(h, at, end), s.from+from+at)
	}
}

// scoreRows is for how many rows logits are made at a time.
const scoreRows = 64

// scoreRows makes logits and likelihoods of the hidden states of rows of the call, from one on.
func (s *run) scoreRows(w *workspace, h blas32.General, from int) {
	m, call, to := s.m, &s.call, from+h.Rows
	first, last := s.scored(from, to)
	logits := mat.Rows(call.Logits, from, to)
	if !mat.Given(call.Logits) {
		if first == last {
			return
		}
		h, from = mat.Rows(h, first-from, last-from), first
		w.out = scratch.Floats(w.out, h.Rows*m.vocab)
		logits = mat.Of(w.out, h.Rows, m.vocab)
	}
	m.cfg.Head.Forward(&s.group, logits, h)
	w.exp = scratch.Floats(w.exp, m.vocab)
	for t := first; t < last; t++ {
		if target := call.target(t); target >= 0 {
			call.LogLikelihood[t] = dense.LogSoftmaxAt(mat.Row(logits, t-from), int(target), w.exp)
		}
	}
}

// scored sets the likelihoods of rows to 0, and returns the first and the end of those
// that have a target.
func (s *run) scored(from, to int) (first, last int) {
	first, last = from, from
	for t := from; t < min(to, len(s.call.LogLikelihood)); t++ {
		s.call.LogLikelihood[t] = 0
		switch {
		case s.call.target(t) < 0:
		case first == last:
			first, last = t, t+1
		default:
			last = t + 1
		}
	}
	return first, last
}
