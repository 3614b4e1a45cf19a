package hyena

import (
	"context"
	"fmt"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/state"
)

// H3Config fixes an H3 operator.
type H3Config struct {
	// Heads and HeadDim are H and P; a token is H P wide, channel d of head h being h P + d.
	// 0 stands for a HeadDim of 1.
	Heads, HeadDim int
	// SpectraBytes and Cache are those of ConvConfig or, with Modes, of ModalConfig.
	SpectraBytes int64
	Cache        *Cache
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
	// Scratch is the working memory to use; nil is the operator's own.
	Scratch *Scratch
}

// H3Weights are the weights of an H3 operator.
type H3Weights struct {
	// Shift is the kernel of the shift state space, [taps, H P]: row m is the weight of a k
	// m tokens later. ShiftSkip [H P] is its D, or nil. Without Shift, k stays as it is.
	Shift     blas32.General
	ShiftSkip []float32
	// Kernel is that of the diagonal state space, [taps, H], as of a ConvConfig; or Modes
	// are, of H channels (NewS4DModes). Skip [H] is its D, or nil.
	Kernel blas32.General
	Modes  *Modes
	Skip   []float32
}

// H3 is the operator of the model of that name (Fu et al. 2023, "Hungry Hungry Hippos",
// arXiv 2212.14052), between its projections: a state space that shifts k, so that a key can
// be compared with what comes after it, one that remembers, and two gates. In each head, with
// k, v and q of P columns,
//
//	k  = shift * k + ShiftSkip k,
//	kv = k v^T                                  [P, P], a channel for each element,
//	y  = kernel * kv + Skip kv,
//	dst[d] = sum over e of q[e] y[e][d].
//
// It has P^2 long convolutions in each head. An H3 is immutable and safe for concurrent use.
type H3 struct {
	cfg     H3Config
	shift   blas32.General // [taps, H P], the oldest tap first, ShiftSkip added; no rows for none
	conv    *Conv          // of H P^2 channels, or
	modal   *Modal
	kind    kind
	scratch *Scratch
}

// NewH3 returns an operator, or an error that matches ErrConfig. It keeps none of the weights'
// memory.
func NewH3(cfg H3Config, w H3Weights) (*H3, error) {
	if cfg.HeadDim == 0 {
		cfg.HeadDim = 1
	}
	if cfg.Scratch == nil {
		cfg.Scratch = new(Scratch)
	}
	if err := cfg.check(w); err != nil {
		return nil, err
	}
	op := &H3{cfg: cfg, scratch: cfg.Scratch}
	op.setShift(w)
	p := cfg.HeadDim * cfg.HeadDim
	var skip []float32
	for _, v := range w.Skip {
		for range p {
			skip = append(skip, v)
		}
	}
	var err error
	var inner *kind
	if w.Modes != nil {
		m := w.Modes
		var poles, residues []complex128
		for h := range cfg.Heads {
			for range p {
				poles, residues = append(poles, m.poles[h*m.n:(h+1)*m.n]...), append(residues, m.residues[h*m.n:(h+1)*m.n]...)
			}
		}
		if m, err = newModes(cfg.Heads*p, m.n, poles, residues); err != nil {
			return nil, err
		}
		op.modal, err = NewModal(ModalConfig{Modes: m, Skip: skip, SpectraBytes: cfg.SpectraBytes, Cache: cfg.Cache, Workers: cfg.Workers, Scratch: cfg.Scratch})
		if err == nil {
			inner = &op.modal.kind
		}
	} else {
		k := mat.New(w.Kernel.Rows, cfg.Heads*p)
		for t := range k.Rows {
			for c := range k.Cols {
				k.Data[t*k.Stride+c] = mat.Row(w.Kernel, t)[c/p]
			}
		}
		op.conv, err = NewConv(ConvConfig{Kernel: k, Skip: skip, SpectraBytes: cfg.SpectraBytes, Cache: cfg.Cache, Workers: cfg.Workers, Scratch: cfg.Scratch})
		if err == nil {
			inner = &op.conv.kind
		}
	}
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("H3 of %d heads of %d channels with a shift of %d taps", cfg.Heads, cfg.HeadDim, op.shift.Rows)
	f := state.NewFingerprint(name, int64(inner.hash))
	f.Matrices(op.shift)
	op.kind = kind{name: name, size: op.windowSize() + inner.size, hash: uint64(f), most: inner.most, convs: inner.convs}
	return op, nil
}

