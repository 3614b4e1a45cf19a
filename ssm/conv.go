package ssm

import (
	"fmt"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// ConvConfig fixes a Conv.
type ConvConfig struct {
	// SiLU applies x / (1 + exp(-x)) to the result.
	SiLU bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// ConvWeights are the weights of a Conv.
type ConvWeights struct {
	// Weight is [D, K]: a checkpoint's conv1d.weight [D, 1, K].
	Weight blas32.General
	// Bias is [D]; nil is 0.
	Bias []float32
}

// Conv is the short causal convolution in front of a scan, each channel by itself:
//
//	dst[t][c] = bias[c] + sum over j < K of weight[c][j] x[t-K+1+j][c].
//
// What precedes the first token is zero, or what the state has. The state is the
// last K-1 rows of x. It costs 2 K flop for each token and channel. A Conv is immutable
// and safe for concurrent use.
type Conv struct {
	cfg     ConvConfig
	kind    kind
	taps    blas32.General // [K, D]: the weight, turned around
	bias    []float32      // [D], or nil
	scratch scratch.List[convWork]
}

// NewConv returns a convolution, or an error that matches ErrConfig. It keeps none of
// the weights' memory.
func NewConv(cfg ConvConfig, w ConvWeights) (*Conv, error) {
	channels, taps := w.Weight.Rows, w.Weight.Cols
	if err := check.Matrix(ErrConfig, "ssm", "Weight", w.Weight, channels, taps, "K"); err != nil {
		return nil, err
	}
	switch {
	case channels <= 0 || taps <= 0:
		return nil, check.Errorf(ErrConfig, "ssm: Weight is %d x %d, want channels x taps", channels, taps)
	case check.Product(maxFloats, channels, taps) < 0:
		return nil, check.Errorf(ErrConfig, "ssm: Weight is %d x %d, too large", channels, taps)
	case w.Bias != nil && len(w.Bias) != channels:
		return nil, check.Errorf(ErrConfig, "ssm: Bias has %d elements, want the channels = %d", len(w.Bias), channels)
	}
	if err := check.Workers(ErrConfig, "ssm", cfg.Workers); err != nil {
		return nil, err
	}
	op := &Conv{cfg: cfg, taps: mat.New(taps, channels), bias: cloned(w.Bias)}
	for c := range channels {
		for j, v := range mat.Row(w.Weight, c) {
			op.taps.Data[j*channels+c] = v
		}
	}
	name := fmt.Sprintf("convolution of %d channels with %d taps", channels, taps)
	f := state.NewFingerprint(name, state.Bool(cfg.SiLU))
	f.Matrices(op.taps)
	f.Floats(op.bias)
	op.kind = newKind(name, (taps-1)*channels, f, int64(taps)*int64(channels), 0)
	return op, nil
}

// Bytes returns the memory of the weights.
func (op *Conv) Bytes() int64 { return floatBytes(len(op.taps.Data) + len(op.bias)) }

// ScratchBytes returns the working memory that a call of one sequence takes at most,
// besides its arguments, however many tokens it has.
func (op *Conv) ScratchBytes(tokens int) int64 { return scratchBytes(int64(op.kind.Size)) }

// NewState returns an empty state. Errors match ErrConfig.
func (op *Conv) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this convolution, or of one with the
// same fingerprint. Errors match ErrState or are those of r.
func (op *Conv) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// floatBytes is the memory of n float32.
func floatBytes(n int) int64 { return 4 * int64(n) }

// scratchBytes is the memory of n float32 in working memory, and of the lists beside
// them.
func scratchBytes(n int64) int64 {
	const rest = 16 << 10
	return 4*n + rest
}
