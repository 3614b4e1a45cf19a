package mamba

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/ssm"
)

const (
	// pieceTokens is how many tokens go through all layers together.
	pieceTokens = 512
	// taskTokens is how many of them a task takes through what is not a mixer.
	taskTokens = 64
)

// run is the working memory of a call.
type run struct {
	group        parallel.Group
	m            *Model
	call         Call
	from, n      int            // the piece's tokens
	layer        int            // the layer that is being run
	r, x         blas32.General // [n, D]: the residual stream, and a mixer's input or output
	rData, xData []float32
	workers      []worker

	own     []*State // for sequences without a state
	states  []*State // of the piece's sequences
	first   int      // the first of them
	mixer   ssm.BlockCall
	offsets []int
	list    []*ssm.State
	backup  [][]*ssm.State // what the states were before the piece

	embed, mlp, finish func(worker, i int)
}

// worker is what each worker has for itself.
type worker struct{ h, hidden, out []float32 }

// run runs a call that has been checked.
func (s *run) run(ctx context.Context, m *Model, call *Call, workers int) (err error) {
	if s.embed == nil {
		s.embed, s.mlp, s.finish = s.runEmbed, s.runMLP, s.runFinish
	}
	s.m, s.call = m, *call
	s.call.Workers = workers
	defer func() {
		clear(s.states)
		clear(s.list)
		s.m, s.call, s.mixer = nil, Call{}, ssm.BlockCall{}
	}()
	for len(s.workers) < workers {
		s.workers = append(s.workers, worker{})
	}
	used := 0
	for i := range call.sequences() {
		if call.state(i) == nil {
			if used == len(s.own) {
				st, err := m.NewState(ssm.StateConfig{})
				if err != nil {
					return err
				}
				s.own = append(s.own, st)
			}
			s.own[used].Reset()
			used++
		}
	}
	sequence := 0
	for s.from = 0; s.from < len(call.Tokens); s.from += s.n {
		sequence = s.cut(sequence)
		if err := s.piece(ctx); err != nil {
			return wrap(err)
		}
	}
	for i := range call.sequences() {
		if st, from, to := call.state(i), 0, 0; st != nil {
			if from, to = call.bounds(i); from < to {
				st.keep()
			}
		}
	}
	return wrap(ctx.Err())
}

// cut takes the next tokens of the sequences. It returns the first sequence that
// has tokens left.
func (s *run) cut(sequence int) int {
	s.n, s.first = 0, sequence
	s.offsets, s.states = append(s.offsets[:0], 0), s.states[:0]
	without := 0 // sequences before this one that have no state of their own
	for i := range sequence {
		if s.call.state(i) == nil {
			without++
		}
	}
	for ; sequence < s.call.sequences() && s.n < pieceTokens; sequence++ {
		from, to := s.call.bounds(sequence)
		st := s.call.state(sequence)
		if st == nil {
			st = s.own[without]
			without++
		}
		from = max(from, s.from+s.n)
		n := to - from
		// A piece that ends within a sequence ends where a chunk of it does, so that
		// no bit depends on it.
		if left := pieceTokens - s.n; n > left {
			if n = left - (st.Len()+left)%ssm.Chunk; n <= 0 {
				break
			}
		}
		s.n += n
		s.offsets, s.states = append(s.offsets, s.n), append(s.states, st)
		if n < to-from {
			break
		}
	}
	return sequence
}

// piece takes tokens through all layers, or leaves the states as they were.
func (s *run) piece(ctx context.Context) error {
	m, n, dim := s.m, s.n, s.m.cfg.Dim
	s.rData, s.xData = scratch.Floats(s.rData, n*dim), scratch.Floats(s.xData, n*dim)
	s.r, s.x = mat.Of(s.rData, n, dim), mat.Of(s.xData, n, dim)
	mayStop := ctx.Done() != nil || s.call.Filter != nil
	if mayStop {
		for len(s.backup) < len(s.states) {
			s.backup = append(s.backup, m.newLayers())
		}
		for i, st := range s.states {
			copyLayers(s.backup[i], st.layers)
		}
	}
	err := s.through(ctx)
	if err != nil && mayStop {
		for i, st := range s.states {
			copyLayers(st.layers, s.backup[i])
		}
	}
	return err
}