func (cfg *H3Config) check(w H3Weights) error {
	if err := check.Workers(ErrConfig, pkg, cfg.Workers); err != nil {
		return err
	}
	h, p := cfg.Heads, cfg.HeadDim
	if h <= 0 || p < 0 || check.Product(maxDim, h, p, p) < 0 {
		return check.Errorf(ErrConfig, "hyena: Heads is %d and HeadDim %d, want more than 0, and Heads*HeadDim*HeadDim up to %d", h, p, maxDim)
	}
	if mat.Given(w.Shift) {
		if err := check.Matrix(ErrConfig, pkg, "Shift", w.Shift, -1, h*p, "Heads*HeadDim"); err != nil {
			return err
		}
	}
	for _, v := range []struct {
		name string
		v    []float32
		n    int
		what string
	}{{"ShiftSkip", w.ShiftSkip, h * p, "Heads*HeadDim"}, {"Skip", w.Skip, h, "Heads"}} {
		if v.v == nil {
			continue
		}
		if err := check.Vector(ErrConfig, pkg, v.name, v.v, v.n, v.what); err != nil {
			return err
		}
	}
	if w.Modes != nil {
		switch {
		case mat.Given(w.Kernel):
			return check.Errorf(ErrConfig, "hyena: Kernel and Modes are given, want one of them")
		case w.Modes.Channels() != h:
			return check.Errorf(ErrConfig, "hyena: Modes has %d channels, want Heads = %d", w.Modes.Channels(), h)
		}
		return nil
	}
	if err := check.Matrix(ErrConfig, pkg, "Kernel", w.Kernel, -1, h, "Heads"); err != nil {
		return err
	}
	if check.Product(mostTable, w.Kernel.Rows, h, p, p) <= 0 {
		return check.Errorf(ErrConfig, "hyena: Kernel has %d rows, want 1 or more, and rows*Heads*HeadDim*HeadDim up to %d", w.Kernel.Rows, mostTable)
	}
	return nil
}

// setShift turns the kernel of the shift around.
func (op *H3) setShift(w H3Weights) {
	dim := op.Dim()
	taps := w.Shift.Rows
	if w.ShiftSkip != nil {
		taps = max(taps, 1)
		if w.Shift.Rows == 0 { // k itself, as without either
			w.Shift = mat.New(1, dim)
			for c := range dim {
				w.Shift.Data[c] = 1
			}
		}
	}
	op.shift = mat.New(taps, dim)
	for m := range taps {
		row := mat.Row(op.shift, taps-1-m)
		copy(row, mat.Row(w.Shift, m))
		if m == 0 {
			for c, v := range w.ShiftSkip {
				row[c] += v
			}
		}
	}
}

// windowSize is how many float32 of a state the last k are.
func (op *H3) windowSize() int { return max(0, op.shift.Rows-1) * op.Dim() }

// Dim returns H P, the width of a token.
func (op *H3) Dim() int { return op.cfg.Heads * op.cfg.HeadDim }

// wide returns how many long convolutions there are.
func (op *H3) wide() int { return op.cfg.Heads * op.cfg.HeadDim * op.cfg.HeadDim }

// Bytes returns the memory of the weights, and of what calls and Prepare have kept.
func (op *H3) Bytes() int64 {
	n := floatBytes(op.shift.Rows, op.shift.Cols)
	if op.modal != nil {
		return sumBytes(n, op.modal.Bytes())
	}
	return sumBytes(n, op.conv.Bytes())
}

// ScratchBytes returns the working memory that a call of this many tokens holds, beside
// Bytes, when every worker is busy.
func (op *H3) ScratchBytes(tokens int) int64 {
	tokens = min(max(tokens, 0), mostTokens)
	n := floatBytes(tokens, op.wide())
	workers := min(parallel.Workers(op.cfg.Workers), (tokens+h3Rows-1)/h3Rows)
	n = sumBytes(n, floatBytes(workers, 2*min(tokens, h3Rows)+op.shift.Rows, op.Dim()), floatBytes(op.kind.size))
	if op.modal != nil {
		return sumBytes(n, op.modal.ScratchBytes(tokens))
	}
	return sumBytes(n, op.conv.ScratchBytes(tokens))
}

// Prepare computes and keeps what the first call of this many tokens without a state would:
// spectra, as far as the Cache has room. Errors match ErrCall; once ctx is done it returns
// ctx.Err(), and keeps what is ready.
func (op *H3) Prepare(ctx context.Context, tokens int) error {
	if op.modal != nil {
		return op.modal.Prepare(ctx, tokens)
	}
	return op.conv.Prepare(ctx, tokens)
}

// NewState returns an empty state. With Modes it does not grow. Errors match ErrConfig.
func (op *H3) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this operator, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (op *H3) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }
