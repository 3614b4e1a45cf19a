package ssm

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
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
	w       SISOWeights
	scratch scratch.List[sisoScratch]
}

// NewSISO returns a SISO, or an error that matches ErrConfig.
func NewSISO(cfg SISOConfig, w SISOWeights) (*SISO, error) {
	if cfg.Groups == 0 {
		cfg.Groups = 1
	}
	h, p, n := cfg.Heads, cfg.HeadDim, cfg.States
	for _, f := range []struct {
		name string
		n    int
	}{{"Heads", h}, {"HeadDim", p}, {"States", n}, {"Groups", cfg.Groups}} {
		if f.n <= 0 || f.n > maxSize {
			return nil, check.Errorf(ErrConfig, "ssm: %s is %d, want 1 to %d", f.name, f.n, maxSize)
		}
	}
	switch {
	case h%cfg.Groups != 0:
		return nil, check.Errorf(ErrConfig, "ssm: Groups is %d, want a divisor of Heads = %d", cfg.Groups, h)
	case sizeOf(h, p+2, n+2) < 0:
		return nil, check.Errorf(ErrConfig, "ssm: %d states of %d x %d channels are too many", n, h, p)
	case cfg.Angles < 0 || cfg.Angles > n/2:
		return nil, check.Errorf(ErrConfig, "ssm: Angles is %d, want 0 to States/2 = %d", cfg.Angles, n/2)
	case cfg.Workers < 0:
		return nil, check.Errorf(ErrConfig, "ssm: Workers is %d, want 0 or more", cfg.Workers)
	case w.D != nil && len(w.D) != h:
		return nil, check.Errorf(ErrConfig, "ssm: D has %d elements, want Heads = %d", len(w.D), h)
	case w.BBias != nil && len(w.BBias) != h*n:
		return nil, check.Errorf(ErrConfig, "ssm: BBias has %d elements, want Heads*States = %d", len(w.BBias), h*n)
	case w.CBias != nil && len(w.CBias) != h*n:
		return nil, check.Errorf(ErrConfig, "ssm: CBias has %d elements, want Heads*States = %d", len(w.CBias), h*n)
	}
	op := &SISO{cfg: cfg, w: SISOWeights{BBias: cloned(w.BBias), CBias: cloned(w.CBias), D: cloned(w.D)}}
	op.kind = kind{
		name: fmt.Sprintf("SISO of %d heads of %d channels in %d groups with %d states, %d angles", h, p, cfg.Groups, n, cfg.Angles),
		size: h * (n*p + n + p + cfg.Angles),
	}
	f := newFingerprint(op.kind.name)
	f.floats(op.w.BBias, op.w.CBias, op.w.D)
	op.kind.hash = uint64(f)
	return op, nil
}

// SISOState is what a SISO remembers, for Read and Write.
type SISOState struct {
	H      blas32.General // [H P, N]: S, a row for each channel
	B      blas32.General // [H, N]: k of the last token
	X      blas32.General // [H, P]: x of the last token
	Angles blas32.General // [H, Angles]
}

// NewState returns an empty state.
func (op *SISO) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// Read sets the matrices of to to what the state holds.
func (op *SISO) Read(to SISOState, st *State) error {
	return op.move(to, st, func(a, b *float32) { *a = *b })
}

// Write makes the matrices of from what the state holds; Len stays.
func (op *SISO) Write(st *State, from SISOState) error {
	return op.move(from, st, func(a, b *float32) { *b = *a })
}

func (op *SISO) move(m SISOState, st *State, f func(m, value *float32)) error {
	if err := op.kind.check("the state", st); err != nil {
		return err
	}
	h, p, n := op.cfg.Heads, op.cfg.HeadDim, op.cfg.States
	for _, c := range []struct {
		name       string
		m          blas32.General
		rows, cols int
		what       string
	}{{"H", m.H, h * p, n, "States"}, {"B", m.B, h, n, "States"}, {"X", m.X, h, p, "HeadDim"}, {"Angles", m.Angles, h, op.cfg.Angles, "Angles"}} {
		if err := check.Matrix(ErrShape, "ssm", c.name, c.m, c.rows, c.cols, c.what); err != nil {
			return err
		}
	}
	for i := range h {
		part := op.part(st.values, i)
		for r := range n {
			for c := range p {
				f(&m.H.Data[(i*p+c)*m.H.Stride+r], &part.s.Data[r*p+c])
			}
		}
		for _, v := range []struct {
			m blas32.General
			x []float32
		}{{m.B, part.k}, {m.X, part.x}, {m.Angles, part.angles}} {
			for j := range v.x {
				f(&v.m.Data[i*v.m.Stride+j], &v.x[j])
			}
		}
	}
	return nil
}

