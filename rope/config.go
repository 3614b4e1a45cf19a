package rope

import (
	"fmt"
	"math"
	"slices"

	"github.com/subquad/subquad/internal/scratch"
)

// Layout says which features of a head make a pair.
type Layout uint8

const (
	// Half pairs feature i with i + RotaryDim/2 (GPT-NeoX, rotate_half of transformers).
	Half Layout = iota
	// Interleaved pairs feature 2i with 2i+1 (GPT-J, Meta's Llama, Flux).
	Interleaved
)

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

func (a Accuracy) String() string {
	return nameOf(int(a), "exact", "float32 frequencies", "float32")
}

func nameOf(i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprint(i)
}

// Config fixes a rotation.
type Config struct {
	// HeadDim is the number of features of a head.
	HeadDim int
	// RotaryDim is how many of them rotate, the first ones; an even number, 0 for HeadDim.
	RotaryDim int
	Layout    Layout
	// Base is theta, 0 for 10000.
	Base float64
	// Scheme makes the frequencies; nil is Plain.
	Scheme Scheme
	// Length is the length of the whole sequence, for schemes that depend on it; 0 is
	// the state of a model that has just been loaded. It does not change later: see
	// Schedule for sequences that grow.
	Length   int64
	Accuracy Accuracy
	// SeparateFactor leaves the scheme's attention factor out of cosines and sines.
	// The logits are then to be multiplied by the square of AttentionFactor.
	SeparateFactor bool
	// Axes makes positions of several coordinates: each axis has its own features of
	// a head, one axis after the other, and its own frequencies. Base and Scheme are
	// the defaults of an axis.
	Axes []Axis
	// Sections deals the pairs of one set of frequencies out to several axes (M-RoPE,
	// Wang et al. 2024, arXiv 2409.12191): so many pairs of the first axis, then of
	// the second, and so on. With SectionsInterleaved pair i goes to axis i mod n as
	// long as that has pairs left to get and to the first axis otherwise (Qwen3-VL).
	Sections            []int
	SectionsInterleaved bool
	// Learned has the frequencies of every head and axis; Base and Scheme are not
	// used then.
	Learned *Learned
	// XPos adds the decay of xPos; nil for none.
	XPos *XPos
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
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
	Axes, Heads int
	// Frequencies is [Axes, Heads, RotaryDim/2], radians per unit.
	Frequencies []float32
}

// Rotation rotates queries and keys by their positions (rotary position
// embedding, Su et al. 2021, arXiv 2104.09864): the pair (a, b) number i of each
// head of the token at position p becomes
//
//	(a cos(p f_i) - b sin(p f_i), b cos(p f_i) + a sin(p f_i)) * factor,
//
// so that the product of a query and a key depends on the difference of their
// positions. It is immutable and safe for concurrent use.
type Rotation struct {
	cfg    Config
	pairs  int
	axes   int
	heads  int       // that have frequencies of their own, or 1
	terms  int       // frequencies a pair has: axes if they are learned, or 1
	axis   []int     // of each pair; nil if frequencies are learned
	freq   []float64 // [heads, terms, pairs]
	turns  []turns   // [heads, terms, pairs]
	plain  []float64 // what freq would be without a scheme, for Pairs
	factor float64
	decay  []float64 // xPos: ln zeta / ScaleBase of each pair

	scratch scratch.List[rotateScratch]
}

