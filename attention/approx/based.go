package approx

import (
	"context"
	"fmt"
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/state"
)

// BasedConfig fixes a Based.
type BasedConfig struct {
	// Heads is H, KVHeads G a divisor of it (0 stands for Heads), HeadDim D and
	// ValueDim Dv (0 stands for HeadDim), as in package attention. Published networks have
	// a HeadDim of 16, narrower than their values: states grow with its square.
	Heads, KVHeads, HeadDim, ValueDim int
	// Eps is added to the denominator; 0 stands for 1e-12.
	Eps float64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Based is the linear attention of Based (Arora et al. 2024, arXiv 2402.18668), whose
// weights are the first terms of the Taylor series of exp:
//
//	x      = q[i].k[j] / sqrt(D)
//	p[j]   = s[j] (1 + x + x^2/2)
//	out[i] = sum over j <= i of p[j] v[j] / (sum over j <= i of p[j] + Eps)
//
// for each head, with s[j] = exp(LogWeights[j]), 1 without. It is causal. A weight is a
// product of F = 1 + D + D (D+1)/2 features,
//
//	phi(x) = [1, y[a], y[a]^2 / sqrt(2), y[a] y[b] for a < b]    with y = x / D^(1/4),
//
// so that a State remembers S = sum of s[j] phi(k[j]) v[j]^T [F, Dv] and z = sum of s[j] phi(k[j]) [F]
// of each key head. The published features have each product of two elements twice, 1 + D
// + D^2 of them, to the same weights. A network must have been trained with it; published
// ones have layers of it between layers of exact attention with a window of 64 or 128.
//
// Steps divide by the denominator as a whole sequence does. The published code leaves it
// out in its recurrence, so that its tokens differ from its sequences.
//
// It costs 4 F Dv flop for each token and head, and 128 (D + Dv) within chunks of 64 tokens,
// whose weights are not made of features. A Based is immutable and safe for
// concurrent use.
type Based struct {
	cfg BasedConfig
	featured
}

// NewBased returns an operator, or an error that matches ErrConfig.
func NewBased(cfg BasedConfig) (*Based, error) {
	sh, err := newShape(cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim, cfg.Workers)
	if err != nil {
		return nil, err
	}
	if err := checkEps(cfg.Eps); err != nil {
		return nil, err
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-12
	}
	phi := newTaylor(sh.dim)
	b := &Based{cfg: cfg, featured: featured{phi: phi, pairs: phi, causal: true, eps: float32(cfg.Eps), kind: "Based"}}
	if err := b.shaped(sh, phi.width, cfg.Workers); err != nil {
		return nil, err
	}
	b.unlike = fmt.Sprintf("another Eps, want %v", cfg.Eps)
	b.numbers = append(sh.numbers(), basedNumber, int64(math.Float32bits(float32(cfg.Eps))))
	b.fingerprint = state.NewFingerprint("approx.Based", b.numbers...)
	return b, nil
}

// Numbers that no Eps of a Linear is, which stand in its place in a stored state.
const (
	basedNumber = 1<<40 + iota
	performerNumber
)

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim], heads side by side. Inputs may overlap each other, dst none
// of them. After the first call of a shape nothing is allocated. Errors match ErrShape.
func (b *Based) Forward(dst, q, k, v blas32.General) error {
	return b.sum(context.Background(), request{Dst: dst, Q: q, K: k, V: v})
}

// Step is Forward for the next tokens, one or many, after those that the state
// has seen. Any split of a sequence gives what Forward gives, up to rounding. On
// an error the state is as before the call. Errors match those of Run.
func (b *Based) Step(dst, q, k, v blas32.General, st *LinearState) error {
	return b.step(dst, q, k, v, st)
}

// StepBatch is Step for the next token of each of many states, as Linear.StepBatch. Errors
// match those of Run.
func (b *Based) StepBatch(dst, q, k, v blas32.General, states []*LinearState) error {
	return b.stepBatch(dst, q, k, v, states)
}

// Run is Forward, Step or StepBatch with everything optional, and an end, with the options
// and errors of Linear.Run.
func (b *Based) Run(ctx context.Context, call *attention.Call) error { return b.attend(ctx, call) }

// NewState returns the state before the first token. Errors match ErrConfig.
func (b *Based) NewState(cfg StateConfig) (*LinearState, error) { return b.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this Based, or of one with the same heads,
// widths and Eps. Errors match ErrState or are those of r.
func (b *Based) ReadState(r io.Reader) (*LinearState, error) { return b.readState(r) }

// Bytes returns 0: the operator has neither weights nor tables. States and working
// memory count for themselves.
func (b *Based) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (b *Based) ScratchBytes(tokens int) int64 { return b.bytes(tokens) }
