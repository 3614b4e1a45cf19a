package hyena

import (
	"fmt"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/state"
)

// GatedConfig fixes a Gated operator.
type GatedConfig struct {
	// Dim is D, the width of a token.
	Dim int
	// Heads, where it is not 0, says that the projections stand head by head, x2, x1 and v
	// of D/Heads columns each ("column_split_hyena" of StripedHyena). 0 is for x2, x1 and v
	// of D columns each.
	Heads int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
	// Scratch is the working memory to use; nil is the operator's own.
	Scratch *Scratch
}

// GatedWeights are the weights of a Gated operator.
type GatedWeights struct {
	Short     blas32.General // the short convolution, [3 Dim, taps], the oldest tap first
	ShortBias []float32      // [3 Dim], or nil
	Modes     *Modes         // of Dim channels
	Skip      []float32      // D of the long convolution, [Dim], or nil
}

// Gated is the Hyena operator of StripedHyena (Poli et al. 2023, "StripedHyena: Moving Beyond
// Transformers with Hybrid Signal Processing Models"), between its projections: of order 2,
// with a modal filter. With rows of projections x [3 D],
//
//	x2, x1, v = short convolution of x + bias,
//	y = (k * (x1 v) + D x1 v) x2,
//
// k being the filter. It runs as a recurrence, in chunks of 32 tokens (see [Modal]): a State
// does not grow, and any split of a sequence gives the same bits.
//
// The recurrence of the official code's prefill mode of that name is another: it brings the
// real part of a state up to date before it uses it for the imaginary one. This is the
// convolution.
//
// A Gated is immutable and safe for concurrent use.
type Gated struct {
	cfg     GatedConfig
	modes   *Modes
	tables  *modalTables
	taps    int
	short   blas32.General // [taps, 3 Dim], the oldest tap first, columns as those of z
	bias    []float32      // [3 Dim], likewise, or nil
	skip    []float32
	blocks  []gatedBlock
	kind    kind
	scratch *Scratch
}

// gatedBlock is a block of channels, and where their projections stand.
type gatedBlock struct {
	from, n int
	at      [3]int // columns of x2, x1 and v
}

// NewGated returns an operator, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewGated(cfg GatedConfig, w GatedWeights) (*Gated, error) {
	if err := cfg.check(w); err != nil {
		return nil, err
	}
	if cfg.Scratch == nil {
		cfg.Scratch = new(Scratch)
	}
	wide := 3 * cfg.Dim
	g := &Gated{
		cfg: cfg, modes: w.Modes, tables: newModalTables(w.Modes, w.Skip), taps: w.Short.Cols, short: mat.New(w.Short.Cols, wide),
		bias: append([]float32(nil), w.ShortBias...), skip: append([]float32(nil), w.Skip...), scratch: cfg.Scratch,
	}
	for c := range wide {
		for j, v := range mat.Row(w.Short, c) {
			g.short.Data[j*wide+c] = v
		}
	}
	heads := max(cfg.Heads, 1)
	each := cfg.Dim / heads
	for h := range heads {
		for from := 0; from < each; from += blockChannels {
			b := gatedBlock{from: h*each + from, n: min(blockChannels, each-from)}
			for i := range b.at {
				b.at[i] = (3*h+i)*each + from
			}
			g.blocks = append(g.blocks, b)
		}
	}
	name := fmt.Sprintf("Gated of %d channels in %d heads with %d modes and %d taps", cfg.Dim, cfg.Heads, w.Modes.Modes(), g.taps)
	f := state.NewFingerprint(name)
	f.Matrices(g.short)
	f.Floats(g.bias, g.skip)
	w.Modes.sum(&f)
	g.kind = kind{name: name, size: (g.taps-1)*wide + g.tables.size(), hash: uint64(f), most: mostTokens}
	return g, nil
}

// maxDim bounds the width of a token.
const maxDim = 1 << 24