// New returns a rotation, or an error that matches ErrConfig. It copies the
// Config, but for the lists within a Scheme, which must not be changed.
func New(cfg Config) (*Rotation, error) {
	cfg.Base = or(cfg.Base, 10000)
	if cfg.Scheme == nil {
		cfg.Scheme = Plain{}
	}
	r := &Rotation{axes: 1, heads: 1, terms: 1, factor: 1}
	if err := first(r.width(&cfg), cfg.check()); err != nil {
		return nil, err
	}
	r.pairs = cfg.RotaryDim / 2
	cfg.Axes, cfg.Sections = slices.Clone(cfg.Axes), slices.Clone(cfg.Sections)
	r.axis = make([]int, r.pairs)
	round := rounding(round64)
	if cfg.Accuracy != Exact {
		round = round32
	}
	var err error
	switch {
	case cfg.Learned != nil:
		err = r.learned(*cfg.Learned)
		cfg.Learned = nil // r.freq has it
	case cfg.Axes != nil:
		err = r.axial(cfg, round)
	default:
		if err = cfg.Scheme.check(cfg.RotaryDim); err == nil {
			r.freq, r.factor = cfg.Scheme.frequencies(round, cfg.RotaryDim, cfg.Base, cfg.Length)
			r.plain = plain(round, cfg.RotaryDim, cfg.Base)
			err = r.sections(cfg)
		}
	}
	if err != nil {
		return nil, err
	}
	r.turns = make([]turns, len(r.freq))
	for i, f := range r.freq {
		if !(math.Abs(f) < maxFrequency) {
			return nil, configErrorf("frequency %d is %v radians per position", i%r.pairs, f)
		}
		r.turns[i] = turnsOf(f)
	}
	if cfg.XPos != nil {
		if r.decay, err = cfg.XPos.decay(cfg.RotaryDim); err != nil {
			return nil, err
		}
	}
	r.cfg = cfg
	return r, nil
}

// width fills RotaryDim in.
func (r *Rotation) width(cfg *Config) error {
	if cfg.HeadDim <= 0 {
		return configErrorf("HeadDim is %d, want more than 0", cfg.HeadDim)
	}
	sum := 0
	for i, a := range cfg.Axes {
		if a.Dim <= 0 || a.Dim%2 != 0 || a.Dim > cfg.HeadDim {
			return configErrorf("Axes[%d].Dim is %d, want an even number from 2 to HeadDim = %d", i, a.Dim, cfg.HeadDim)
		}
		sum += a.Dim
	}
	if sum > 0 && cfg.RotaryDim == 0 {
		cfg.RotaryDim = sum
	}
	if sum > 0 && cfg.RotaryDim != sum {
		return configErrorf("RotaryDim is %d, want the sum of the axes = %d", cfg.RotaryDim, sum)
	}
	cfg.RotaryDim = or(cfg.RotaryDim, cfg.HeadDim)
	if cfg.RotaryDim%2 != 0 || cfg.RotaryDim < 0 || cfg.RotaryDim > cfg.HeadDim {
		return configErrorf("the rotary dimension is %d, want an even number from 2 to HeadDim = %d", cfg.RotaryDim, cfg.HeadDim)
	}
	return nil
}

// check looks at the plain fields; HeadDim and RotaryDim are known to be right.
func (cfg *Config) check() error {
	several := 0
	for _, given := range []bool{cfg.Axes != nil, cfg.Sections != nil, cfg.Learned != nil} {
		if given {
			several++
		}
	}
	switch {
	case several > 1:
		return configErrorf("more than one of Axes, Sections and Learned is given")
	case cfg.Axes != nil && len(cfg.Axes) == 0:
		return configErrorf("Axes is empty")
	case cfg.Layout > Interleaved:
		return configErrorf("Layout is %d", cfg.Layout)
	case cfg.Accuracy > Float32:
		return configErrorf("Accuracy is %d", cfg.Accuracy)
	case !(cfg.Base > 1) || math.IsInf(cfg.Base, 0):
		return configErrorf("Base is %v, want a number above 1", cfg.Base)
	case cfg.Length < 0:
		return configErrorf("Length is %d, want 0 or more", cfg.Length)
	case cfg.Workers < 0:
		return configErrorf("Workers is %d, want 0 or more", cfg.Workers)
	}
	return nil
}

