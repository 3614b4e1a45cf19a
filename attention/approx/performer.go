package approx

import (
	"context"
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// PerformerConfig fixes a Performer.
type PerformerConfig struct {
	// Heads is H, KVHeads G a divisor of it (0 stands for Heads), HeadDim D and
	// ValueDim Dv (0 stands for HeadDim), as in package attention.
	Heads, KVHeads, HeadDim, ValueDim int
	// Causal lets a query see the keys up to its own alone; queries and keys are then
	// the same tokens.
	Causal bool
	// ReLU takes relu for the features in place of those that approximate softmax.
	ReLU bool
	// Projection is W [F, D], of which all heads have the same. No data stands for one that
	// is made of Features and Seed; NewPerformer tells how.
	Projection blas32.General
	// Features is F, the rows of a Projection that is made; 0 stands for D ln D, rounded
	// down, and at least 1. It is 0 or the rows of Projection where there is one.
	Features int
	// Seed chooses the Projection that is made; 0 is a seed like others.
	Seed uint64
	// Eps is added to each feature; 0 stands for 1e-4, or with ReLU 1e-3.
	Eps float64
	// Stabilizer is subtracted in the exponents of the keys' features. nil stands for what
	// is published: the largest element of x W^T over all keys of the sequence and head. A
	// number, the same for all sequences, lets a causal Performer stream; 0 is the formula
	// of the paper. Results differ through Eps alone, which counts for more the smaller the
	// features are; a key's are at most exp(|w|^2/2 - Stabilizer), with |w|^2 about D for a
	// Projection that is made. ReLU has none.
	Stabilizer *float32
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Performer is attention by random features (FAVOR+; Choromanski et al. 2021, arXiv
// 2009.14794), an approximation of softmax attention whose scale is 1/sqrt(D):
//
//	x       = q[i] or k[j], times D^(-1/4)
//	phi(x)  = F^(-1/2) (exp(W x - |x|^2/2 - top) + Eps)              [F]
//	out[i]  = phi(q[i]) S / (phi(q[i]).z)
//	S       = sum over j of s[j] phi(k[j]) v[j]^T                    [F, Dv]
//	z       = sum over j of s[j] phi(k[j])                           [F]
//
// for each head, with s[j] = exp(LogWeights[j]), 1 without. top is the largest element of W x,
// of a query over its own features, of keys over those of all keys (but see Stabilizer).
// Causal, the sums go up to j = i, and each element of z has 1e-6 added to it. With ReLU
//
//	phi(x) = max(W x, 0) + Eps
//
// which is no approximation of softmax but a model of its own.
//
// The keys' top does not change the weights but through Eps. Yet causal results depend by it,
// a little, on tokens to come, and the next token can change all of them: only with ReLU or a
// Stabilizer does a causal Performer have a State, a LinearState.
//
// It costs 4 F (D + Dv) flop for each token and head, 2 F D more where tops of keys are
// sought, and causal, within chunks of 64 tokens, 128 F more. A Performer is immutable and safe for concurrent use.
type Performer struct {
	cfg PerformerConfig
	featured
}

// NewPerformer returns an operator, or an error that matches ErrConfig.
//
// A Projection is made as the published code does: rows in blocks of D, each the rows of an
// orthogonal matrix, which is Q of the QR decomposition of D x D normal variates, the last
// block cut off; then each row is multiplied by the length of a vector of D normal variates of
// its own, so that a row is distributed as a normal one. The variates are by Box and Muller
// (1958), cosine before sine, from a PCG (math/rand/v2) of the seeds Seed and 0: the squares
// first, row by row, then the lengths. A seed gives the same Projection on every processor, to
// the bit, so that states and their files belong to operators made of it there, too. Its numbers
// are not those of another library with the same seed: a trained network's Projection is to be
// stored and given.
func NewPerformer(cfg PerformerConfig) (*Performer, error) {
	sh, err := newShape(cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim, cfg.Workers)
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*Performer, error) {
		return nil, check.Errorf(ErrConfig, "approx: "+format, args...)
	}
	given := mat.Given(cfg.Projection)
	switch {
	case given && cfg.Projection.Rows <= 0:
		return fail("Projection has %d rows, want 1 or more", cfg.Projection.Rows)
	case cfg.Features < 0 || cfg.Features > 1<<20:
		return fail("Features is %d, want 0 to %d", cfg.Features, 1<<20)
	case given && cfg.Features != 0 && cfg.Features != cfg.Projection.Rows:
		return fail("Features is %d and Projection has %d rows", cfg.Features, cfg.Projection.Rows)
	case checkEps(cfg.Eps) != nil:
		return nil, checkEps(cfg.Eps)
	case cfg.Stabilizer != nil && cfg.ReLU:
		return fail("a Stabilizer with ReLU, whose features need none")
	case cfg.Stabilizer != nil && !finite(*cfg.Stabilizer):
		return fail("Stabilizer is %v, want a finite number", *cfg.Stabilizer)
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-4
		if cfg.ReLU {
			cfg.Eps = 1e-3
		}
	}
	if cfg.Features == 0 {
		cfg.Features = max(1, int(float64(sh.dim)*logarithm(float64(sh.dim))))
	}
	if given {
		cfg.Features = cfg.Projection.Rows
	}
	p := &Performer{featured: featured{causal: cfg.Causal, made: sh.dim, each: true, kind: "Performer"}}
	if err := p.shaped(sh, cfg.Features, cfg.Workers); err != nil {
		return nil, err
	}
	if given {
		if cfg.Projection, err = copyWeights("Projection", cfg.Projection, sh.dim, "HeadDim"); err != nil {
			return nil, err
		}
	} else {
		if int64(cfg.Features+sh.dim)*int64(sh.dim) > maxMade/int64(sh.dim) {
			return fail("a Projection of %d x %d takes too long to make, give one", cfg.Features, sh.dim)
		}
		cfg.Projection = orthogonal(cfg.Features, sh.dim, cfg.Seed)
	}
	p.cfg = cfg
	p.phi = newFavor(cfg)
	switch {
	case !cfg.Causal:
		p.still = "a Performer that is not Causal: its queries see the tokens to come"
	case cfg.Stabilizer == nil && !cfg.ReLU:
		p.still = "a Performer without a Stabilizer: its features depend on all keys"
	}
	if cfg.Causal {
		p.eps = 1e-6
	}
	if !cfg.ReLU && cfg.Stabilizer == nil {
		p.sums.top = p.phi.(topper)
	}
	p.identify()
	return p, nil
}

// identify tells whose states the operator's are.
func (p *Performer) identify() {
	p.unlike = "another Projection, Eps, Stabilizer or ReLU"
	fixed := float32(0)
	if p.cfg.Stabilizer != nil {
		fixed = *p.cfg.Stabilizer
	}
	weights := state.NewFingerprint("projection")
	weights.Matrices(p.cfg.Projection)
	p.numbers = append(p.sums.numbers(), performerNumber, int64(p.cfg.Features), state.Bool(p.cfg.ReLU),
		int64(math.Float32bits(float32(p.cfg.Eps))), int64(math.Float32bits(fixed)), int64(weights))
	p.fingerprint = state.NewFingerprint("approx.Performer", p.numbers...)
}

// Projection returns a copy of W [F, D], to be stored with a network that is trained with it.
func (p *Performer) Projection() blas32.General {
	w := mat.New(p.cfg.Features, p.cfg.HeadDim)
	mat.Copy(w, p.cfg.Projection)
	return w
}

// Forward attends over one sequence: q is [queries, Heads*HeadDim], k [keys,
// KVHeads*HeadDim], v [keys, KVHeads*ValueDim] and dst [queries,
// Heads*ValueDim], heads side by side. Inputs may overlap each other, dst none
// of them. After the first call of a shape nothing is allocated. Errors match ErrShape.
func (p *Performer) Forward(dst, q, k, v blas32.General) error {
	return p.sum(context.Background(), request{Dst: dst, Q: q, K: k, V: v})
}

// Step is Forward for the next tokens, one or many, after those that the state
// has seen. Any split of a sequence gives what Forward gives, up to rounding. On an error, as
// where the operator has no states (ErrCall), the state is as before the call.
// Errors are those of Run.
func (p *Performer) Step(dst, q, k, v blas32.General, st *LinearState) error {
	return p.step(dst, q, k, v, st)
}

// StepBatch is Step for the next token of each of many states, as Linear.StepBatch. Errors
// match those of Run.
func (p *Performer) StepBatch(dst, q, k, v blas32.General, states []*LinearState) error {
	return p.stepBatch(dst, q, k, v, states)
}

// Run is Forward, Step or StepBatch with everything optional, and an end, with the options
// and errors of Linear.Run.
func (p *Performer) Run(ctx context.Context, call *attention.Call) error { return p.attend(ctx, call) }

// NewState returns the state before the first token, or an error that matches ErrConfig: only
// a causal Performer with ReLU or a Stabilizer has one.
func (p *Performer) NewState(cfg StateConfig) (*LinearState, error) { return p.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this Performer, or of one with the same
// heads, widths, Projection, Eps, Stabilizer and ReLU. Errors match ErrState or are those of r.
func (p *Performer) ReadState(r io.Reader) (*LinearState, error) { return p.readState(r) }

// Bytes returns the memory of the weights, the Projection as it is and as it is multiplied by.
func (p *Performer) Bytes() int64 {
	return 4*int64(p.cfg.Features)*int64(p.cfg.HeadDim) + p.phi.(*favor).w.Bytes()
}

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (p *Performer) ScratchBytes(queries, keys int) int64 { return p.bytes(keys) }
