package kvcache

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// run is the working memory of a call.
type run struct {
	op      *Attention
	ctx     context.Context
	call    attention.Call
	options *Options
	k, v    blas32.General
	list    []*State
	batch   pack.Layout[*State]
	owned   func(string, *State) error
	outputs [2]check.Out
	inputs  [3]blas32.General
	group   parallel.Group
	works   []work

	// Of a chunk.
	state      *State
	dst, lse   blas32.General
	qRaw, q    blas32.General // as they came, and as keys are held
	first, x   int            // position of the first query, and how many
	importance []float32
	choice     Choice
	units      int // lists of the choice: 1, KVHeads or Heads
	weights    [][]float32
	lists      [][]Run // that weights are of, by key head
	runs       [][]Run // what each unit reads near, and far
	fars       [][]Run
	window     bool // queries see no more than their own last Recent of what is read after Keep
	numbered   bool // and each has numbers of its own for what it sees: InCache
	tail       int  // position from which all is read, but for what is far and chosen

	qTurned, kTurned []float32
	lseBuf           []float32
	inner            attention.Call
	pasts            []attention.Past
	attend, scan     func(worker, task int)
	sum, vote, peak  func(worker, task int)
	scanCopy         func(worker, task int)
	report           Report
	teller           teller // of the choice, or nil
	sel              selecting
	shadow           *shadowRun
}

// serve checks a call and does it, sequence after sequence.
func (r *run) serve(ctx context.Context, a *Attention, call attention.Call, k, v blas32.General, b pack.Batch[*State]) error {
	r.op, r.ctx, r.call, r.k, r.v = a, ctx, call, k, v
	r.options, _ = call.Options.(*Options)
	defer r.drop()
	if r.attend == nil {
		r.attend, r.scan = r.attendTask, r.scanTask
	}
	if err := r.checkCall(b); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.report = Report{Seen: 1}
	for i, x := range r.batch.Segments {
		var s *State
		if len(r.batch.States) > 0 {
			s = r.batch.States[i]
			s.keepVersion()
		} else {
			var err error
			if s, err = a.NewState(StateConfig{}); err != nil {
				return err
			}
		}
		for from := x.From; from < x.To; {
			to := min(from+a.cfg.Chunk, x.To)
			if dense := a.cfg.Dense - s.n; dense > 0 {
				to = min(to, from+dense)
			}
			if err := r.step(s, from, to); err != nil {
				return err
			}
			from = to
		}
	}
	if r.options != nil && r.options.Report != nil {
		*r.options.Report = r.report
	}
	return nil
}

// drop drops what belongs to the caller.
func (r *run) drop() {
	r.ctx, r.call, r.options, r.k, r.v, r.state = nil, attention.Call{}, nil, blas32.General{}, blas32.General{}, nil
	r.dst, r.lse, r.qRaw, r.q, r.importance = blas32.General{}, blas32.General{}, blas32.General{}, blas32.General{}, nil
	r.teller = nil
	r.inner, r.outputs, r.inputs = attention.Call{}, [2]check.Out{}, [3]blas32.General{}
	clear(r.pasts)
	r.batch.Clear()
}

// step takes up one chunk, rows from ... to of the call: makes room, appends, chooses,
// attends, lets the policies know, and forgets.
func (r *run) step(s *State, from, to int) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	a := r.op
	r.state, r.first, r.x = s, s.n, to-from
	r.qRaw, r.dst = mat.Rows(r.call.Q, from, to), mat.Rows(r.call.Dst, from, to)
	r.lse = rowsOf(r.call.LSE, from, to)
	r.importance = nil
	if r.options != nil && r.options.Importance != nil {
		r.importance = r.options.Importance[from:to]
	}
	if err := s.makeRoom(r.x); err != nil {
		return err
	}
	k, v := mat.Rows(r.k, from, to), mat.Rows(r.v, from, to)
	r.q = r.qRaw
	if a.rotatedHeld() {
		var err error
		if r.q, err = r.turned(&r.qTurned, r.qRaw, s.n); err != nil {
			return err
		}
	}
	if err := r.takeKeys(s, k, v); err != nil {
		return err
	}
	if err := r.read(s); err != nil {
		for _, st := range s.heads {
			st.Truncate(r.first)
		}
		s.shorten(r.first)
		return err
	}
	return s.settle(r)
}

// turned returns a copy of rows of queries or keys, turned to the positions from at on.
func (r *run) turned(memory *[]float32, x blas32.General, at int) (blas32.General, error) {
	*memory = scratch.Floats(*memory, x.Rows*x.Cols)
	y := mat.Of(*memory, x.Rows, x.Cols)
	mat.Copy(y, x)
	if err := r.op.rotation.Rotate(y, int64(at)); err != nil {
		return y, check.Errorf(ErrCall, "kvcache: %v", err)
	}
	return y, nil
}

// read chooses and attends.
func (r *run) read(s *State) error {
	if s.index != nil {
		if err := s.index.append(r); err != nil {
			return err
		}
	}
	if err := r.choose(s); err != nil {
		return err
	}
	if r.choice.All && !r.needsWeights() && (r.op.rotation == nil || r.op.rotatedHeld()) && !r.op.cfg.Positions.far() {
		return r.readAll(s)
	}
	if x, ok := s.index.(reader); ok && !r.choice.All {
		return x.read(r)
	}
	if err := r.readChosen(s); err != nil || r.teller == nil {
		return err
	}
	r.tell(r.teller)
	return nil
}

// reader is an index that attends by itself where it does not choose to read all.
type reader interface{ read(r *run) error }

// needsWeights tells whether a policy is to know what the tokens read weighed.
func (r *run) needsWeights() bool {
	return r.state.marks.rule.mass || r.state.index != nil && r.state.index.observes()
}

