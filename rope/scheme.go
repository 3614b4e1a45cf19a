package rope

import (
	"fmt"
	"math"
)

// Scheme makes the frequencies of rotary embeddings from a width and a base: the
// plain ones base^(-2i/dim), or such as stretch a model's context. The schemes
// are the types of this package: [Plain], [Linear], [NTK], [DynamicNTK],
// [DynamicLinear], [NTKByParts], [YaRN], [Giraffe], [LongRoPE], [Llama3],
// [RIFLEx], [Proportional] and [Custom]. An adjusted base frequency (ABF, Xiong
// et al. 2023, arXiv 2309.16039) is Plain with another Base.
//
// Zero fields stand for the defaults they state.
type Scheme interface {
	// String names the scheme and its numbers.
	fmt.Stringer
	// check returns an error about a field, for a rotation of dim features.
	check(dim int) error
	// frequencies returns radians per position, dim/2 of them, and the factor of
	// cosines and sines, for a sequence of length tokens; 0 is the state of a model
	// that has just been loaded. Every operation is rounded by r.
	frequencies(r rounding, dim int, base float64, length int64) (freq []float64, factor float64)
	// stage is the same number for lengths with the same frequencies.
	stage(length int64) int64
	// original is the longest sequence with the frequencies of length 0.
	original() int64
}

// rounding is the precision of an arithmetic: float64's or float32's. The
// operations + - * / of two float32 come out correctly rounded this way.
type rounding func(float64) float64

func round64(v float64) float64 { return v }
func round32(v float64) float64 { return float64(float32(v)) }

// plain returns base^(-2i/dim) as 1/pow(base, 2i/dim), the way of the published codes.
func plain(r rounding, dim int, base float64) []float64 {
	f := make([]float64, dim/2)
	for i := range f {
		f[i] = r(1 / power(r, base, dim, i))
	}
	return f
}

// power is base^(2i/dim).
func power(r rounding, base float64, dim, i int) float64 {
	return r(math.Pow(r(base), r(float64(2*i)/float64(dim))))
}

// static is the part of a scheme that does not depend on the length.
type static struct{}

func (static) stage(int64) int64 { return 0 }
func (static) original() int64   { return math.MaxInt64 }

// Plain is the scheme of the original paper (Su et al. 2021, arXiv 2104.09864):
// base^(-2i/dim).
type Plain struct{ static }

// String names the scheme.
func (Plain) String() string  { return "plain" }
func (Plain) check(int) error { return nil }

func (Plain) frequencies(r rounding, dim int, base float64, _ int64) ([]float64, float64) {
	return plain(r, dim, base), 1
}

// Linear is position interpolation (kaiokendev; Chen et al. 2023, arXiv
// 2306.15595): all frequencies divided by Factor.
type Linear struct {
	// Factor is above 0: how many times as long the sequences are to be.
	Factor float64
	static
}

// String names the scheme and its parameters.
func (s Linear) String() string  { return fmt.Sprintf("linear, factor %v", s.Factor) }
func (s Linear) check(int) error { return positive("Factor", s.Factor) }

func (s Linear) frequencies(r rounding, dim int, base float64, _ int64) ([]float64, float64) {
	f := plain(r, dim, base)
	divide(r, f, s.Factor)
	return f, 1
}

func divide(r rounding, f []float64, by float64) {
	for i := range f {
		f[i] = r(f[i] / by)
	}
}

// NTK is NTK-aware scaling (bloc97 2023): one base for all pairs,
// base Factor^(dim/(dim-2)), at which the longest wavelength grows by Factor and
// the shortest stays.
type NTK struct {
	// Factor is above 0: how many times as long the sequences are to be.
	Factor float64
	static
}

// String names the scheme and its parameters.
func (s NTK) String() string      { return fmt.Sprintf("NTK-aware, factor %v", s.Factor) }
func (s NTK) check(dim int) error { return first(positive("Factor", s.Factor), wide(dim)) }

func (s NTK) frequencies(r rounding, dim int, base float64, _ int64) ([]float64, float64) {
	return plain(r, dim, ntkBase(base, s.Factor, dim)), 1
}

// wide returns an error for a width without the exponent dim/(dim-2).
func wide(dim int) error {
	if dim == 2 {
		return configErrorf("the rotary dimension is 2, want at least 4 for NTK scaling")
	}
	return nil
}

func ntkBase(base, factor float64, dim int) float64 {
	return base * math.Pow(factor, float64(dim)/float64(dim-2))
}

// DynamicNTK is NTK-aware scaling that grows with the sequence (emozilla 2023):
// with L the larger of the sequence's length and MaxPosition, the factor is
// Factor L/MaxPosition - (Factor - 1), which is 1 up to MaxPosition.
type DynamicNTK struct {
	// Factor is above 0: how many times as much the factor grows as the sequence.
	Factor float64
	// MaxPosition is the longest sequence of the training.
	MaxPosition int64
}

// String names the scheme and its parameters.
func (s DynamicNTK) String() string {
	return fmt.Sprintf("dynamic NTK, factor %v beyond %d", s.Factor, s.MaxPosition)
}

func (s DynamicNTK) check(dim int) error {
	return first(positive("Factor", s.Factor), positive("MaxPosition", float64(s.MaxPosition)), wide(dim))
}

