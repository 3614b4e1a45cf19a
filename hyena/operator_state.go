package hyena

import (
	"context"
	"fmt"
	"io"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// stateKind returns what states of the operator have in common.
func (op *Operator) stateKind(filter *Filter) kind {
	wide := (op.cfg.Order + 1) * op.cfg.Dim
	name := fmt.Sprintf("Operator of order %d and %d channels with %d taps, up to %d tokens", op.cfg.Order, op.cfg.Dim, op.taps, op.maxLen)
	f := state.NewFingerprint(name, int64(op.cfg.Activation), state.Bool(op.cfg.ChannelMajor))
	f.Add(op.in.Fingerprint())
	f.Add(op.out.Fingerprint())
	f.Matrices(op.short)
	f.Floats(op.bias, op.skip)
	filter.sum(&f)
	return kind{name: name, size: (op.taps - 1) * wide, hash: uint64(f), most: op.maxLen, convs: op.convs}
}

// sum adds a filter's weights to a fingerprint.
func (f *Filter) sum(sum *state.Fingerprint) {
	add := func(list ...[]float64) {
		for _, x := range list {
			narrow := make([]float32, len(x))
			for i, v := range x {
				narrow[i] = float32(v)
			}
			sum.Floats(narrow)
		}
	}
	add([]float64{f.shift, f.cfg.FastDecay, f.cfg.SlowDecay, f.cfg.Target})
	sum.Floats(f.z, f.t)
	add(f.deltas, f.output.Data)
	for _, l := range f.layers {
		add(l.weight.Data, l.bias, l.freq)
	}
	sum.Add(uint64(state.Bool(f.cfg.NoModulation) + 2*state.Bool(f.cfg.Normalized)))
}

// applyEach runs the sequences of a call, long ones one after the other.
func (r *operatorRun) applyEach(ctx context.Context, op *Operator, call *OperatorCall, workers int) error {
	if r.batched() {
		return r.applyBatch(ctx, op, call, workers)
	}
	for i, g := range r.past.layout.Segments {
		if g.From == g.To {
			continue
		}
		var st *State
		if r.past.given() {
			st = r.past.layout.States[i]
		}
		if err := r.apply(ctx, op, mat.Rows(call.Dst, g.From, g.To), mat.Rows(call.X, g.From, g.To), st, workers); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// NewState returns an empty state, from which Step goes on, of at most MaxLen tokens. Errors
// match ErrConfig.
func (op *Operator) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this operator, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (op *Operator) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// Fingerprint tells operators with other weights apart: a state belongs to all of one.
func (op *Operator) Fingerprint() uint64 { return op.kind.hash }

// StateBytes returns the memory of a state of that many tokens, without snapshots.
func (op *Operator) StateBytes(tokens int) int64 {
	n := floatBytes(op.kind.size)
	for _, c := range op.convs {
		n = sumBytes(n, c.streamBytes(min(max(tokens, 0), op.maxLen)))
	}
	return n
}