// readAll attends to all that is held, where it stands.
func (r *run) readAll(s *State) error {
	a := r.op
	cfg := &a.cfg
	h, d, dv, g := cfg.KVHeads, cfg.HeadDim, cfg.ValueDim, a.group
	s.noteAll()
	lse := r.lse
	if cfg.Sinks != nil && lse.Rows == 0 {
		r.lseBuf = scratch.Floats(r.lseBuf, r.x*cfg.Heads)
		lse = mat.Of(r.lseBuf, r.x, cfg.Heads)
	}
	for len(r.pasts) < h {
		r.pasts = append(r.pasts, nil)
	}
	for i, st := range s.heads {
		r.pasts[i] = st
		r.count(i, st.Held(), st.Held())
	}
	if r.x == 1 {
		// A row of all heads is a row for each key head.
		r.inner = attention.Call{Dst: mat.Of(mat.Row(r.dst, 0), h, g*dv), Q: mat.Of(mat.Row(r.q, 0), h, g*d), States: r.pasts[:h], Workers: r.call.Workers}
		if lse.Rows > 0 {
			r.inner.LSE = mat.Of(mat.Row(lse, 0), h, g)
		}
		if err := a.op.Run(r.ctx, &r.inner); err != nil {
			return named(err)
		}
	} else {
		for i := range h {
			r.inner = attention.Call{Dst: mat.Columns(r.dst, i*g*dv, g*dv), Q: mat.Columns(r.q, i*g*d, g*d), State: r.pasts[i], Workers: r.call.Workers}
			if lse.Rows > 0 {
				r.inner.LSE = mat.Columns(lse, i*g, g)
			}
			if err := a.op.Run(r.ctx, &r.inner); err != nil {
				return named(err)
			}
		}
	}
	if cfg.Sinks != nil {
		r.addSinks(lse)
	}
	return nil
}

// addSinks gives the learned sinks their share of the weight.
func (r *run) addSinks(lse blas32.General) {
	cfg := &r.op.cfg
	for i := range r.x {
		for h, sink := range cfg.Sinks {
			at := &mat.Row(lse, i)[h]
			l, x := float64(*at), float64(sink)
			share := float32(1 / (1 + math.Exp(x-l)))
			out := mat.Part(r.dst, i, h*cfg.ValueDim, cfg.ValueDim)
			for j := range out {
				out[j] *= share
			}
			top := max(l, x)
			*at = float32(top + math.Log(math.Exp(l-top)+math.Exp(x-top)))
		}
	}
}

// count adds to the report what was read of a key head.
func (r *run) count(head, read, held int) {
	r.report.Tokens += int64(read)
	r.report.Held += int64(held)
	r.report.Bytes += int64(read) * r.op.op.StateBytes(r.state.heads[head].Config(), 1)
}

// Append takes up the keys and values of the next tokens without attending from them: a
// prefix that was attended to elsewhere. Policies that go by the weights or the queries of
// these tokens (InfLLM, H2O, TOVA, SnapKV and others) do not know them: for InfLLM and
// those that go by weights it is an error that matches ErrCall. SirLLM and External take
// importances by SetImportance. Other errors are those of Step.
func (s *State) Append(k, v blas32.General) error {
	if s.op == nil {
		return check.Unmade("kvcache")
	}
	a := s.op
	cfg := &a.cfg
	if err := check.Matrix(ErrShape, "kvcache", "k", k, -1, cfg.KVHeads*cfg.HeadDim, "KVHeads*HeadDim"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "kvcache", "v", v, k.Rows, cfg.KVHeads*cfg.ValueDim, "KVHeads*ValueDim"); err != nil {
		return err
	}
	if s.marks.rule.mass || s.index != nil && s.index.observes() {
		return check.Errorf(ErrCall, "kvcache: Append without queries to a state whose policies go by the weight of tokens")
	}
	if err := s.checkRoom(k.Rows); err != nil {
		return err
	}
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	defer r.drop()
	r.op, r.ctx = a, context.Background()
	s.keepVersion()
	for from := 0; from < k.Rows; from += cfg.Chunk {
		to := min(from+cfg.Chunk, k.Rows)
		r.state, r.first, r.x = s, s.n, to-from
		r.q, r.qRaw = blas32.General{Cols: cfg.Heads * cfg.HeadDim}, blas32.General{Cols: cfg.Heads * cfg.HeadDim}
		if err := s.makeRoom(r.x); err != nil {
			return err
		}
		if err := r.takeKeys(s, mat.Rows(k, from, to), mat.Rows(v, from, to)); err != nil {
			return err
		}
		if s.index != nil {
			if err := s.index.append(r); err != nil {
				return err
			}
		}
		if m := &s.marks; m.rule.queries > 0 {
			m.queries, m.kept = m.queries[:0], 0 // which were of earlier tokens
		}
		if err := s.settle(r); err != nil {
			return err
		}
	}
	return nil
}

// takeKeys appends the keys and values of a chunk to all heads, or to none.
func (r *run) takeKeys(s *State, k, v blas32.General) error {
	a := r.op
	cfg := &a.cfg
	if a.rotatedHeld() {
		var err error
		if k, err = r.turned(&r.kTurned, k, s.n); err != nil {
			return err
		}
	}
	for g, st := range s.heads {
		if err := st.Append(mat.Columns(k, g*cfg.HeadDim, cfg.HeadDim), mat.Columns(v, g*cfg.ValueDim, cfg.ValueDim)); err != nil {
			for _, before := range s.heads[:g] {
				before.Truncate(s.n)
			}
			return named(err)
		}
	}
	s.took(r.x)
	return nil
}
