package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// Forward convolves a whole sequence: x and dst are [tokens, channels]. dst may be x. Long
// ones are transformed, as Conv does; the first call of a length computes the kernel and its
// spectra, and later ones allocate nothing. Errors match ErrShape.
func (m *Modal) Forward(dst, x blas32.General) error {
	return m.Run(context.Background(), &ModalCall{Dst: dst, X: x})
}

// Step convolves the next tokens, one or many, after those the state has seen. Any split of a
// sequence gives the same bits. It costs about 64 + 8 N flop for each token and channel.
// Errors match ErrShape, ErrState or ErrFull.
func (m *Modal) Step(dst, x blas32.General, st *State) error {
	if err := m.kind.accept("State", st); err != nil {
		return err
	}
	return m.Run(context.Background(), &ModalCall{Dst: dst, X: x, State: st})
}

// StepBatch convolves one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (m *Modal) StepBatch(dst, x blas32.General, states []*State) error {
	return m.Run(context.Background(), &ModalCall{Dst: dst, X: x, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err() once ctx is done; states are then as they
// were, and Dst is unspecified.
func (m *Modal) Run(ctx context.Context, call *ModalCall) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "x", call.X, -1, m.Channels(), "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, call.Dst, call.X.Rows, m.Channels(), "channels", call.X, true); err != nil {
		return err
	}
	workers, err := chooseWorkers(m.cfg.Workers, call.Workers)
	if err != nil {
		return err
	}
	r := m.scratch.modals.Get()
	defer m.scratch.modals.Put(r)
	inner, err := r.past.begin(ctx, &m.kind, batchOf(call.X, call.Offsets, call.State, call.States))
	if err != nil {
		return err
	}
	return check.Wrap(ctx, pkg, r.past.end(r.convolve(inner, m, call, workers)))
}

// Prepare computes and keeps what the first call of this many tokens without a state would:
// the kernel and its spectra, as far as the Cache has room. Errors match ErrCall; once ctx is
// done it returns ctx.Err(), and keeps what is ready.
func (m *Modal) Prepare(ctx context.Context, tokens int) error {
	if err := checkTokens(ctx, tokens); err != nil || tokens < fourierTokens {
		return err
	}
	return m.conv.Prepare(ctx, tokens)
}

// fourierTokens is how many tokens a sequence has at the least that is transformed.
const fourierTokens = 512

// modalRun is the working memory of a call of Modal.
type modalRun struct {
	group   parallel.Group
	past    pasts
	m       *Modal
	spans   []modalSpan
	workers []modalWorker
	task    func(worker, i int)
	stopped func() bool
}

// modalSpan is the rows of a sequence, and what they go on from.
type modalSpan struct {
	dst, u blas32.General
	values []float32
	pos    int
}

// convolve runs a call whose sequences and states r.past has.
func (r *modalRun) convolve(ctx context.Context, m *Modal, call *ModalCall, workers int) error {
	for i, g := range r.past.layout.Segments {
		s := modalSpan{dst: mat.Rows(call.Dst, g.From, g.To), u: mat.Rows(call.X, g.From, g.To)}
		s.values, s.pos = r.past.values(i)
		if !r.past.given() && s.u.Rows >= fourierTokens {
			if err := m.conv.Run(ctx, &ConvCall{Dst: s.dst, X: s.u, Workers: workers}); err != nil {
				return err
			}
			continue
		}
		r.spans = append(r.spans, s)
	}
	return r.advanceAll(ctx, m, workers)
}

// advanceAll takes r.spans through the recurrence, and forgets them.
func (r *modalRun) advanceAll(ctx context.Context, m *Modal, workers int) error {
	if r.task == nil {
		r.task, r.stopped = r.advanceBlock, r.group.Stopped
	}
	defer func() { clear(r.spans); r.spans, r.m = r.spans[:0], nil }()
	if len(r.spans) == 0 {
		return ctx.Err()
	}
	r.m = m
	for len(r.workers) < workers {
		r.workers = append(r.workers, modalWorker{})
	}
	return r.group.Run(ctx, workers, (m.Channels()+blockChannels-1)/blockChannels, r.task)
}

// advanceBlock takes a block of channels through all spans.
func (r *modalRun) advanceBlock(worker, i int) {
	from := i * blockChannels
	c := min(blockChannels, r.m.Channels()-from)
	for j := range r.spans {
		s := &r.spans[j]
		r.m.tables.advance(mat.Columns(s.dst, from, c), mat.Columns(s.u, from, c), s.values, from, s.pos, &r.workers[worker], r.stopped)
	}
}

// Read sets dst [channels, 2 N] to the state of each mode after the tokens that st has seen,
// the real and the imaginary part of each. Errors match ErrShape or ErrState.
func (m *Modal) Read(dst blas32.General, st *State) error {
	if err := m.kind.accept("State", st); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "dst", dst, m.Channels(), 2*m.modes.n, "2*modes"); err != nil {
		return err
	}
	readModes(dst, m.tables.modeStates(m.modes, st.values, st.n))
	return nil
}

func readModes(dst blas32.General, list []complex128) {
	for c := range dst.Rows {
		row := mat.Row(dst, c)
		for j := 0; j < dst.Cols; j += 2 {
			s := list[(c*dst.Cols+j)/2]
			row[j], row[j+1] = float32(real(s)), float32(imag(s))
		}
	}
}
