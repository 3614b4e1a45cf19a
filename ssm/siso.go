package ssm

import (
	"fmt"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// SISOConfig fixes a SISO.
type SISOConfig struct {
	// Heads is H, HeadDim is P, the channels of a head, States is N.
	Heads, HeadDim, States int
	// Groups is G: head h reads B and C of group h / (H/G). 0 is 1.
	Groups int
	// Angles is how many pairs of states are rotated, at most N/2.
	Angles int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// SISOWeights are the weights of a SISO; nil is 0.
type SISOWeights struct {
	// BBias and CBias [H N] are added to B and C.
	BBias, CBias []float32
	// D [H] is the skip.
	D []float32
}

// SISO is the recurrence of Mamba-3 with a single input and output (SISO), as
// state-spaces/mamba publishes it: a trapezoidal rule and rotating states. For each
// head, with a state S [N, P],
//
//	angle = angle + tanh(Angles) pi dt  (mod 2 pi)
//	q, k = C + CBias, B + BBias, their pairs (2i, 2i+1) turned by angle[i]
//	a = exp(Decay), l = 1 / (1 + exp(-Trap))
//	S = a S + (1-l) dt a k' x'^T + l dt k x^T    (k', x' those of the token before)
//	dst = S^T q + D x,  times silu(z)
//
// The state is S, k', x' and the angles. It costs 9 flop for each token, channel
// and state. A SISO is immutable and safe for concurrent use.
type SISO struct {
	cfg     SISOConfig
	kind    kind
	w       SISOWeights // copies
	scratch scratch.List[sisoWork]
}

// NewSISO returns a SISO, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewSISO(cfg SISOConfig, w SISOWeights) (*SISO, error) {
	if cfg.Groups == 0 {
		cfg.Groups = 1
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	h, p, n := cfg.Heads, cfg.HeadDim, cfg.States
	if err := checkVectors(
		vectorWeight{"D", w.D, h, "Heads", true},
		vectorWeight{"BBias", w.BBias, h * n, "Heads*States", true},
		vectorWeight{"CBias", w.CBias, h * n, "Heads*States", true},
	); err != nil {
		return nil, err
	}
	op := &SISO{cfg: cfg, w: SISOWeights{BBias: cloned(w.BBias), CBias: cloned(w.CBias), D: cloned(w.D)}}
	name := fmt.Sprintf("SISO of %d heads of %d channels in %d groups with %d states, %d angles", h, p, cfg.Groups, n, cfg.Angles)
	f := state.NewFingerprint(name)
	f.Floats(op.w.BBias, op.w.CBias, op.w.D)
	op.kind = newKind(name, h*(n*p+n+p+cfg.Angles), f, 5*int64(h*n*p), 0)
	return op, nil
}

func (cfg *SISOConfig) check() error {
	h, p, n, g := cfg.Heads, cfg.HeadDim, cfg.States, cfg.Groups
	if err := checkSizes(size{"Heads", h}, size{"HeadDim", p}, size{"States", n}, size{"Groups", g}); err != nil {
		return err
	}
	if err := checkGroups(g, h, "Heads"); err != nil {
		return err
	}
	switch {
	case check.Product(maxFloats, h, p+2, n+2) < 0:
		return check.Errorf(ErrConfig, "ssm: %d states of %d x %d channels are too many", n, h, p)
	case cfg.Angles < 0 || cfg.Angles > n/2:
		return check.Errorf(ErrConfig, "ssm: Angles is %d, want 0 to States/2 = %d", cfg.Angles, n/2)
	}
	return check.Workers(ErrConfig, "ssm", cfg.Workers)
}

// Bytes returns the memory of the weights.
func (op *SISO) Bytes() int64 { return floatBytes(len(op.w.BBias) + len(op.w.CBias) + len(op.w.D)) }

// ScratchBytes returns the working memory that a call of one sequence takes at most,
// besides its arguments, however many tokens it has.
func (op *SISO) ScratchBytes(tokens int) int64 {
	workers := min(parallel.Workers(op.cfg.Workers), op.cfg.Heads)
	return scratchBytes(int64(op.kind.Size) + int64(workers)*int64(3*op.cfg.States+2*op.cfg.HeadDim))
}
