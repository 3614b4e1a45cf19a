package landmark

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// MetaConfig fixes meta-token attention; the fields are those of Config.
type MetaConfig struct {
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	Workers                           int
}

// Meta is the attention of meta-tokens to each other (Shah et al. 2025, arXiv
// 2509.16278), a layer after ordinary causal attention:
//
//	out = softmax(Scale q k^T + M) v, M[i][j] = 0 where j <= i and both are meta-tokens, else -Inf.
//
// Queries of other tokens see nothing and get 0, so that a residual connection
// passes them; the paper does not say what they get. The rows of meta-tokens are
// gathered and attended to as a sequence of their own: n tokens of which m are
// meta-tokens cost as much as causal attention over m, with no mask.
//
// A Meta is immutable and safe for concurrent use.
type Meta struct {
	cfg     attention.Config
	att     *attention.Attention
	scratch scratch.List[metaRun]
}

// NewMeta returns an operator, or an error that matches attention.ErrConfig.
func NewMeta(cfg MetaConfig) (*Meta, error) {
	att, err := attention.New(attention.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Causal: true, Workers: cfg.Workers})
	if err != nil {
		return nil, check.Named("landmark", err)
	}
	return &Meta{att: att, cfg: att.Config()}, nil
}

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim]; meta tells which tokens are meta-tokens. Inputs may overlap
// each other, dst none of them. After the first call of a shape nothing is
// allocated.
func (m *Meta) Forward(dst, q, k, v blas32.General, meta []bool) error {
	return m.attend(context.Background(), metaRequest{Dst: dst, Q: q, K: k, V: v, Meta: meta})
}

// Step is Forward for the next tokens, one or many, after those that the state
// has seen. Any split of a sequence gives what Forward gives, up to rounding. On
// an error the state is as before the call.
func (m *Meta) Step(dst, q, k, v blas32.General, meta []bool, state *MetaState) error {
	if state == nil {
		return check.Errorf(attention.ErrState, "landmark: state is nil, want one of NewState")
	}
	return m.attend(context.Background(), metaRequest{Dst: dst, Q: q, K: k, V: v, Meta: meta, State: state})
}

// MetaOptions are what only Meta has of a call: attention.Call.Options takes a pointer
// to one, and needs it.
type MetaOptions struct {
	// Meta tells which tokens are meta-tokens, as in Forward.
	Meta []bool
}

// metaRequest is a call, with its options.
type metaRequest struct {
	Dst, Q, K, V blas32.General
	Meta         []bool
	State        *MetaState
	workers      int
}

// ScratchBytes returns the working memory that Forward holds for a sequence with
// so many meta-tokens, at the most, besides its arguments.
func (m *Meta) ScratchBytes(metaTokens int) int64 {
	cfg := &m.cfg
	width := int64(cfg.Heads+cfg.KVHeads) * int64(cfg.HeadDim+cfg.ValueDim)
	return m.att.ScratchBytes(metaTokens, metaTokens) + 4*int64(metaTokens)*width + 1<<10
}

// fewTokens is up to how many queries keys are read where they stand, and not packed
// first.
const fewTokens = 64

// metaRun is the working memory of one call: the rows of meta-tokens.
type metaRun struct {
	rows [4][]float32 // of q, k, v, dst
	k, v [2]blas32.General
	call attention.Call
	held attention.View // the state's tokens, for few queries
}

// Run is Forward or Step with everything optional, and an end: when ctx is done
// it returns ctx.Err() and leaves Dst in an unspecified state. Of a Call it takes K and
// V of one segment, State, Workers and, always, a *MetaOptions for Options; any other
// option is an error. Errors about matrices match ErrShape, those about options
// ErrCall; both come before anything is written.
func (m *Meta) Run(ctx context.Context, call *attention.Call) error {
	if err := check.Call("landmark", ctx, call != nil); err != nil {
		return err
	}
	if err := call.Honour("landmark", attention.UsesState); err != nil {
		return err
	}
	if err := call.One("landmark"); err != nil {
		return err
	}
	if call.States != nil {
		return check.Errorf(attention.ErrCall, "landmark: States, want State: one sequence a step")
	}
	o, _ := call.Options.(*MetaOptions)
	if o == nil {
		return check.Errorf(attention.ErrCall, "landmark: Options is a %T, want a *landmark.MetaOptions", call.Options)
	}
	q := metaRequest{Dst: call.Dst, Q: call.Q, K: call.K[0], V: call.V[0], Meta: o.Meta, workers: call.Workers}
	if call.State != nil {
		if q.State, _ = call.State.(*MetaState); q.State == nil {
			return check.Errorf(attention.ErrState, "landmark: State is a %T, want a *landmark.MetaState", call.State)
		}
	}
	return m.attend(ctx, q)
}

