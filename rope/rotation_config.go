package rope

import (
	"fmt"
	"math"

	"github.com/subquad/subquad/internal/check"
)

// Layout says which features of a head make a pair.
type Layout uint8

const (
	// Half pairs feature i with i + RotaryDim/2 (GPT-NeoX, rotate_half of transformers).
	Half Layout = iota
	// Interleaved pairs feature 2i with 2i+1 (GPT-J, Meta's Llama, Flux).
	Interleaved
)

// String returns half or interleaved.
func (l Layout) String() string { return nameOf(int(l), "half", "interleaved") }

// Accuracy says which frequencies and angles a rotation uses.
type Accuracy uint8

const (
	// Exact uses frequencies computed in float64 and fixed-point phases: the cosine
	// and sine are those of position times frequency to 1.2e-7 at any position up to
	// 10^8 and beyond, and logits depend on the distance alone.
	Exact Accuracy = iota
	// Float32Frequencies uses the frequencies as float32 code computes and stores
	// them (transformers' inv_freq: the exponent, the power and its inverse each
	// rounded), with exact angles. A model trained with those saw them; at position
	// 10^6 they move a cosine by up to 1e-2.
	Float32Frequencies
	// Float32 is what the common code does: those frequencies, and the product with
	// the position rounded to float32. It is off by 6e-2 at position 10^6.
	Float32
)

// String returns exact, float32 frequencies or float32.
func (a Accuracy) String() string {
	return nameOf(int(a), "exact", "float32 frequencies", "float32")
}

func nameOf(i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprint(i)
}

// Config fixes a rotation. Numbers of features are at most 65,536.
type Config struct {
	// HeadDim is the number of features of a head.
	HeadDim int
	// RotaryDim is how many of them rotate; an even number, 0 for all that follow
	// Offset.
	RotaryDim int
	// Offset is the first feature that rotates: 0, but for models that rotate the end
	// of a head (DeepSeek-V4). The features before it, and those after the rotated
	// ones, stay as they are.
	Offset int
	// None says that nothing rotates (NoPE): a rotation that leaves queries and keys as
	// they are. RotaryDim is then 0, HeadDim may be, and nothing but Workers is used.
	None bool
	// Layout says which two features make a pair; 0 is Half.
	Layout Layout
	// Reverse turns by the negative angle (nanochat). Products of queries and keys that
	// are both rotated so depend on the distance just the same.
	Reverse bool
	// Base is theta, 0 for 10000.
	Base float64
	// Scheme makes the frequencies; nil is Plain.
	Scheme Scheme
	// Length is the length of the whole sequence in tokens, for schemes that depend on
	// it; 0 is the state of a model that has just been loaded. It does not change
	// later: see Schedule for sequences that grow.
	Length int64
	// Accuracy says how frequencies and angles are rounded; 0 is Exact.
	Accuracy Accuracy
	// SeparateFactor leaves the scheme's attention factor out of cosines and sines.
	// The logits are then to be multiplied by the square of AttentionFactor.
	SeparateFactor bool
	// Axes makes positions of several coordinates: each axis has its own features of
	// a head, one axis after the other, and its own frequencies. Base and Scheme are
	// the defaults of an axis.
	Axes []Axis
	// Sections deals the pairs of one set of frequencies out to several axes (M-RoPE,
	// Wang et al. 2024, arXiv 2409.12191): the first Sections[0] pairs belong to the
	// first axis, the next Sections[1] to the second, and so on. With
	// SectionsInterleaved pair i belongs to axis i mod n as long as i is below n times
	// that axis' section, and to the first axis otherwise (Qwen3-VL).
	Sections            []int
	SectionsInterleaved bool
	// Learned has the frequencies of every head and axis; Base and Scheme are not
	// used then.
	Learned *Learned
	// XPos adds the decay of xPos; nil for none.
	XPos *XPos
	// Workers is how many goroutines a call may use: 0 for GOMAXPROCS, 1 for the
	// caller's own. Results never depend on it.
	Workers int
}