func (s *run) through(ctx context.Context) error {
	m := s.m
	tasks := (s.n + taskTokens - 1) / taskTokens
	if err := s.group.Run(ctx, s.call.Workers, tasks, s.embed); err != nil {
		return err
	}
	for s.layer = range m.layers {
		s.list = s.list[:0]
		for _, st := range s.states {
			s.list = append(s.list, st.layers[s.layer])
		}
		s.mixer = ssm.BlockCall{Dst: s.x, X: s.x, Offsets: s.offsets, States: s.list, Workers: s.call.Workers}
		if s.call.Filter != nil {
			s.mixer.Filter = s.call.Filter(s.layer)
		}
		// The layer is done or not begun: ctx is looked at between layers.
		err := m.layers[s.layer].mixer.Run(context.Background(), &s.mixer)
		if err == nil {
			err = s.group.Run(ctx, s.call.Workers, tasks, s.mlp)
		}
		if err != nil {
			return err
		}
	}
	if err := s.group.Run(ctx, s.call.Workers, tasks, s.finish); err != nil {
		return err
	}
	s.last()
	return nil
}

// rows returns the tokens of a task within the piece.
func (s *run) rows(i int) (from, to int) { return i * taskTokens, min((i+1)*taskTokens, s.n) }

// row returns row t of a matrix.
func row(m blas32.General, t int) []float32 { return m.Data[t*m.Stride:][:m.Cols] }

// runEmbed sets r to the embeddings of a task's tokens and x to their norm.
func (s *run) runEmbed(_, i int) {
	from, to := s.rows(i)
	for t := from; t < to; t++ {
		s.m.embedding.Output(row(s.r, t), int(s.call.Tokens[s.from+t]))
	}
	s.nextInput(0, from, to)
}

// nextInput sets x to what a layer reads.
func (s *run) nextInput(layer, from, to int) {
	if layer == len(s.m.layers) {
		return
	}
	for t := from; t < to; t++ {
		s.m.layers[layer].norm.row(row(s.x, t), row(s.r, t))
	}
}

// runMLP adds the mixer's output and then the MLP's, if there is one, to r.
func (s *run) runMLP(worker, i int) {
	from, to := s.rows(i)
	l, w, n, dim := &s.m.layers[s.layer], &s.workers[worker], to-from, s.m.cfg.Dim
	for t := from; t < to; t++ {
		asm.Add(row(s.r, t), row(s.r, t), row(s.x, t))
	}
	if l.up != nil {
		w.h, w.hidden = scratch.Floats(w.h, n*dim), scratch.Floats(w.hidden, n*2*l.inner)
		h, hidden := mat.Of(w.h, n, dim), mat.Of(w.hidden, n, 2*l.inner)
		for t := range n {
			l.norm2.row(row(h, t), row(s.r, from+t))
		}
		l.up.Forward(hidden, h)
		for t := range n {
			y, gate := row(hidden, t)[:l.inner], row(hidden, t)[l.inner:]
			asm.SiLU(gate, gate)
			asm.Mul(y, y, gate)
		}
		l.down.Forward(h, mat.Columns(hidden, 0, l.inner))
		for t := range n {
			asm.Add(row(s.r, from+t), row(s.r, from+t), row(h, t))
		}
	}
	s.nextInput(s.layer+1, from, to)
}

// runFinish makes the outputs of a task's tokens. x holds the hidden states then.
func (s *run) runFinish(worker, i int) {
	from, to := s.rows(i)
	m, call, w, n := s.m, &s.call, &s.workers[worker], to-from
	h := mat.Rows(s.x, from, to)
	for t := range n {
		m.norm.row(row(h, t), row(s.r, from+t))
		if given(call.Hidden) {
			copy(row(call.Hidden, s.from+from+t), row(h, t))
		}
	}
	from, to = s.from+from, s.from+to
	if !given(call.Logits) && from >= len(call.LogLikelihood) {
		return
	}
	logits := mat.Rows(call.Logits, from, to)
	if !given(call.Logits) {
		w.out = scratch.Floats(w.out, n*m.cfg.Vocab)
		logits = mat.Of(w.out, n, m.cfg.Vocab)
	}
	m.lm.Forward(logits, h)
	w.hidden = scratch.Floats(w.hidden, max(m.cfg.Vocab, len(w.hidden)))
	for t := from; t < min(to, len(call.LogLikelihood)); t++ {
		target := call.target(t)
		if target < 0 {
			call.LogLikelihood[t] = 0
			continue
		}
		// ln softmax(logits)[target]
		z := row(logits, t-from)
		largest := asm.Max(z)
		sum := kernel.ExpSum(w.hidden[:len(z)], z, largest)
		call.LogLikelihood[t] = float32(float64(z[target]) - float64(largest) - math.Log(float64(sum)))
	}
}

// last makes the logits behind the sequences that end in the piece.
func (s *run) last() {
	if !given(s.call.Last) {
		return
	}
	for k := range s.states {
		if _, to := s.call.bounds(s.first + k); to == s.from+s.offsets[k+1] {
			s.m.lm.Forward(mat.Rows(s.call.Last, s.first+k, s.first+k+1), mat.Rows(s.x, s.offsets[k+1]-1, s.offsets[k+1]))
		}
	}
}