// headState is the part of a state that belongs to one head.
type headState struct {
	s            blas32.General // [N, P]
	k, x, angles []float32
}

func (op *SISO) part(values []float32, head int) (p headState) {
	n, width, angles := op.cfg.States, op.cfg.HeadDim, op.cfg.Angles
	v := values[head*(n*width+n+width+angles):]
	take := func(size int) []float32 { x := v[:size]; v = v[size:]; return x }
	p.s = mat.Of(take(n*width), n, width)
	p.k, p.x, p.angles = take(n), take(width), take(angles)
	return p
}

// SISOCall is a call of SISO with everything optional.
type SISOCall struct {
	// Dst and X (upstream's V) are [n, H P]. Dst may be X.
	Dst, X blas32.General
	// B and C (upstream's K and Q) are [n, G N].
	B, C blas32.General
	// Dt are the steps behind their softplus, Decay is A dt, Trap is in front of
	// its sigmoid: [n, H].
	Dt, Decay, Trap blas32.General
	// Angles [n, H Angles] are in front of their tanh.
	Angles blas32.General
	// Z [n, H P], where it is given, gates the result.
	Z blas32.General
	// State is where the sequence begins, and is brought up to date; nil is zero,
	// and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each.
	Offsets []int
	States  []*State
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// ScratchBytes returns the working memory that a call of one sequence holds, at the
// most, besides its arguments, however many tokens it has.
func (op *SISO) ScratchBytes(tokens int) int64 {
	workers := min(parallel.Workers(op.cfg.Workers), op.cfg.Heads)
	return scratchBytes(int64(op.kind.size) + int64(workers)*int64(3*op.cfg.States+2*op.cfg.HeadDim))
}

// Forward runs a whole sequence from a state of zero, its arguments those of
// SISOCall. Working memory does not depend on its length; after the first call
// nothing is allocated.
func (op *SISO) Forward(dst, x, dt, decay, trap, b, c, angles blas32.General) error {
	return op.Run(context.Background(), &SISOCall{Dst: dst, X: x, Dt: dt, Decay: decay, Trap: trap, B: b, C: c, Angles: angles})
}

// Step runs the next tokens, one or many, behind those the state has seen. Any
// split gives the same bits.
func (op *SISO) Step(dst, x, dt, decay, trap, b, c, angles blas32.General, st *State) error {
	if err := op.kind.check("the state", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &SISOCall{Dst: dst, X: x, Dt: dt, Decay: decay, Trap: trap, B: b, C: c, Angles: angles, State: st})
}

// StepBatch runs one token, a row, for each of many states.
func (op *SISO) StepBatch(dst, x, dt, decay, trap, b, c, angles blas32.General, states []*State) error {
	call := SISOCall{Dst: dst, X: x, Dt: dt, Decay: decay, Trap: trap, B: b, C: c, Angles: angles}
	return op.run(context.Background(), &call, packing{states: states, each: true})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match
// ErrShape or, once ctx is done, ctx.Err(); states then stand where they stood, and
// Dst is unspecified.
func (op *SISO) Run(ctx context.Context, call *SISOCall) error {
	return op.run(ctx, call, packing{state: call.State, offsets: call.Offsets, states: call.States})
}

func (op *SISO) run(ctx context.Context, call *SISOCall, p packing) error {
	wide, shared, heads := op.cfg.Heads*op.cfg.HeadDim, op.cfg.Groups*op.cfg.States, op.cfg.Heads
	err := checkInputs(call.Dst, call.X.Rows, []input{
		{"X", call.X, wide, "Heads*HeadDim", false},
		{"B", call.B, shared, "Groups*States", false},
		{"C", call.C, shared, "Groups*States", false},
		{"Dt", call.Dt, heads, "Heads", false},
		{"Decay", call.Decay, heads, "Heads", false},
		{"Trap", call.Trap, heads, "Heads", false},
		{"Angles", call.Angles, heads * op.cfg.Angles, "Heads*Angles", op.cfg.Angles == 0 && !gated(call.Angles)},
		{"Z", call.Z, wide, "Heads*HeadDim", !gated(call.Z)},
	})
	if err != nil {
		return err
	}
	workers, err := callWorkers(call.Workers, op.cfg.Workers)
	if err != nil {
		return err
	}
	s := op.scratch.Get()
	defer op.scratch.Put(s)
	if err := s.sequences.begin(&op.kind, call.X.Rows, p, mayStop(ctx, nil)); err != nil {
		return err
	}
	err = s.run(ctx, op, call, workers)
	s.sequences.end(err)
	return err
}
