package delta

import (
	"context"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// Call is a call of a Recurrence with everything optional. Hq, Hk and H are the heads of
// queries, keys and states.
type Call struct {
	// Dst is [n, max(Hq, H) V]. It may be V where it has that shape.
	Dst blas32.General
	// Q is [n, Hq K], K [n, Hk K], V [n, H V].
	Q, K, V blas32.General
	// Decay is g, the logarithm of the decay, 0 or less: [n, H] with HeadDecay, [n, H K]
	// with KeyDecay, and left out with the others. -Inf is a decay of 0.
	Decay blas32.General
	// Beta [n, H], or [n, 1] for all heads, is how much is written, 0 to 2; left out it is
	// 1. EraseGated and ErasePair have none.
	Beta blas32.General
	// Erase [n, H K] is what the state is read with: the gate e of EraseGated, p of
	// EraseVector, a of ErasePair. The others have none.
	Erase blas32.General
	// Insert [n, H K] is b of ErasePair, by which what was read is written back.
	Insert blas32.General
	// WriteGate [n, H V] is w of EraseGated; left out it is 1.
	WriteGate blas32.General
	// State is where the sequence begins, and is brought up to date; nil is zero, and
	// nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at last n.
	// States, if given, has a state for each; without Offsets each is for one row.
	Offsets []int
	States  []*State
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward runs a whole sequence from a state of zero: of a recurrence that needs no more
// than these inputs, which are those of Call; those that its Config has no use for are zero
// values. dst may be v where it has its shape. Working memory does not depend on the length; after the first call nothing is allocated. Errors match
// ErrShape or ErrCall.
func (op *Recurrence) Forward(dst, q, k, v, decay, beta blas32.General) error {
	return op.Run(context.Background(), &Call{Dst: dst, Q: q, K: k, V: v, Decay: decay, Beta: beta})
}

// Step runs the next tokens, one or many, after those the state has seen. Errors match
// those of Run.
func (op *Recurrence) Step(dst, q, k, v, decay, beta blas32.General, st *State) error {
	if err := op.kind.accept("State", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &Call{Dst: dst, Q: q, K: k, V: v, Decay: decay, Beta: beta, State: st})
}

// StepBatch runs one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (op *Recurrence) StepBatch(dst, q, k, v, decay, beta blas32.General, states []*State) error {
	return op.Run(context.Background(), &Call{Dst: dst, Q: q, K: k, V: v, Decay: decay, Beta: beta, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err(). After an error states are as they were,
// and Dst is unspecified. A call of one token, or of little work, looks at ctx once,
// before it begins.
func (op *Recurrence) Run(ctx context.Context, call *Call) error {
	if err := op.checkCall(ctx, call); err != nil {
		return err
	}
	w := op.scratch.Get()
	defer op.scratch.Put(w)
	batch := pack.Batch[*State]{Rows: call.V.Rows, Offsets: call.Offsets, State: call.State, States: call.States}
	ctx, err := w.segments.Begin(ctx, &op.kind.Kind, batch, inside, false)
	if err != nil {
		return err
	}
	return w.segments.End(w.sweep(ctx, op, call, w.segments.List, parallel.Choose(op.cfg.Workers, call.Workers)))
}

// need says whether a call must have a matrix.
type need uint8

const (
	absent need = iota
	optional
	needed
)

// input is a matrix of a call, [n, cols].
type input struct {
	name string // as the caller knows it
	m    blas32.General
	cols int    // how many columns it must have
	what string // that says how many columns there are
	need need
}

// checkInputs returns an error unless the inputs are matrices of n rows, as needed, that
// dst shares no element with, but for the one that it is.
func checkInputs(dst blas32.General, n int, inputs []input) error {
	for _, in := range inputs {
		given := mat.Given(in.m)
		switch {
		case in.need == absent && given:
			return check.Errorf(ErrCall, "delta: %s is given, which the Config has no use for", in.name)
		case in.need == needed || given:
			if err := check.Matrix(ErrShape, "delta", in.name, in.m, n, in.cols, in.what); err != nil {
				return err
			}
		}
	}
	for _, in := range inputs {
		if mat.Given(in.m) && mat.Overlap(dst, in.m) && !(in.name == "V" && mat.Same(dst, in.m) && dst.Cols == in.m.Cols) {
			return check.Errorf(ErrShape, "delta: dst shares elements with %s", in.name)
		}
	}
	return nil
}

func (op *Recurrence) checkCall(ctx context.Context, call *Call) error {
	if err := check.Call("delta", ctx, call != nil); err != nil {
		return err
	}
	c := &op.cfg
	when := func(yes bool, n need) need {
		if yes {
			return n
		}
		return absent
	}
	n, h := call.V.Rows, c.Heads
	decay, beta := input{"Decay", call.Decay, h, "Heads", when(c.Decay >= HeadDecay, needed)}, input{"Beta", call.Beta, h, "Heads", when(c.Erase != EraseGated && c.Erase != ErasePair, optional)}
	if c.Decay == KeyDecay {
		decay.cols, decay.what = h*c.KeyDim, "Heads*KeyDim"
	}
	if call.Beta.Cols == 1 {
		beta.cols = 1
	}
	const wide = "Heads*KeyDim"
	inputs := [...]input{
		{"V", call.V, h * c.ValueDim, "Heads*ValueDim", needed},
		{"Q", call.Q, c.QueryHeads * c.KeyDim, "QueryHeads*KeyDim", needed},
		{"K", call.K, c.KeyHeads * c.KeyDim, "KeyHeads*KeyDim", needed},
		decay, beta,
		{"Erase", call.Erase, h * c.KeyDim, wide, when(c.Erase >= EraseGated, needed)},
		{"Insert", call.Insert, h * c.KeyDim, wide, when(c.Erase == ErasePair, needed)},
		{"WriteGate", call.WriteGate, h * c.ValueDim, "Heads*ValueDim", when(c.Erase == EraseGated, optional)},
	}
	if err := check.Matrix(ErrShape, "delta", "dst", call.Dst, n, op.outs*c.ValueDim, "max(QueryHeads, Heads)*ValueDim"); err != nil {
		return err
	}
	if err := checkInputs(call.Dst, n, inputs[:]); err != nil {
		return err
	}
	return check.Workers(ErrCall, "delta", call.Workers)
}

// NewState returns a state of zeros. Errors match ErrConfig.
func (op *Recurrence) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this recurrence, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (op *Recurrence) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// Read sets s [Heads K, V] to what the state has, a row for each key channel of each head.
// Errors match ErrShape or ErrState.
func (op *Recurrence) Read(s blas32.General, st *State) error {
	if err := op.checkState(s, st); err != nil {
		return err
	}
	op.readStates(s, st.fixed.Values)
	return nil
}

// Write makes s [Heads K, V] what the state has; Len stays. It is how a sequence begins
// with an initial state, and makes a snapshot where the state keeps any. Errors match
// ErrShape or ErrState.
func (op *Recurrence) Write(st *State, s blas32.General) error {
	if err := op.checkState(s, st); err != nil {
		return err
	}
	op.writeStates(st.fixed.Values, s)
	st.fixed.Written()
	return nil
}

func (op *Recurrence) checkState(s blas32.General, st *State) error {
	return op.kind.acceptRead(st, "s", s, op.cfg.Heads*op.cfg.KeyDim, op.cfg.ValueDim, "ValueDim")
}

// readStates sets s [Heads K, V] to the states in values.
func (op *Recurrence) readStates(s blas32.General, values []float32) {
	for h := range op.cfg.Heads {
		for from := 0; from < op.cfg.ValueDim; from += panelWidth {
			p := op.panel(values, h, from)
			mat.Copy(mat.Columns(mat.Rows(s, h*op.cfg.KeyDim, (h+1)*op.cfg.KeyDim), from, p.Cols), p)
		}
	}
}

// writeStates sets the states in values to s [Heads K, V].
func (op *Recurrence) writeStates(values []float32, s blas32.General) {
	for h := range op.cfg.Heads {
		for from := 0; from < op.cfg.ValueDim; from += panelWidth {
			p := op.panel(values, h, from)
			mat.Copy(p, mat.Columns(mat.Rows(s, h*op.cfg.KeyDim, (h+1)*op.cfg.KeyDim), from, p.Cols))
		}
	}
}

// panelWidth is how many value columns of a state stand together: a head's state [K, V]
// is kept as panels [K, panelWidth], one after the other, the last one narrower. One of
// them stays in the first cache, where rows of the whole state would compete for few
// places.
const panelWidth = 32

// panel returns the panel of head h that begins with column from, [K, at most 32].
func (op *Recurrence) panel(values []float32, h, from int) blas32.General {
	k, v := op.cfg.KeyDim, op.cfg.ValueDim
	return mat.Of(values[h*k*v+k*from:], k, min(panelWidth, v-from))
}
