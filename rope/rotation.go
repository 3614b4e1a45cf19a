package rope

import (
	"fmt"
	"math"
	"slices"

	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

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
	pairs  int       // RotaryDim/2; 0 where nothing rotates
	axes   int       // coordinates of a position
	heads  int       // that have frequencies of their own, or 1
	terms  int       // frequencies a pair has: axes if they are learned, or 1
	axis   []int     // of each pair; nil if frequencies are learned
	freq   []float64 // [heads, terms, pairs], radians per position
	turns  []turns   // [heads, terms, pairs]
	plain  []float64 // [pairs]: freq without a scheme, for Pairs
	factor float64   // of cosines and sines
	decay  []float64 // [pairs]: ln zeta / ScaleBase of xPos; nil without

	scratch scratch.List[rotateScratch]
}

// New returns a rotation, or an error that matches ErrConfig. It copies the
// Config, but for the lists within a Scheme, which must not be changed.
func New(cfg Config) (*Rotation, error) {
	cfg.Base = or(cfg.Base, 10000)
	if cfg.Scheme == nil {
		cfg.Scheme = Plain{}
	}
	if err := first(cfg.fillWidths(), cfg.checkFields()); err != nil {
		return nil, err
	}
	r := &Rotation{pairs: cfg.RotaryDim / 2, axes: 1, heads: 1, terms: 1, factor: 1}
	cfg.Axes, cfg.Sections = slices.Clone(cfg.Axes), slices.Clone(cfg.Sections)
	if err := r.makeFrequencies(&cfg); err != nil {
		return nil, err
	}
	if f := float32(r.factor); !(f > 0 && f <= math.MaxFloat32) {
		return nil, configErrorf("the attention factor is %v, want a number above 0 that float32 has", r.factor)
	}
	r.turns = make([]turns, len(r.freq))
	for i, f := range r.freq {
		if !(math.Abs(f) < maxFrequency) {
			return nil, configErrorf("frequency %d is %v radians per position, want a number of magnitude below 2^53", i%r.pairs, f)
		}
		r.turns[i] = turnsOf(f)
	}
	if cfg.XPos != nil {
		var err error
		if r.decay, err = cfg.XPos.decays(cfg.RotaryDim); err != nil {
			return nil, err
		}
	}
	r.cfg = cfg
	return r, nil
}

// makeFrequencies fills in what depends on Scheme, Axes, Sections and Learned, and
// takes Learned out of cfg, which r.freq has then.
func (r *Rotation) makeFrequencies(cfg *Config) (err error) {
	r.axis = make([]int, r.pairs)
	round := rounding(round64)
	if cfg.Accuracy != Exact {
		round = round32
	}
	switch {
	case cfg.None:
	case cfg.Learned != nil:
		err = r.takeLearned(*cfg.Learned)
		cfg.Learned = nil
	case cfg.Axes != nil:
		err = r.makeAxes(*cfg, round)
	default:
		if err = cfg.Scheme.check(cfg.RotaryDim); err == nil {
			r.freq, r.factor = cfg.Scheme.frequencies(round, cfg.RotaryDim, cfg.Base, cfg.Length)
			r.plain = plain(round, cfg.RotaryDim, cfg.Base)
			err = r.dealSections(*cfg)
		}
	}
	if cfg.Reverse {
		for i := range r.freq {
			r.freq[i] = -r.freq[i]
		}
		for i := range r.plain {
			r.plain[i] = -r.plain[i]
		}
	}
	return err
}

// makeAxes makes the frequencies of several axes, one after the other.
func (r *Rotation) makeAxes(cfg Config, round rounding) error {
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

// dealSections gives each pair its axis.
func (r *Rotation) dealSections(cfg Config) error {
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

// takeLearned takes frequencies over, [axes, heads, pairs] to [heads, axes, pairs].
func (r *Rotation) takeLearned(l Learned) error {
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

// Bytes returns how much memory the rotation holds, without the lists of its Scheme.
func (r *Rotation) Bytes() int64 {
	return int64(len(r.freq)+len(r.plain)+len(r.decay)+len(r.axis))*8 + int64(len(r.turns))*16
}

// ScratchBytes returns how much working memory a call holds while it runs, whatever
// the number of tokens: a table of cosines and sines for each of Config.Workers.
// The rotation keeps it for the next call.
func (r *Rotation) ScratchBytes(tokens int) int64 {
	if tokens <= 0 || r.pairs == 0 {
		return 0
	}
	return int64(parallel.Workers(r.cfg.Workers)) * r.tableBytes()
}

// Frequencies returns the radians per position of each pair, those of all heads
// and axes [heads, axes, RotaryDim/2] if they are learned.
func (r *Rotation) Frequencies() []float64 { return slices.Clone(r.freq) }

// String says what the rotation does, for logs and errors.
func (r *Rotation) String() string {
	if r.cfg.None {
		return "rope: none"
	}
	from, reverse := "", ""
	if r.cfg.Offset > 0 {
		from = fmt.Sprintf(" from %d on", r.cfg.Offset)
	}
	if r.cfg.Reverse {
		reverse = ", reversed"
	}
	return fmt.Sprintf("rope: %d of %d features%s, %v%s, base %v, %v, %v", r.cfg.RotaryDim, r.cfg.HeadDim, from, r.cfg.Layout, reverse, r.cfg.Base, r.cfg.Scheme, r.cfg.Accuracy)
}