// Axis is one coordinate of positions and the features it rotates.
type Axis struct {
	Dim    int     // an even number of features
	Base   float64 // 0 is the Config's
	Scheme Scheme  // nil is the Config's
}

// Learned are frequencies of RoPE-Mixed (Heo et al. 2024, arXiv 2403.13298): the
// angle of a pair is the sum over axes of the coordinate times the frequency.
type Learned struct {
	// Axes is how many coordinates a position has, Heads how many heads have frequencies.
	Axes, Heads int
	// Frequencies is [Axes, Heads, RotaryDim/2], radians per unit.
	Frequencies []float32
}

// fillWidths fills HeadDim and RotaryDim in and checks them.
func (cfg *Config) fillWidths() error {
	if cfg.None {
		cfg.HeadDim = or(cfg.HeadDim, 1)
	}
	switch {
	case cfg.HeadDim <= 0 || cfg.HeadDim > maxWidth:
		return configErrorf("HeadDim is %d, want 1 to %d", cfg.HeadDim, maxWidth)
	case cfg.Offset < 0 || cfg.Offset >= cfg.HeadDim:
		return configErrorf("Offset is %d, want 0 to HeadDim-1 = %d", cfg.Offset, cfg.HeadDim-1)
	case cfg.None && cfg.RotaryDim != 0:
		return configErrorf("RotaryDim is %d together with None, want 0", cfg.RotaryDim)
	case cfg.None:
		return nil
	}
	room := cfg.HeadDim - cfg.Offset
	sum := 0
	for i, a := range cfg.Axes {
		if a.Dim <= 0 || a.Dim%2 != 0 || a.Dim > room {
			return configErrorf("Axes[%d].Dim is %d, want an even number from 2 to HeadDim = %d", i, a.Dim, room)
		}
		if sum += a.Dim; sum > maxWidth {
			break
		}
	}
	if sum > 0 && cfg.RotaryDim == 0 {
		cfg.RotaryDim = sum
	}
	if sum > 0 && cfg.RotaryDim != sum {
		return configErrorf("RotaryDim is %d, want the sum of the axes = %d", cfg.RotaryDim, sum)
	}
	cfg.RotaryDim = or(cfg.RotaryDim, room)
	if cfg.RotaryDim%2 != 0 || cfg.RotaryDim < 0 || cfg.RotaryDim > room {
		return configErrorf("the rotary dimension is %d, want an even number from 2 to HeadDim-Offset = %d", cfg.RotaryDim, room)
	}
	return nil
}

// checkFields looks at everything but the widths.
func (cfg *Config) checkFields() error {
	several := 0
	for _, given := range []bool{cfg.Axes != nil, cfg.Sections != nil, cfg.Learned != nil} {
		if given {
			several++
		}
	}
	switch {
	case several > 1:
		return configErrorf("more than one of Axes, Sections and Learned is given")
	case cfg.None && (several > 0 || cfg.XPos != nil):
		return configErrorf("Axes, Sections, Learned or XPos is given together with None")
	case cfg.Axes != nil && len(cfg.Axes) == 0:
		return configErrorf("Axes is empty")
	case cfg.Layout > Interleaved:
		return configErrorf("Layout is %d, want Half or Interleaved", cfg.Layout)
	case cfg.Accuracy > Float32:
		return configErrorf("Accuracy is %d, want Exact, Float32Frequencies or Float32", cfg.Accuracy)
	case !(cfg.Base > 1) || math.IsInf(cfg.Base, 0):
		return configErrorf("Base is %v, want a number above 1", cfg.Base)
	case cfg.Length < 0:
		return configErrorf("Length is %d, want 0 or more", cfg.Length)
	}
	return check.Workers(ErrConfig, "rope", cfg.Workers)
}