// axial makes the frequencies of several axes, one after the other.
func (r *Rotation) axial(cfg Config, round rounding) error {
	r.axes, r.axis = len(cfg.Axes), r.axis[:0]
	for n, a := range cfg.Axes {
		base, scheme := or(a.Base, cfg.Base), a.Scheme
		if scheme == nil {
			scheme = cfg.Scheme
		}
		if !(base > 1) || math.IsInf(base, 0) {
			return configErrorf("Axes[%d].Base is %v, want a number above 1", n, base)
		}
		if err := scheme.check(a.Dim); err != nil {
			return configErrorf("Axes[%d]: %s", n, err.Error()[len("rope: "):])
		}
		f, factor := scheme.frequencies(round, a.Dim, base, cfg.Length)
		if n > 0 && factor != r.factor {
			return configErrorf("Axes[%d] has an attention factor of %v, the ones before of %v", n, factor, r.factor)
		}
		r.factor = factor
		r.freq = append(r.freq, f...)
		r.plain = append(r.plain, plain(round, a.Dim, base)...)
		for range f {
			r.axis = append(r.axis, n)
		}
	}
	return nil
}

// sections deals pairs out to axes.
func (r *Rotation) sections(cfg Config) error {
	if cfg.Sections == nil {
		return nil
	}
	n, sum := len(cfg.Sections), 0
	for i, s := range cfg.Sections {
		if s < 0 || s > r.pairs {
			return configErrorf("Sections[%d] is %d, want 0 to %d", i, s, r.pairs)
		}
		sum += s
	}
	if sum != r.pairs {
		return configErrorf("Sections sum to %d, want half the rotary dimension = %d", sum, r.pairs)
	}
	r.axes = n
	i := 0
	for axis, s := range cfg.Sections {
		for range s {
			r.axis[i] = axis
			i++
		}
	}
	if cfg.SectionsInterleaved {
		for i := range r.axis {
			r.axis[i] = 0
			if a := i % n; i < n*cfg.Sections[a] {
				r.axis[i] = a
			}
		}
	}
	return nil
}

// learned takes frequencies over, [axes, heads, pairs] to [heads, axes, pairs].
func (r *Rotation) learned(l Learned) error {
	if l.Axes <= 0 || l.Heads <= 0 {
		return configErrorf("Learned has %d axes and %d heads, want more than 0", l.Axes, l.Heads)
	}
	rows := l.Axes * l.Heads
	if rows/l.Axes != l.Heads || len(l.Frequencies)%r.pairs != 0 || len(l.Frequencies)/r.pairs != rows {
		return configErrorf("Learned.Frequencies has %d elements, want %d axes * %d heads * %d pairs", len(l.Frequencies), l.Axes, l.Heads, r.pairs)
	}
	r.axes, r.heads, r.terms, r.axis = l.Axes, l.Heads, l.Axes, nil
	r.freq = make([]float64, len(l.Frequencies))
	for a := range l.Axes {
		for h := range l.Heads {
			for i, f := range l.Frequencies[(a*l.Heads+h)*r.pairs:][:r.pairs] {
				r.freq[(h*l.Axes+a)*r.pairs+i] = float64(f)
			}
		}
	}
	return nil
}

// Config returns the configuration with RotaryDim, Base and Scheme filled in,
// but for Learned.
func (r *Rotation) Config() Config { return r.cfg }

// Axes returns how many coordinates a position has.
func (r *Rotation) Axes() int { return r.axes }

// AttentionFactor returns what the scheme multiplies cosines and sines by.
func (r *Rotation) AttentionFactor() float64 { return r.factor }

// Frequencies returns the radians per position of each pair, those of all heads
// and axes [heads, axes, RotaryDim/2] if they are learned.
func (r *Rotation) Frequencies() []float64 { return slices.Clone(r.freq) }

func (r *Rotation) String() string {
	return fmt.Sprintf("rope: %d of %d features, %v, base %v, %v, %v", r.cfg.RotaryDim, r.cfg.HeadDim, r.cfg.Layout, r.cfg.Base, r.cfg.Scheme, r.cfg.Accuracy)
}
