package transformer

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
)

// Past returns what a layer remembers under the policy that StateConfig.Policies gave it, or
// nil where it gave none: to have it forget (kvcache.State.Compact), to say how important
// tokens were, to see what is held.
func Past(st *State, layer int) *kvcache.State {
	if st == nil || layer < 0 {
		return nil
	}
	for i := 0; ; i++ {
		l, ok := st.LayerAt(i)
		if !ok {
			return nil
		}
		if p, ok := l.(*policyState); ok && p.owner.layer == layer {
			return p.State
		}
	}
}

// policyState is the keys and values of a layer under a policy.
type policyState struct {
	*kvcache.State
	op    *kvcache.Attention
	most  int // tokens, 0 for any number
	owner *mixer
}

// newPolicy returns an empty state of the layer under a policy.
func (m *mixer) newPolicy(cfg lm.StateConfig, p kvcache.Config) (lm.LayerState, error) {
	own := m.op.Config()
	switch {
	case m.with != nil:
		return nil, check.Errorf(subquad.ErrConfig, "a policy for layer %d, whose attention is replaced: want nil", m.layer)
	case cfg.Window > 0:
		return nil, check.Errorf(subquad.ErrConfig, "Window together with Policies")
	case own.Window > 0 && (p.Select != kvcache.Selector(kvcache.Window{}) || p.Recent > own.Window):
		return nil, check.Errorf(subquad.ErrConfig, "a policy for layer %d, which has a window of its own: want nil, or the selector Window with Recent of at most %d", m.layer, own.Window)
	case p.Heads != 0 || p.KVHeads != 0 || p.HeadDim != 0 || p.ValueDim != 0 || p.Scale != 0 || p.Softcap != 0 || p.Sinks != nil || p.Rotation != nil:
		return nil, check.Errorf(subquad.ErrConfig, "a policy for layer %d with a shape or a Rotation of its own, want those of the layer, and zeros here", m.layer)
	case m.late && p.Positions != kvcache.AtOrigin:
		return nil, check.Errorf(subquad.ErrConfig, "a policy for layer %d with Positions %d, want AtOrigin: its keys are normed after their rotation", m.layer, p.Positions)
	}
	p.Heads, p.KVHeads, p.HeadDim, p.ValueDim, p.Scale, p.Softcap, p.Sinks, p.Workers = own.Heads, own.KVHeads, own.HeadDim, own.ValueDim, own.Scale, own.Softcap, own.Sinks, own.Workers
	p.Rotation, p.Int8Products = m.stateConfig(cfg).Rotation, p.Int8Products || own.Int8Products
	op, err := kvcache.New(p)
	if err != nil {
		return nil, err
	}
	st, err := op.NewState(kvcache.StateConfig{Format: cfg.Format, MaxTokens: cfg.MaxTokens})
	if err != nil {
		return nil, err
	}
	return &policyState{State: st, op: op, most: cfg.MaxTokens, owner: m}, nil
}

// mixPolicies attends, one sequence after the other.
func (r *mixerRun) mixPolicies(ctx context.Context, mix *lm.Mix) error {
	memory := r.call.States
	defer func() { r.call.States = memory }()
	for i, st := range mix.States {
		from, to := mix.Offsets[i], mix.Offsets[i+1]
		h := r.m.heads * r.m.headDim
		rows := mat.Rows(r.qkv, from, to)
		r.one = [2]blas32.General{mat.Rows(r.k[0], from, to), mat.Rows(r.v[0], from, to)}
		r.call = attention.Call{Dst: mat.Rows(r.y, from, to), Q: mat.Columns(rows, 0, h), K: r.one[:1], V: r.one[1:], Workers: mix.Workers}
		call := &r.call // which would be allocated if it were another
		var err error
		switch st := st.(type) {
		case *policyState:
			call.State = st.State
			err = r.runPolicy(ctx, st, call, mix.Single)
		default:
			call.State, call.Prefill = st.(interface{ past() attention.Past }).past(), true
			op := attention.Operator(r.m.op)
			if r.m.with != nil {
				op = r.m.with.operator
			}
			err = op.Run(ctx, call)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runPolicy runs a call under a policy or, where tokens are to be as they are one by one, a
// call for each: they share no choice.
func (r *mixerRun) runPolicy(ctx context.Context, st *policyState, call *attention.Call, single bool) error {
	if !single {
		return st.op.Run(ctx, call)
	}
	return r.inPieces(ctx, st.op, call, func() int { return 1 })
}

// Alike tells whether another state of the layer has the same policy.
func (c *policyState) Alike(other lm.LayerState) bool {
	d, ok := other.(*policyState)
	return ok && c.op.Owns(d.State)
}

// Clone implements lm.LayerState.
func (c *policyState) Clone() lm.LayerState {
	d := *c
	d.State = c.State.Clone()
	return &d
}

// CopyFrom implements lm.LayerState.
func (c *policyState) CopyFrom(from lm.LayerState) error {
	other, ok := from.(*policyState)
	if !ok {
		return errAnother
	}
	if err := c.State.CopyFrom(other.State); err != nil {
		return err
	}
	c.most = other.most
	return nil
}

// Room implements lm.LayerState.
func (c *policyState) Room(tokens int) error {
	if c.most > 0 && tokens > c.most-c.Len() {
		return check.Errorf(subquad.ErrFull, "%d tokens after %d, want at most MaxTokens = %d", tokens, c.Len(), c.most)
	}
	return nil
}

// policyMark is a kvcache.Mark.
type policyMark struct{ kvcache.Mark }

// Clone implements lm.Mark.
func (m *policyMark) Clone() lm.Mark { return &policyMark{*m.Mark.Clone()} }

// NewMark implements lm.LayerState.
func (c *policyState) NewMark() lm.Mark { return new(policyMark) }

// Save implements lm.LayerState.
func (c *policyState) Save(to lm.Mark) { c.State.Save(&to.(*policyMark).Mark) }

// Restore implements lm.LayerState.
func (c *policyState) Restore(from lm.Mark) error { return c.State.Restore(&from.(*policyMark).Mark) }
