package lm

import (
	"context"
	"reflect"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/ssm"
)

const (
	// pieceTokens is how many tokens go through all layers together, where mixers stream.
	pieceTokens = 512
	// singleTokens is how many sequences of one token do, while ctx may end: as ctx is not
	// looked at on their way.
	singleTokens = 64
	// wholeTokens is how many tokens of a piece a mixer takes without looking at ctx: it
	// would copy its states first.
	wholeTokens = 8
)

// run is the working memory of a call.
type run struct {
	group   parallel.Group
	m       *Model // the model that runs the call
	call    Call   // a copy of the caller's
	drafts  drafting
	workers int    // goroutines that the call may use
	layout  layout // the call's sequences and their states

	// The piece that goes through the layers: n rows from row from of the call on, which
	// are of sequences whose numbers are in sequences and end at offsets[1:].
	from, n   int
	sequences []int
	offsets   []int    // [sequences+1], rows of the piece
	states    []*State // [sequences], nil where mixers do not stream
	several   bool     // a sequence has more than one token in it
	next      int      // the first sequence that has rows left
	mixed     int      // the mixer that has run last, by its place in Model.mixers; -1 for none

	r, x         blas32.General   // [n, D]: the residual stream, and a mixer's rows or the hidden states
	rData, xData []float32        // the memory of r and x
	mix          Mix              // what the mixers are given
	own          []*State         // for sequences that were given none
	owned        int              // the last of them that is in use
	marks        [][]Mark         // what the piece's states were before it
	marked       [][]reflect.Type // of layers' states that these are of
	workspaces   []workspace      // of each worker
	pool         pooler

	logits, hidden blas32.General // what headTask makes, and of what

	embed, onward, gather, head func(worker, i int) // tasks: embedRows, takeRows, poolColumns, headTask
}

// workspace is what each worker has for itself: normed inputs [block, D], an MLP's hidden
// layer, and its output [block, D] or logits [block, V]; exponentials [V].
type workspace struct{ normed, hidden, out, exp []float32 }

// begin makes s ready for a number of workers and tokens.
func (s *run) begin(workers, tokens int) {
	if s.embed == nil {
		s.embed, s.onward, s.gather, s.head = s.embedRows, s.takeRows, s.poolColumns, s.headTask
	}
	s.workers = workers
	for len(s.workspaces) < min(workers, tokens) {
		s.workspaces = append(s.workspaces, workspace{})
	}
}

// release forgets a call, so that its memory is not kept.
func (s *run) release() {
	s.layout.Clear()
	clear(s.states)
	clear(s.mix.States)
	s.mix.X, s.mix.Filter, s.mix.Tree = blas32.General{}, nil, nil
	s.m, s.call, s.drafts = nil, Call{}, drafting{}
}

// runCall runs a call that has been accepted.
func (s *run) runCall(ctx context.Context, workers int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.room(); err != nil {
		return err
	}
	s.begin(workers, len(s.call.Tokens))
	s.pool.beginPools(s)
	s.next, s.from, s.n, s.owned = 0, 0, 0, pieceTokens
	for s.from = 0; s.from < len(s.call.Tokens); s.from += s.n {
		s.cut(ctx)
		if err := s.piece(ctx); err != nil {
			return err
		}
	}
	for i, st := range s.layout.States {
		if g := s.layout.Segments[i]; g.From < g.To && !s.drafts.passes {
			st.keep()
		}
	}
	if s.call.Classes != nil {
		s.classify()
	}
	return nil
}

// cut takes the next rows of the sequences.
func (s *run) cut(ctx context.Context) {
	s.n, s.several = 0, false
	s.sequences, s.offsets, s.states = s.sequences[:0], append(s.offsets[:0], 0), s.states[:0]
	most := pieceTokens
	if ctx.Done() != nil && len(s.layout.States) > 0 && len(s.layout.Segments) == len(s.call.Tokens) {
		most = singleTokens
	}
	for ; s.next < len(s.layout.Segments); s.next++ {
		g := s.layout.Segments[s.next]
		from := max(g.From, s.from+s.n)
		n := g.To - from
		if n == 0 {
			continue
		}
		if s.n >= most || s.n > 0 && (s.stateless() || s.m.whole && n > most-s.n) {
			return
		}
		if !s.stateless() {
			st := s.stateOf(s.next, from == g.From)
			// A piece that ends within a sequence ends where a chunk of it does, so that
			// no bit depends on it.
			if left := most - s.n; n > left && !s.m.whole {
				if n = left - (st.Len()+left)%ssm.Chunk; n <= 0 {
					return
				}
			}
			s.states = append(s.states, st)
		}
		s.n += n
		s.sequences, s.offsets = append(s.sequences, s.next), append(s.offsets, s.n)
		s.several = s.several || n > 1
		if from+n < g.To {
			return
		}
	}
}

// stateless tells whether the sequences run whole, one after the other, without states.
func (s *run) stateless() bool {
	return !s.m.streams || s.m.whole && len(s.layout.States) == 0
}

