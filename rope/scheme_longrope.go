package rope

import (
	"fmt"
	"math"
)

// Llama3 is the scaling of Llama 3.1: with wavelength w = 2 pi / f, frequencies
// with w > Original/LowFreqFactor are divided by Factor, those with
// w < Original/HighFreqFactor are kept, and in between
// f ((1-s)/Factor + s), s = (Original/w - LowFreqFactor) / (HighFreqFactor - LowFreqFactor).
type Llama3 struct {
	Factor                        float64 // 0 is 8
	LowFreqFactor, HighFreqFactor float64 // 0 is 1 and 4
	Original                      int64   // 0 is 8192
	static
}

// String names the scheme and its parameters.
func (s Llama3) String() string {
	return fmt.Sprintf("Llama 3, factor %v, original %d, low and high frequency factors %v and %v",
		or(s.Factor, 8), or(s.Original, 8192), or(s.LowFreqFactor, 1), or(s.HighFreqFactor, 4))
}

func (s Llama3) check(int) error {
	low, high := or(s.LowFreqFactor, 1), or(s.HighFreqFactor, 4)
	if low == high {
		return configErrorf("LowFreqFactor and HighFreqFactor are both %v", low)
	}
	return first(positive("Factor", or(s.Factor, 8)), positive("Original", float64(or(s.Original, 8192))),
		positive("LowFreqFactor", low), positive("HighFreqFactor", high))
}

func (s Llama3) frequencies(r rounding, dim int, base float64, _ int64) ([]float64, float64) {
	factor, original := or(s.Factor, 8), float64(or(s.Original, 8192))
	low, high := or(s.LowFreqFactor, 1), or(s.HighFreqFactor, 4)
	f := plain(r, dim, base)
	for i, v := range f {
		w := r(2 * math.Pi / v)
		switch {
		case w > original/low:
			f[i] = r(v / factor)
		case w < original/high:
		default:
			smooth := r(r(r(original/w)-low) / (high - low))
			f[i] = r(r(r(r(1-smooth)*v)/factor) + r(smooth*v))
		}
	}
	return f, 1
}

// Magnitude says how LongRoPE multiplies cosines and sines, s being the factor by
// which the context is stretched.
type Magnitude uint8

// The policies of the published code.
const (
	MagnitudeSu   Magnitude = iota // sqrt(1 + ln s / ln Original), 1 where s <= 1
	MagnitudeYaRN                  // 0.1 ln s + 1, 1 where s <= 1
)

// LongRoPE (Ding et al. 2024, arXiv 2402.13753) divides each frequency by its own
// factor: those of Short for sequences up to Original tokens and those of Long
// for longer ones. Without Short it is Long for all.
//
// The choice goes by the length of the whole sequence, so that keys rotated
// while it was short must be rotated again when it becomes long: see [Schedule].
// The published code's variant that keeps the first tokens unscaled is two
// Rotations, one for those rows and one for the others.
type LongRoPE struct {
	// Short and Long have half as many factors as the rotary dimension.
	Short, Long []float64
	// Original is the longest sequence of the training.
	Original int64
	// Factor is s, how much longer the stretched context is; it serves the
	// magnitude alone.
	Factor float64
	// Magnitude chooses the factor of cosines and sines, the same for short and
	// long; AttentionFactor, if not 0, is it.
	Magnitude       Magnitude
	AttentionFactor float64
	// Dynamic lets the factors grow with the sequence, from 1 at Original to Long at
	// Factor*Original: 1 + (Long-1) (Length/Original - 1) / (Factor - 1). Short is
	// not used then.
	Dynamic bool
}

// String names the scheme and its parameters.
func (s LongRoPE) String() string {
	kind := "LongRoPE"
	if s.Dynamic {
		kind = "dynamic LongRoPE"
	}
	return fmt.Sprintf("%s, factor %v, original %d", kind, s.Factor, s.Original)
}