func (s DynamicNTK) frequencies(r rounding, dim int, base float64, length int64) ([]float64, float64) {
	grown := s.Factor*float64(s.stage(length))/float64(s.MaxPosition) - (s.Factor - 1)
	return plain(r, dim, ntkBase(base, grown, dim)), 1
}

func (s DynamicNTK) stage(length int64) int64 { return max(length, s.MaxPosition) }
func (s DynamicNTK) original() int64          { return s.MaxPosition }

// DynamicLinear divides positions by how much longer the sequence is than
// MaxPosition, the longest sequence of the training, as the dynamic scaling of jquesnelle's code does without NTK.
type DynamicLinear struct{ MaxPosition int64 }

// String names the scheme and its parameters.
func (s DynamicLinear) String() string { return fmt.Sprintf("dynamic linear beyond %d", s.MaxPosition) }
func (s DynamicLinear) check(int) error {
	return positive("MaxPosition", float64(s.MaxPosition))
}

func (s DynamicLinear) frequencies(r rounding, dim int, base float64, length int64) ([]float64, float64) {
	f := plain(r, dim, base)
	divide(r, f, float64(s.stage(length))/float64(s.MaxPosition))
	return f, 1
}

func (s DynamicLinear) stage(length int64) int64 { return max(length, s.MaxPosition) }
func (s DynamicLinear) original() int64          { return s.MaxPosition }

// RIFLEx slows one component down (Zhao et al. 2025, arXiv 2502.15894), the one
// by which a video model repeats itself: with K counted from 1, frequency K-1
// becomes 0.9 * 2 pi / Length, so that Length frames stay within one period.
// It is meant for the time axis of a video model.
type RIFLEx struct {
	// K is 1 to half of the rotary dimension.
	K int
	// Length is the number of frames to be generated.
	Length int64
	static
}

// String names the scheme and its parameters.
func (s RIFLEx) String() string { return fmt.Sprintf("RIFLEx, component %d for %d", s.K, s.Length) }

func (s RIFLEx) check(dim int) error {
	if s.K < 1 || s.K > dim/2 {
		return configErrorf("K is %d, want a component from 1 to %d", s.K, dim/2)
	}
	return positive("Length", float64(s.Length))
}

func (s RIFLEx) frequencies(r rounding, dim int, base float64, _ int64) ([]float64, float64) {
	f := plain(r, dim, base)
	f[s.K-1] = r(0.9 * 2 * math.Pi / float64(s.Length))
	return f, 1
}

// Proportional rotates the first Fraction of the pairs, with the exponents of the
// whole width, and leaves the others as they are ("proportional" of transformers
// v5): base^(-2i/dim) / Factor for i < int(Fraction*dim/2), then zeros.
type Proportional struct {
	// Fraction is above 0, at most 1.
	Fraction float64
	// Factor divides the frequencies; 0 is 1.
	Factor float64
	static
}

// String names the scheme and its parameters.
func (s Proportional) String() string {
	return fmt.Sprintf("proportional, fraction %v, factor %v", s.Fraction, or(s.Factor, 1))
}

func (s Proportional) check(int) error {
	if !(s.Fraction > 0 && s.Fraction <= 1) {
		return configErrorf("Fraction is %v, want a number above 0, at most 1", s.Fraction)
	}
	return positive("Factor", or(s.Factor, 1))
}

func (s Proportional) frequencies(r rounding, dim int, base float64, _ int64) ([]float64, float64) {
	f := plain(r, dim, base)
	divide(r, f, or(s.Factor, 1))
	clear(f[int(math.Floor(s.Fraction*float64(dim)/2)):])
	return f, 1
}

// Custom is a list of frequencies, in radians per position, one for each pair.
// They may have any sign and be zero.
type Custom struct {
	// Frequencies has half as many as the rotary dimension.
	Frequencies []float64
	// Factor multiplies cosines and sines; 0 is 1.
	Factor float64
	static
}

// String names the scheme and its parameters.
func (s Custom) String() string {
	return fmt.Sprintf("%d given frequencies, attention factor %v", len(s.Frequencies), or(s.Factor, 1))
}

func (s Custom) check(dim int) error {
	if len(s.Frequencies) != dim/2 {
		return configErrorf("Frequencies has %d elements, want half the rotary dimension = %d", len(s.Frequencies), dim/2)
	}
	return positive("Factor", or(s.Factor, 1))
}

func (s Custom) frequencies(r rounding, _ int, _ float64, _ int64) ([]float64, float64) {
	f := make([]float64, len(s.Frequencies))
	for i, v := range s.Frequencies {
		f[i] = r(v)
	}
	return f, or(s.Factor, 1)
}

// PixelFrequencies returns the frequencies of images' axes in lucidrains'
// rotary-embedding-torch, n numbers evenly from pi to pi maxFreq/2, for positions
// from -1 to 1. n is 1 to 32,768, maxFreq a number above 0; other values are an error
// that matches ErrConfig.
func PixelFrequencies(n int, maxFreq float64) ([]float64, error) {
	if n < 1 || n > maxWidth/2 {
		return nil, configErrorf("n is %d, want 1 to %d", n, maxWidth/2)
	}
	if err := positive("maxFreq", maxFreq); err != nil {
		return nil, err
	}
	f := make([]float64, n)
	for i := range f {
		f[i] = math.Pi
		if n > 1 {
			f[i] = math.Pi * (1 + (maxFreq/2-1)*float64(i)/float64(n-1))
		}
	}
	return f, nil
}