// stateOf returns the state of a sequence, which may be one of the run's own: those of a
// piece, at most pieceTokens of them, are different ones.
func (s *run) stateOf(sequence int, begins bool) *State {
	if len(s.layout.States) > 0 {
		return s.layout.States[sequence]
	}
	if begins {
		s.owned = (s.owned + 1) % (pieceTokens + 1)
		for s.owned >= len(s.own) {
			s.own = append(s.own, s.m.newState())
		}
		st := s.own[s.owned]
		st.Reset()
		g := s.layout.Segments[sequence]
		for _, l := range st.layers {
			if l, ok := l.(Planner); ok {
				l.Plan(g.To - g.From)
			}
		}
	}
	return s.own[s.owned]
}

// piece takes rows through all layers, or leaves the states as they were.
func (s *run) piece(ctx context.Context) error {
	if len(s.layout.States) == 0 { // nobody sees the run's own
		return s.advance(s.through(ctx, ctx))
	}
	if s.call.Filter == nil && (ctx.Done() == nil || !s.several) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ctx.Done() != nil && s.undoable() {
			err := s.through(ctx, ctx)
			if err != nil {
				s.undo()
			}
			return s.advance(err)
		}
		// Nothing may stop a piece of one token each: a copy of the states would cost more
		// than it.
		err := s.through(context.Background(), context.Background())
		if err != nil {
			s.takeBack()
		}
		return s.advance(err)
	}
	s.save()
	inner := ctx
	if s.n <= wholeTokens {
		inner = context.Background()
	}
	err := s.through(ctx, inner)
	if err != nil {
		s.restore()
	}
	return s.advance(err)
}

// advance counts the piece's tokens as seen, unless it has failed.
func (s *run) advance(err error) error {
	if err != nil {
		return err
	}
	for i, st := range s.states {
		st.tokens += s.offsets[i+1] - s.offsets[i]
	}
	return nil
}

// through takes the piece's rows through all layers; mixers look at inner.
func (s *run) through(ctx, inner context.Context) error {
	m, n := s.m, s.n
	s.rData, s.xData = scratch.Floats(s.rData, n*m.dim), scratch.Floats(s.xData, n*m.dim)
	s.r, s.x = mat.Of(s.rData, n, m.dim), mat.Of(s.xData, n, m.dim)
	if err := s.eachBlock(ctx, s.embed); err != nil {
		return err
	}
	for s.mixed = range m.mixers {
		step := &m.program[m.mixers[s.mixed]]
		s.mix.X, s.mix.Offsets, s.mix.Workers, s.mix.Filter = s.x, s.offsets, s.workers, nil
		s.mix.Tree, s.mix.Near = s.drafts.tree, s.drafts.near
		s.mix.Single = s.drafts.passes
		s.mix.States = s.mix.States[:0]
		for _, st := range s.states {
			s.mix.States = append(s.mix.States, st.layers[s.mixed])
		}
		if s.call.Filter != nil {
			s.mix.Filter = s.call.Filter(step.layer)
		}
		if err := step.Mixer.Mix(inner, &s.mix); err != nil {
			return err
		}
		if err := s.eachBlock(ctx, s.onward); err != nil {
			return err
		}
	}
	if err := s.poolPiece(ctx); err != nil {
		return err
	}
	return s.lastLogits(ctx)
}

// eachBlock runs a task for every block of the piece's rows.
func (s *run) eachBlock(ctx context.Context, task func(worker, i int)) error {
	rows := BlockRows(s.n, s.workers)
	return s.group.Run(ctx, s.workers, (s.n+rows-1)/rows, task)
}

// block returns the rows of a task within the piece.
func (s *run) block(i int) (from, to int) {
	rows := BlockRows(s.n, s.workers)
	return i * rows, min((i+1)*rows, s.n)
}

// hiddenRows returns the hidden states of the piece.
func (s *run) hiddenRows() blas32.General {
	if mat.Given(s.call.Hidden) {
		return mat.Rows(s.call.Hidden, s.from, s.from+s.n)
	}
	return s.x
}

// lastLogits makes the logits after the sequences that end in the piece.
func (s *run) lastLogits(ctx context.Context) error {
	if !mat.Given(s.call.Last) {
		return nil
	}
	h, ended := s.hiddenRows(), 0
	for i, sequence := range s.sequences {
		if s.layout.Segments[sequence].To != s.from+s.offsets[i+1] {
			break // it goes on in the next piece
		}
		// Row ended of x is not needed any more: it is not after the sequence's last.
		copy(mat.Row(s.x, ended), mat.Row(h, s.offsets[i+1]-1))
		ended++
	}
	if ended == 0 {
		return nil
	}
	first := s.sequences[0]
	return s.score(ctx, mat.Rows(s.call.Last, first, first+ended), mat.Rows(s.x, 0, ended))
}

// score sets dst to the logits of rows of hidden states, unless ctx ends before: the head
// of a large vocabulary takes long.
func (s *run) score(ctx context.Context, dst, hidden blas32.General) error {
	s.logits, s.hidden = dst, hidden
	return s.group.Run(ctx, 1, 1, s.head)
}

func (s *run) headTask(_, _ int) { s.m.cfg.Head.Forward(&s.group, s.logits, s.hidden) }