func (s LongRoPE) check(dim int) error {
	for _, l := range []struct {
		name string
		list []float64
	}{{"Short", s.Short}, {"Long", s.Long}} {
		if l.name == "Short" && l.list == nil {
			continue
		}
		if len(l.list) != dim/2 {
			return configErrorf("%s has %d factors, want half the rotary dimension = %d", l.name, len(l.list), dim/2)
		}
		for i, v := range l.list {
			if err := positive(fmt.Sprintf("%s[%d]", l.name, i), v); err != nil {
				return err
			}
		}
	}
	if s.Magnitude > MagnitudeYaRN {
		return configErrorf("Magnitude is %d", s.Magnitude)
	}
	if s.Dynamic && s.Factor == 1 {
		return configErrorf("Factor is 1, want more for dynamic LongRoPE")
	}
	return first(positive("Original", float64(s.Original)), positive("Factor", s.Factor), positive("AttentionFactor", or(s.AttentionFactor, 1)))
}

func (s LongRoPE) frequencies(r rounding, dim int, base float64, length int64) ([]float64, float64) {
	factors := s.Long
	if s.Short != nil && length <= s.Original {
		factors = s.Short
	}
	f := make([]float64, dim/2)
	for i := range f {
		v := r(factors[i])
		if s.Dynamic {
			current := float64(s.stage(length)) / float64(s.Original)
			v = 1 + (s.Long[i]-1)*(current-1)/(s.Factor-1)
		}
		f[i] = r(1 / r(v*power(r, base, dim, i)))
	}
	return f, s.attentionFactor()
}

func (s LongRoPE) attentionFactor() float64 {
	switch {
	case s.AttentionFactor != 0:
		return s.AttentionFactor
	case s.Factor <= 1:
		return 1
	case s.Magnitude == MagnitudeYaRN:
		return mscale(s.Factor, 1)
	}
	return math.Sqrt(1 + math.Log(s.Factor)/math.Log(float64(s.Original)))
}

func (s LongRoPE) stage(length int64) int64 {
	switch {
	case s.Dynamic:
		return max(length, s.Original)
	case s.Short != nil && length > s.Original:
		return 1
	}
	return 0
}

func (s LongRoPE) original() int64 {
	if s.Dynamic || s.Short != nil {
		return s.Original
	}
	return math.MaxInt64
}

// Giraffe is the family of Pal et al. 2023 (arXiv 2308.10882). In this order:
// frequencies are divided by Scale; multiplied by (1 - i/(dim/2))^Power, the
// power basis; and truncated to three levels, kept from Keep on, Middle between
// Zero and Keep, 0 up to Zero, the truncated basis.
type Giraffe struct {
	Scale float64 // divides if it is above 1; 0 is 1
	Power float64 // from 0 on; 0 leaves them as they are
	// Truncate is a wavelength T, 0 for none. It sets the levels as the published
	// code does: Keep = 2 pi / T, Zero = Keep / 8, Middle = Keep / 16.
	Truncate float64
	// Keep, Zero and Middle set them one by one (b, a and rho of the paper); they
	// count if Keep is not 0 and Truncate is.
	Keep, Zero, Middle float64
	static
}

// String names the scheme and its parameters.
func (s Giraffe) String() string {
	return fmt.Sprintf("Giraffe, scale %v, power %v, truncated at %v", or(s.Scale, 1), s.Power, s.Truncate)
}

func (s Giraffe) check(int) error {
	return first(notNegative("Power", s.Power), notNegative("Truncate", s.Truncate), notNegative("Keep", s.Keep),
		notNegative("Zero", s.Zero), notNegative("Middle", s.Middle), positive("Scale", or(s.Scale, 1)))
}

func (s Giraffe) frequencies(r rounding, dim int, base float64, _ int64) ([]float64, float64) {
	f := plain(r, dim, base)
	keep, zero, middle := s.Keep, s.Zero, s.Middle
	if s.Truncate != 0 {
		keep = 2 * math.Pi / s.Truncate
		// The code has < where the paper has <=.
		zero, middle = math.Nextafter(keep/8, 0), keep/16
	}
	for i := range f {
		if s.Scale > 1 {
			f[i] = r(f[i] / s.Scale)
		}
		if s.Power != 0 {
			f[i] = r(f[i] * r(math.Pow(r(1-r(float64(i)/float64(dim/2))), s.Power)))
		}
		switch {
		case keep == 0 || f[i] >= keep:
		case f[i] > zero:
			f[i] = r(middle)
		default:
			f[i] = 0
		}
	}
	return f, 1
}
