package hyena

import (
	"context"
	"fmt"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// DecimateConfig fixes a decimating convolution.
type DecimateConfig struct {
	// Kernel is k, [taps, channels]: row m is the weight of an input m tokens later. It is
	// copied.
	Kernel blas32.General
	// Factor is M: every M-th output is computed; 0 is 1.
	Factor int
}

// Decimate is a convolution of which every M-th output is computed, the first one included, as
// in a filter bank or before a signal is sampled at a lower rate:
//
//	y[i][c] = sum over m of k[m][c] x[i M - m][c].
//
// It is for kernels of up to some hundred taps: it costs 2 taps/M flop for each input and
// channel. For more of them a Conv of all outputs is faster. A Decimate is immutable and safe
// for concurrent use, and runs on the goroutine of the caller.
type Decimate struct {
	taps    blas32.General // [taps, C], the oldest first
	factor  int
	kind    kind
	scratch scratch.List[[]float32]
}

// NewDecimate returns a convolution, or an error that matches ErrConfig.
func NewDecimate(cfg DecimateConfig) (*Decimate, error) {
	k := cfg.Kernel
	if k.Rows <= 0 || k.Cols <= 0 {
		return nil, check.Errorf(ErrConfig, "hyena: Kernel is %d x %d, want a tap and a channel or more", k.Rows, k.Cols)
	}
	if err := check.Matrix(ErrConfig, pkg, "Kernel", k, -1, k.Cols, "channels"); err != nil {
		return nil, err
	}
	if cfg.Factor == 0 {
		cfg.Factor = 1
	}
	if cfg.Factor < 0 || cfg.Factor > mostTokens {
		return nil, check.Errorf(ErrConfig, "hyena: Factor is %d, want 0 or more", cfg.Factor)
	}
	d := &Decimate{taps: mat.New(k.Rows, k.Cols), factor: cfg.Factor}
	for m := range k.Rows {
		copy(mat.Row(d.taps, k.Rows-1-m), mat.Row(k, m))
	}
	name := fmt.Sprintf("Decimate of %d channels with %d taps by %d", k.Cols, k.Rows, d.factor)
	f := state.NewFingerprint(name)
	f.Matrices(d.taps)
	d.kind = kind{name: name, size: (k.Rows - 1) * k.Cols, hash: uint64(f), most: mostTokens}
	return d, nil
}

// Channels returns the number of channels.
func (d *Decimate) Channels() int { return d.taps.Cols }

// Outputs returns how many outputs n inputs give after seen others.
func (d *Decimate) Outputs(seen, n int) int {
	if seen < 0 || n <= 0 || n > mostTokens || seen > mostTokens {
		return 0
	}
	m := d.factor
	return (seen+n+m-1)/m - (seen+m-1)/m
}

// Bytes returns the memory of the kernel.
func (d *Decimate) Bytes() int64 { return floatBytes(d.taps.Rows, d.taps.Cols) }

// ScratchBytes returns the working memory of a call of any number of inputs.
func (d *Decimate) ScratchBytes(int) int64 {
	return sumBytes(floatBytes(2*d.taps.Rows, d.taps.Cols), floatBytes(d.kind.size))
}

// NewState returns an empty state. Errors match ErrConfig.
func (d *Decimate) NewState(cfg StateConfig) (*State, error) { return d.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this convolution, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (d *Decimate) ReadState(r io.Reader) (*State, error) { return d.kind.readState(r) }

// DecimateCall is a call of Decimate with everything optional.
type DecimateCall struct {
	// Dst is [Outputs, channels], X [inputs, channels].
	Dst, X blas32.General
	// State is where the sequence goes on from, and is brought up to date; nil is for none.
	State *State
}

// Forward takes a whole sequence: x is [inputs, channels], dst [Outputs(0, inputs), channels],
// and they share no element. It allocates nothing after the first call. Errors match ErrShape.
func (d *Decimate) Forward(dst, x blas32.General) error {
	return d.Run(context.Background(), &DecimateCall{Dst: dst, X: x})
}

// Step takes the next inputs, one or many; dst is [Outputs(st.Len(), inputs), channels]. Any
// split gives the same bits. Errors match ErrShape, ErrState or ErrFull.
func (d *Decimate) Step(dst, x blas32.General, st *State) error {
	if err := d.kind.accept("State", st); err != nil {
		return err
	}
	return d.Run(context.Background(), &DecimateCall{Dst: dst, X: x, State: st})
}

// Run is Forward and Step with everything optional. Errors match ErrShape, ErrCall, ErrState or
// ErrFull, or are ctx.Err() once ctx is done; the state is then as it was, and Dst unspecified.
func (d *Decimate) Run(ctx context.Context, call *DecimateCall) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	st, seen := call.State, 0
	if st != nil {
		if err := d.kind.accept("State", st); err != nil {
			return err
		}
		seen = st.n
	}
	if err := check.Matrix(ErrShape, pkg, "x", call.X, -1, d.Channels(), "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, call.Dst, d.Outputs(seen, call.X.Rows), d.Channels(), "channels", call.X, false); err != nil {
		return err
	}
	if st != nil {
		if err := st.Room(call.X.Rows); err != nil {
			return err
		}
	}
	spare := d.scratch.Get()
	defer d.scratch.Put(spare)
	return d.decimate(ctx, call, seen, spare)
}

// decimate computes the outputs of a call that has been checked, after seen inputs.
func (d *Decimate) decimate(ctx context.Context, call *DecimateCall, seen int, spare *[]float32) error {
	const looks = 256 // outputs between two looks at ctx
	if err := ctx.Err(); err != nil {
		return err
	}
	before, c := d.taps.Rows-1, d.Channels()
	*spare = scratch.Floats(*spare, (2*before+1)*c)
	own := mat.Of(*spare, 2*before+1, c)
	// The inputs before the call, and the first of the call.
	clear(own.Data[:before*c])
	if call.State != nil {
		copy(own.Data, call.State.values)
	}
	head := min(before+1, call.X.Rows)
	mat.Copy(mat.Rows(own, before, own.Rows), mat.Rows(call.X, 0, head))
	first := (d.factor - seen%d.factor) % d.factor // of the call's inputs with an output
	for i := range call.Dst.Rows {
		if i%looks == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		t := first + i*d.factor
		x := mat.Rows(own, t, t+before+1)
		if t >= before {
			x = mat.Rows(call.X, t-before, t+1)
		}
		dotRows(mat.Rows(call.Dst, i, i+1), x, d.taps, nil)
	}
	if st := call.State; st != nil && call.X.Rows > 0 {
		if call.X.Rows >= before {
			mat.Copy(mat.Of(st.values, before, c), mat.Rows(call.X, call.X.Rows-before, call.X.Rows))
		} else {
			copy(st.values, own.Data[call.X.Rows*c:][:before*c])
		}
		st.advance(call.X.Rows)
	}
	return nil
}
