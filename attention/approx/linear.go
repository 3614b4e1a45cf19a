package approx

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/state"
)

// LinearConfig fixes a Linear.
type LinearConfig struct {
	// Heads is H, KVHeads G a divisor of it (0 stands for Heads), HeadDim D and
	// ValueDim Dv (0 stands for HeadDim), as in package attention.
	Heads, KVHeads, HeadDim, ValueDim int
	// Causal lets a query see the keys up to its own alone; queries and keys are then
	// the same tokens.
	Causal bool
	// Eps is added to the denominator; 0 stands for 1e-6.
	Eps float64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Linear is linear attention with the feature map phi(x) = elu(x) + 1
// (Katharopoulos et al. 2020, arXiv 2006.16236):
//
//	S      = sum over j of s[j] phi(k[j]) v[j]^T           [D, Dv]
//	z      = sum over j of s[j] phi(k[j])                  [D]
//	out[i] = phi(q[i]) S / (phi(q[i]).z + Eps)
//
// for each head, with s[j] = exp(LogWeights[j]), 1 without. Causal, the sums go
// up to j = i, and are what a State remembers. It is not an approximation of
// softmax attention but a model of its own: a network must have been trained
// with it.
//
// It costs 4 D Dv flop for each token and head, causal 8 D Dv. A Linear is
// immutable and safe for concurrent use.
type Linear struct {
	cfg LinearConfig
	featured
}

// NewLinear returns an operator, or an error that matches ErrConfig.
func NewLinear(cfg LinearConfig) (*Linear, error) {
	sh, err := newShape(cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim, cfg.Workers)
	if err != nil {
		return nil, err
	}
	if err := checkEps(cfg.Eps); err != nil {
		return nil, err
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-6
	}
	l := &Linear{cfg: cfg, featured: featured{phi: eluPlusOne{}, causal: cfg.Causal, eps: float32(cfg.Eps), kind: "Linear"}}
	if !cfg.Causal {
		l.still = "a Linear that is not Causal: its queries see the tokens to come"
	}
	if err := l.shaped(sh, sh.dim, cfg.Workers); err != nil {
		return nil, err
	}
	l.unlike = fmt.Sprintf("another Eps, want %v", cfg.Eps)
	l.numbers = append(sh.numbers(), int64(math.Float32bits(float32(cfg.Eps))))
	l.fingerprint = state.NewFingerprint("approx.Linear", l.numbers...)
	return l, nil
}

// Forward attends over one sequence: q is [queries, Heads*HeadDim], k [keys,
// KVHeads*HeadDim], v [keys, KVHeads*ValueDim] and dst [queries,
// Heads*ValueDim], heads side by side. Inputs may overlap each other, dst none
// of them. After the first call of a shape nothing is allocated. Errors match ErrShape.
func (l *Linear) Forward(dst, q, k, v blas32.General) error {
	return l.sum(context.Background(), request{Dst: dst, Q: q, K: k, V: v})
}

// Step is Forward for the next tokens, one or many, after those that the state
// has seen. Any split of a sequence gives what Forward gives, up to rounding. On
// an error, as where the operator is not Causal (ErrCall), the state is as before the call. Errors
// are those of Run.
func (l *Linear) Step(dst, q, k, v blas32.General, st *LinearState) error {
	return l.step(dst, q, k, v, st)
}

// StepBatch is Step for the next token of each of many states: row i of the matrices
// belongs to states[i], and no state may be there twice. It is Run with States, which also
// takes several tokens of each. On an error all states are as before the call. Errors match
// those of Run.
func (l *Linear) StepBatch(dst, q, k, v blas32.General, states []*LinearState) error {
	return l.stepBatch(dst, q, k, v, states)
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is done
// it returns ctx.Err(), leaves Dst in an unspecified state and a State as it was. Of a
// Call it takes K and V of one segment, Offsets, KOffsets, LogWeights, Workers, an
// *Options for Options and, causal, State or States of LinearState; any other option is an
// error. Errors about matrices match ErrShape, those about options ErrCall, those about
// states ErrState or ErrFull; all come before anything is written.
func (l *Linear) Run(ctx context.Context, call *attention.Call) error {
	return l.attend(ctx, call)
}

// Bytes returns 0: the operator has neither weights nor tables. States and working
// memory count for themselves.
func (l *Linear) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (l *Linear) ScratchBytes(queries, keys int) int64 {
	return l.bytes(keys)
}