func (cfg *GatedConfig) check(w GatedWeights) error {
	if err := check.Workers(ErrConfig, pkg, cfg.Workers); err != nil {
		return err
	}
	switch {
	case cfg.Dim <= 0 || cfg.Dim > maxDim:
		return check.Errorf(ErrConfig, "hyena: Dim is %d, want 1 to %d", cfg.Dim, maxDim)
	case cfg.Heads < 0 || cfg.Heads > cfg.Dim || cfg.Heads > 0 && cfg.Dim%cfg.Heads != 0:
		return check.Errorf(ErrConfig, "hyena: Heads is %d, want 0 or a divisor of Dim = %d", cfg.Heads, cfg.Dim)
	case w.Modes == nil:
		return check.Errorf(ErrConfig, "hyena: Modes is nil")
	case w.Modes.Channels() != cfg.Dim:
		return check.Errorf(ErrConfig, "hyena: Modes has %d channels, want Dim = %d", w.Modes.Channels(), cfg.Dim)
	case w.Short.Cols <= 0:
		return check.Errorf(ErrConfig, "hyena: Short has %d columns, want a tap or more", w.Short.Cols)
	}
	if err := check.Matrix(ErrConfig, pkg, "Short", w.Short, 3*cfg.Dim, w.Short.Cols, "taps"); err != nil {
		return err
	}
	if w.ShortBias != nil {
		if err := check.Vector(ErrConfig, pkg, "ShortBias", w.ShortBias, 3*cfg.Dim, "3*Dim"); err != nil {
			return err
		}
	}
	if w.Skip != nil {
		return check.Vector(ErrConfig, pkg, "Skip", w.Skip, cfg.Dim, "Dim")
	}
	return nil
}

// Dim returns the width of a token.
func (g *Gated) Dim() int { return g.cfg.Dim }

// Fingerprint tells operators with other weights apart: a state belongs to all of one.
func (g *Gated) Fingerprint() uint64 { return g.kind.hash }

// Bytes returns the memory of the weights, and of what is computed of them.
func (g *Gated) Bytes() int64 {
	return sumBytes(g.modes.Bytes(), g.tables.bytes(), floatBytes(g.short.Rows, g.short.Cols), floatBytes(len(g.bias)+len(g.skip)))
}

// StateBytes returns the memory of a state, without snapshots; it does not grow.
func (g *Gated) StateBytes(int) int64 { return floatBytes(g.kind.size) }

// ScratchBytes returns the working memory that a call of one sequence holds, beside Bytes,
// when every worker is busy, however many tokens it has.
func (g *Gated) ScratchBytes(int) int64 {
	workers := min(parallel.Workers(g.cfg.Workers), len(g.blocks))
	return sumBytes(floatBytes(workers, blockChannels, 3*(g.taps+modalChunk)+6*modalChunk+2*g.modes.n), floatBytes(g.kind.size), 1<<10)
}

// NewState returns an empty state. Errors match ErrConfig.
func (g *Gated) NewState(cfg StateConfig) (*State, error) { return g.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this operator, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (g *Gated) ReadState(r io.Reader) (*State, error) { return g.kind.readState(r) }

// Read sets dst [Dim, 2 N] to the state of each mode after the tokens that st has seen, the
// real and the imaginary part of each. Errors match ErrShape or ErrState.
func (g *Gated) Read(dst blas32.General, st *State) error {
	if err := g.kind.accept("State", st); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "dst", dst, g.cfg.Dim, 2*g.modes.n, "2*modes"); err != nil {
		return err
	}
	readModes(dst, g.tables.modeStates(g.modes, g.past(st.values), st.n))
	return nil
}

// past is the part of a state's values that the modes have; window the last inputs of the
// short convolution, [taps-1, 3 Dim].
func (g *Gated) past(values []float32) []float32 { return values[(g.taps-1)*3*g.cfg.Dim:] }

func (g *Gated) window(values []float32) blas32.General {
	return mat.Of(values, g.taps-1, 3*g.cfg.Dim)
}