// attend checks a request and does it.
func (m *Meta) attend(ctx context.Context, call metaRequest) error {
	cfg := &m.cfg
	n := call.Q.Rows
	for _, x := range [...]struct {
		name string
		m    blas32.General
		rows int
		cols int
		what string
	}{
		{"q", call.Q, -1, cfg.Heads * cfg.HeadDim, "Heads*HeadDim"},
		{"k", call.K, n, cfg.KVHeads * cfg.HeadDim, "KVHeads*HeadDim"},
		{"v", call.V, n, cfg.KVHeads * cfg.ValueDim, "KVHeads*ValueDim"},
	} {
		if err := check.Matrix(attention.ErrShape, "landmark", x.name, x.m, x.rows, x.cols, x.what); err != nil {
			return err
		}
	}
	if len(call.Meta) != n {
		return check.Errorf(attention.ErrShape, "landmark: meta has %d elements, want one for each token = %d", len(call.Meta), n)
	}
	if call.State != nil && call.State.op != m {
		return check.Errorf(attention.ErrState, "landmark: the state is of another operator")
	}
	outputs := [...]check.Out{{Name: "dst", M: call.Dst, Rows: n, Cols: cfg.Heads * cfg.ValueDim, What: "Heads*ValueDim", Needed: true}}
	if err := check.Outputs("landmark", outputs[:], call.Q, call.K, call.V); err != nil {
		return err
	}
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.run(ctx, m, call)
}

func (r *metaRun) run(ctx context.Context, m *Meta, call metaRequest) error {
	count := 0
	for _, is := range call.Meta {
		if is {
			count++
		}
	}
	if s := call.State; s != nil && s.cfg.MaxTokens > 0 && count > s.cfg.MaxTokens-s.tokens.Rows {
		return check.Errorf(attention.ErrCall, "landmark: %d more meta-tokens for a state of %d with MaxTokens %d", count, s.tokens.Rows, s.cfg.MaxTokens)
	}
	var gathered [4]blas32.General
	for i, from := range [...]blas32.General{call.Q, call.K, call.V, call.Dst} {
		r.rows[i] = scratch.Floats(r.rows[i], count*from.Cols)
		gathered[i] = mat.Of(r.rows[i], count, from.Cols)
		at := 0
		for t, is := range call.Meta {
			if is {
				if i < 3 {
					copy(mat.Row(gathered[i], at), mat.Row(from, t))
				}
				at++
			}
		}
	}
	r.k, r.v = [2]blas32.General{gathered[1]}, [2]blas32.General{gathered[2]}
	segments := 1
	few := call.State != nil && count <= fewTokens
	if s := call.State; s != nil && !few {
		r.k, r.v = [2]blas32.General{s.tokens.K(), gathered[1]}, [2]blas32.General{s.tokens.V(), gathered[2]}
		segments = 2
	}
	r.call = attention.Call{Workers: call.workers, Dst: gathered[3], Q: gathered[0], K: r.k[:segments], V: r.v[:segments]}
	if few {
		t := &call.State.tokens
		t.Append(gathered[1], gathered[2])
		held, err := r.held.Of(m.att, t.K(), t.V(), 0)
		if err != nil {
			return err
		}
		r.call = attention.Call{State: held, Workers: call.workers, Dst: gathered[3], Q: gathered[0]}
	}
	err := m.att.Run(ctx, &r.call)
	r.call, r.k, r.v = attention.Call{}, [2]blas32.General{}, [2]blas32.General{}
	if err != nil {
		if few {
			call.State.tokens.Truncate(call.State.tokens.End() - int64(count))
		}
		return err
	}
	at := 0
	for t, is := range call.Meta {
		dst := mat.Row(call.Dst, t)
		if is {
			copy(dst, mat.Row(gathered[3], at))
			at++
		} else {
			clear(dst)
		}
	}
	if s := call.State; s != nil {
		if !few {
			s.tokens.Append(gathered[1], gathered[2])
		}
		s.length += int64(len(call.Meta))
	}
	return nil
}
