package transformer

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/rope"
)

// Config is what Open is told besides what a checkpoint says of itself. The zero value is
// what one usually opens with.
type Config struct {
	// Format is how the matrices of weights are stored in memory, whatever their type in
	// the file: Float32 (0), BFloat16, Float16, or Int8 with a scale for each output.
	// Arithmetic is float32, unless Precision says otherwise.
	Format asm.Format
	// Precision is what products with the weights are computed in: Single, the default, which is
	// float32, or asm.BFloat16x3, BFloat16x6 or BFloat16x1, which are faster for a prompt where the
	// processor has a matrix unit and far slower where it has none (asm.Precision.Unit tells).
	// They need Format Float32. It is that of linear layers, of MLPs and experts, the embedding and the
	// head, and of attention to a prompt (attention.Config.Precision: from 16 tokens of a
	// sequence at a time on; of fewer it is in float32); latent attention's and recurrent layers
	// and experts that KeepMXFP4 keeps stay in float32. Weights in a precision take the memory of
	// float32 (BFloat16x3), 1.5 times that (BFloat16x6) or half (BFloat16x1). A token at a time reads
	// as many bytes, so that decoding is as fast as in float32 with BFloat16x3 at best, and
	// faster with BFloat16x1 alone.
	Precision asm.Precision
	// Int8Products lets attention over caches of Int8 (StateConfig.Format) round queries and weights
	// and make its products of integers where that is faster, as attention.Config says.
	Int8Products bool
	// KeepMXFP4 leaves gpt-oss's experts in the 4 bits of the file, a quarter of the memory of
	// BFloat16, and expands them at each use: the bits of Format, and some ten times slower for
	// a token, less for many.
	KeepMXFP4 bool
	// Rope, if given, returns what rotates queries and keys of a layer, instead of what the
	// checkpoint says: another base or another Scheme. HeadDim must stay.
	Rope func(layer int, cfg rope.Config) rope.Config
	// Attention, if given, returns what takes the place of a layer's exact attention, which
	// cfg describes, or nil for that: CCA or an approximation (Replace). Queries and keys come to it
	// rotated, by the frequencies of rope.Config.Length, and it is given states: it must be able
	// to stream. Layers of latent attention are not asked for.
	Attention func(layer int, cfg attention.Config) (*Replacement, error)
	// MaxBytes bounds the memory of the weights (Shape.Bytes); a larger model is an error
	// before memory is taken for it. 0 is no bound.
	MaxBytes int64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// check returns an error where a field is no value that it could have.
func (cfg *Config) check() error {
	if cfg.Format > asm.Float16 {
		return check.Errorf(ErrConfig, "transformer: Format is %d, want Float32, BFloat16, Int8 or Float16", uint8(cfg.Format))
	}
	if cfg.Precision > asm.BFloat16x1 {
		return check.Errorf(ErrConfig, "transformer: Precision is %d, want Single, BFloat16x3, BFloat16x6 or BFloat16x1", uint8(cfg.Precision))
	}
	if cfg.Precision != asm.Single && cfg.Format != asm.Float32 {
		return check.Errorf(ErrConfig, "transformer: Precision is %v and Format %v, want Float32 with it", cfg.Precision, cfg.Format)
	}
	if cfg.MaxBytes < 0 {
		return check.Errorf(ErrConfig, "transformer: MaxBytes is %d, want 0 or more", cfg.MaxBytes)
	}
	return check.Workers(ErrConfig, "transformer", cfg.Workers)
}

// bytes is the memory that weights of a shape take, as Shape.Bytes.
func (cfg *Config) bytes(s *Shape) int64 {
	size := elementBytes[cfg.Format]
	apart := size
	switch cfg.Precision {
	case asm.BFloat16x6:
		size = 6 // three parts of 16 bits
	case asm.BFloat16x1:
		size = 2
	}
	return s.bytesOf(size, apart, cfg.KeepMXFP4)
}

// stored names what weights are stored as.
func (cfg *Config) stored() fmt.Stringer {
	if cfg.Precision != asm.Single {
		return cfg.Precision
	}
	return cfg.Format
}

// layer packs a linear layer.
func (cfg *Config) layer(w blas32.General, bias []float32) *dense.Linear {
	return dense.NewLinearIn(cfg.Format, cfg.Precision, w, bias)
}
