package ssm

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// SSDConfig fixes an SSD.
type SSDConfig struct {
	// Heads is H, HeadDim is P, the channels of a head, States is N.
	Heads, HeadDim, States int
	// Groups is G: head h reads B and C of group h / (H/G). 0 is 1.
	Groups int
	// Softplus passes dt + DtBias through log(1 + exp).
	Softplus bool
	// DtMin and DtMax limit dt behind the softplus; a DtMax of 0 is no limit.
	DtMin, DtMax float32
	// Recurrent runs token by token whatever the length, so that any split of a
	// sequence gives the same bits. Otherwise chunks are computed in the form that is
	// fastest, which rounds otherwise.
	Recurrent bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// SSDWeights are the weights of an SSD.
type SSDWeights struct {
	// A [H] are the decay rates, usually -exp(A_log): negative, for a state that
	// does not grow. nil is for calls that give Decay.
	A []float32
	// D is the skip, [H] or [H P], and DtBias [H] is added to dt; nil is 0.
	D, DtBias []float32
}

// SSD is the state-space duality of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060),
// for each head with a state S [N, P]:
//
//	dt = limits(softplus(dt + DtBias))
//	S = exp(dt A) S + dt B x^T
//	dst = S^T C + D x,  times silu(z)
//
// Sequences are cut into chunks of 64 tokens at absolute positions, and each head's
// part of one computed in the form that is fastest for it. Where a chunk's decay is
// mild it is kept apart from the state; where it is not, long pieces are computed by
// matrix products (section 6): within the chunk as attention with a decaying mask,
// across chunks through the state. Short ones, a token of decoding among them, go by
// the recurrence. All agree to about 1e-6 of the largest value; the same split of a
// sequence gives the same bits.
//
// It costs 4 to 6 flop for each token, channel and state. An SSD is immutable and
// safe for concurrent use.
type SSD struct {
	cfg           SSDConfig
	kind          kind
	a, bias, skip []float32 // skip is [H P]
	scratch       scratch.List[ssdScratch]
}

// NewSSD returns an SSD, or an error that matches ErrConfig.
func NewSSD(cfg SSDConfig, w SSDWeights) (*SSD, error) {
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
	size := sizeOf(h, p, n)
	switch {
	case h%cfg.Groups != 0:
		return nil, check.Errorf(ErrConfig, "ssm: Groups is %d, want a divisor of Heads = %d", cfg.Groups, h)
	case size < 0:
		return nil, check.Errorf(ErrConfig, "ssm: %d states of %d x %d channels are too many", n, h, p)
	case w.A != nil && len(w.A) != h:
		return nil, check.Errorf(ErrConfig, "ssm: A has %d elements, want Heads = %d", len(w.A), h)
	case w.DtBias != nil && len(w.DtBias) != h:
		return nil, check.Errorf(ErrConfig, "ssm: DtBias has %d elements, want Heads = %d", len(w.DtBias), h)
	case w.D != nil && len(w.D) != h && len(w.D) != h*p:
		return nil, check.Errorf(ErrConfig, "ssm: D has %d elements, want Heads = %d or Heads*HeadDim = %d", len(w.D), h, h*p)
	}
	if err := checkDt(cfg.DtMin, cfg.DtMax, cfg.Workers); err != nil {
		return nil, err
	}
	if err := finite("A", w.A); err != nil {
		return nil, err
	}
	op := &SSD{cfg: cfg, a: cloned(w.A), bias: cloned(w.DtBias)}
	for i := range w.D {
		for range h * p / len(w.D) {
			op.skip = append(op.skip, w.D[i])
		}
	}
	op.kind = kind{name: fmt.Sprintf("SSD of %d heads of %d channels in %d groups with %d states", h, p, cfg.Groups, n), size: size, channels: h}
	f := newFingerprint(op.kind.name)
	f.floats(op.a, op.bias, op.skip, []float32{cfg.DtMin, cfg.DtMax})
	op.kind.hash = uint64(f)
	return op, nil
}

// NewState returns an empty state.
func (op *SSD) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// Read sets h [H P, N] to what the state holds, a row for each channel.
func (op *SSD) Read(h blas32.General, st *State) error {
	if err := op.checkStates(h, st); err != nil {
		return err
	}
	op.each(func(row, state, at int) { h.Data[row*h.Stride+state] = st.values[at] })
	return nil
}

// Write makes h [H P, N] what the state holds; Len stays. It is how a sequence
// begins with an initial state.
func (op *SSD) Write(st *State, h blas32.General) error {
	if err := op.checkStates(h, st); err != nil {
		return err
	}
	op.each(func(row, state, at int) { st.values[at] = h.Data[row*h.Stride+state] })
	return nil
}

func (op *SSD) checkStates(h blas32.General, st *State) error {
	if err := op.kind.check("the state", st); err != nil {
		return err
	}
	return check.Matrix(ErrShape, "ssm", "h", h, op.cfg.Heads*op.cfg.HeadDim, op.cfg.States, "States")
}

// each calls f with every channel and state, and their place in a state's values:
// heads of [N, P].
func (op *SSD) each(f func(row, state, at int)) {
	at := 0
	for h := range op.cfg.Heads {
		for n := range op.cfg.States {
			for p := range op.cfg.HeadDim {
				f(h*op.cfg.HeadDim+p, n, at)
				at++
			}
		}
	}
}

// SSDCall is a call of SSD with everything optional.
type SSDCall struct {
	// Dst and X are [n, H P], Dt is [n, H]. Dst may be X.
	Dst, X, Dt blas32.General
	// B and C are [n, G N].
	B, C blas32.General
	// Z [n, H P], where it is given, gates the result.
	Z blas32.General
	// Decay [n, H], where it is given, is the logarithm of the decay, in place of
	// dt A; Dt may then be left out, and is 1. This is how retention, gated linear
	// attention with one gate for a head, and mLSTM without its normaliser are run.
	Decay blas32.General
	// State is where the sequence begins, and is brought up to date; nil is zero,
	// and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each.
	Offsets []int
	States  []*State
	// Filter changes dt, of heads, behind that of a state (StateConfig).
	Filter DeltaFilter
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// Forward runs a whole sequence from a state of zero. Working memory does not
// depend on its length; after the first call nothing is allocated.
func (op *SSD) Forward(dst, x, dt, b, c blas32.General) error {
	return op.Run(context.Background(), &SSDCall{Dst: dst, X: x, Dt: dt, B: b, C: c})
}

// Step runs the next tokens, one or many, behind those the state has seen.
func (op *SSD) Step(dst, x, dt, b, c blas32.General, st *State) error {
	if err := op.kind.check("the state", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &SSDCall{Dst: dst, X: x, Dt: dt, B: b, C: c, State: st})
}

// StepBatch runs one token, a row, for each of many states.
func (op *SSD) StepBatch(dst, x, dt, b, c blas32.General, states []*State) error {
	call := SSDCall{Dst: dst, X: x, Dt: dt, B: b, C: c}
	return op.run(context.Background(), &call, packing{states: states, each: true})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match
// ErrShape or, once ctx is done, ctx.Err(); states then stand where they stood, and
// Dst is unspecified.
func (op *SSD) Run(ctx context.Context, call *SSDCall) error {
	return op.run(ctx, call, packing{state: call.State, offsets: call.Offsets, states: call.States})
}

func (op *SSD) run(ctx context.Context, call *SSDCall, p packing) error {
	if err := op.check(call); err != nil {
		return err
	}
	workers, err := callWorkers(call.Workers, op.cfg.Workers)
	if err != nil {
		return err
	}
	s := op.scratch.Get()
	defer op.scratch.Put(s)
	if err := s.sequences.begin(&op.kind, call.X.Rows, p, mayStop(ctx, call.Filter)); err != nil {
		return err
	}
	err = s.run(ctx, op, call, s.sequences.list, workers)
	s.sequences.end(err)
	return err
}

func (op *SSD) check(c *SSDCall) error {
	wide, shared := op.cfg.Heads*op.cfg.HeadDim, op.cfg.Groups*op.cfg.States
	if op.a == nil && !gated(c.Decay) {
		return check.Errorf(ErrShape, "ssm: Decay is missing, and the weights have no A")
	}
	return checkInputs(c.Dst, c.X.Rows, []input{
		{"X", c.X, wide, "Heads*HeadDim", false},
		{"Dt", c.Dt, op.cfg.Heads, "Heads", gated(c.Decay) && !gated(c.Dt)},
		{"B", c.B, shared, "Groups*States", false},
		{"C", c.C, shared, "Groups*States", false},
		{"Z", c.Z, wide, "Heads*HeadDim", !gated(c.Z)},
		{"Decay", c.Decay, op.cfg.Heads, "Heads", !gated(c.Decay)},
	})
}

// Identity names the SSD, and says how many steps dt a token has: the heads.
func (op *SSD) Identity() Identity { return op.kind.identity() }

// Rates returns a copy of A [H, 1], without rows where the weights have none.
func (op *SSD) Rates() blas32.General { return mat.Of(cloned(op.a), len(op.a), 1) }
