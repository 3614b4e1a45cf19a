package rope

import (
	"fmt"
	"math"
)

// correction returns the range of pairs over which NTK-by-parts and YaRN go from
// the frequencies that are kept, below low, to those that are interpolated, from
// high on: those that turn fast and slow times in original positions. The upper
// clamp is dim-1 although there are only dim/2 pairs, as in the published code.
func correction(fast, slow float64, dim int, base float64, original int64, truncate bool) (low, high float64) {
	at := func(rotations float64) float64 {
		return float64(dim) * math.Log(float64(original)/(rotations*2*math.Pi)) / (2 * math.Log(base))
	}
	low, high = at(fast), at(slow)
	if truncate {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, float64(dim-1))
	if low == high {
		high += 0.001
	}
	return low, high
}

// ramp is 0 for pairs up to low and 1 from high on.
func ramp(r rounding, i int, low, high float64) float64 {
	return min(max(r(r(float64(i)-low)/(high-low)), 0), 1)
}

// blend is a (1-weight) + b weight.
func blend(r rounding, a, b, weight float64) float64 {
	return r(r(a*r(1-weight)) + r(b*weight))
}

// NTKByParts keeps the frequencies of short wavelengths, interpolates the long
// ones and takes the NTK-aware ones in between (bloc97 2023, jquesnelle's
// LlamaPartNTK).
type NTKByParts struct {
	// Factor is above 0: how many times as long the sequences are to be.
	Factor float64
	// Original is the longest sequence of the training.
	Original int64
	// NTKFactor and ExtrapolationFactor say how much the NTK-aware frequencies and the
	// ones that are kept count, from 0 on; nil is 1.
	NTKFactor, ExtrapolationFactor *float64
	static
}

// String names the scheme and its parameters.
func (s NTKByParts) String() string {
	return fmt.Sprintf("NTK by parts, factor %v, original %d", s.Factor, s.Original)
}

func (s NTKByParts) check(dim int) error {
	return first(positive("Factor", s.Factor), positive("Original", float64(s.Original)),
		notNegative("NTKFactor", orOne(s.NTKFactor)), notNegative("ExtrapolationFactor", orOne(s.ExtrapolationFactor)), wide(dim))
}

func (s NTKByParts) frequencies(r rounding, dim int, base float64, _ int64) ([]float64, float64) {
	f, ntk := plain(r, dim, base), plain(r, dim, ntkBase(base, s.Factor, dim))
	low, high := correction(1.25, 0.75, dim, base, s.Original, true)
	low2, high2 := correction(16, 2, dim, base, s.Original, true)
	for i, plain := range f {
		kept := r(r(1-ramp(r, i, low, high)) * orOne(s.NTKFactor))
		v := blend(r, r(plain/s.Factor), ntk[i], kept)
		kept = r(r(1-ramp(r, i, low2, high2)) * orOne(s.ExtrapolationFactor))
		f[i] = blend(r, v, plain, kept)
	}
	return f, 1
}

// YaRN (Peng et al. 2023, arXiv 2309.00071) keeps the frequencies that turn
// BetaFast times or more in Original positions, divides those that turn BetaSlow
// times or less by Factor, goes from one to the other linearly in the pair's
// index, and multiplies cosines and sines by an attention factor. The paper
// describes a ramp that is linear in the number of turns; the published code, and
// so every checkpoint, has the one in the index, and so has this type unless
// PaperRamp is set.
type YaRN struct {
	// Factor is above 0: how many times as long the sequences are to be.
	Factor float64
	// Original is the longest sequence of the training.
	Original int64
	// BetaFast and BetaSlow are 32 and 1 where they are 0.
	BetaFast, BetaSlow float64
	// AttentionFactor, if not 0, is the factor of cosines and sines. Otherwise that
	// is 0.1 ln(Factor) + 1 or, where MScale and MScaleAllDim are both given,
	// (0.1 MScale ln(Factor) + 1) / (0.1 MScaleAllDim ln(Factor) + 1); times
	// AttnFactor.
	AttentionFactor      float64
	MScale, MScaleAllDim float64
	AttnFactor           float64 // 0 is 1
	// ExtrapolationFactor says how much the frequencies that are kept count, from 0
	// on; nil is 1.
	ExtrapolationFactor *float64
	// NoTruncate leaves the ends of the ramp as they are, not rounded to pairs.
	NoTruncate bool
	// PaperRamp makes the ramp linear in the number of turns.
	PaperRamp bool
	// Dynamic makes the factor Length / Original for sequences longer than MaxPosition
	// (0 is Original) and 1 for others (Dynamic YaRN); Factor is not used then.
	Dynamic     bool
	MaxPosition int64
}

// String names the scheme and its parameters.
func (s YaRN) String() string {
	if s.Dynamic {
		return fmt.Sprintf("dynamic YaRN beyond %d", s.Original)
	}
	return fmt.Sprintf("YaRN, factor %v, original %d, beta %v and %v", s.Factor, s.Original, or(s.BetaFast, 32), or(s.BetaSlow, 1))
}

func (s YaRN) check(int) error {
	factor := s.Factor
	if s.Dynamic {
		factor = or(factor, 1)
	}
	if s.MaxPosition < 0 {
		return configErrorf("MaxPosition is %d, want 0 or more", s.MaxPosition)
	}
	return first(positive("Factor", factor), positive("Original", float64(s.Original)),
		positive("BetaFast", or(s.BetaFast, 32)), positive("BetaSlow", or(s.BetaSlow, 1)),
		positive("AttentionFactor", or(s.AttentionFactor, 1)), positive("AttnFactor", or(s.AttnFactor, 1)),
		notNegative("ExtrapolationFactor", orOne(s.ExtrapolationFactor)), notNegative("MScale", s.MScale), notNegative("MScaleAllDim", s.MScaleAllDim))
}

// stretch is the factor for a length.
func (s YaRN) stretch(length int64) float64 {
	if s.Dynamic {
		return float64(s.stage(length)) / float64(s.Original)
	}
	return s.Factor
}

func (s YaRN) frequencies(r rounding, dim int, base float64, length int64) ([]float64, float64) {
	scale := s.stretch(length)
	fast, slow := or(s.BetaFast, 32), or(s.BetaSlow, 1)
	low, high := correction(fast, slow, dim, base, s.Original, !s.NoTruncate)
	f := make([]float64, dim/2)
	for i := range f {
		p := power(r, base, dim, i)
		kept := r(1 / p)
		weight := r(1 - ramp(r, i, low, high))
		if s.PaperRamp {
			weight = min(max((float64(s.Original)*kept/(2*math.Pi)-slow)/(fast-slow), 0), 1)
		}
		f[i] = blend(r, r(1/r(scale*p)), kept, r(weight*orOne(s.ExtrapolationFactor)))
	}
	return f, s.attentionFactor(scale)
}

func (s YaRN) attentionFactor(scale float64) float64 {
	if s.AttentionFactor != 0 {
		return s.AttentionFactor
	}
	m := mscale(scale, 1)
	if s.MScale != 0 && s.MScaleAllDim != 0 {
		m = mscale(scale, s.MScale) / mscale(scale, s.MScaleAllDim)
	}
	return m * or(s.AttnFactor, 1)
}

// mscale is 0.1 m ln(scale) + 1, and 1 where nothing is stretched.
func mscale(scale, m float64) float64 {
	if scale <= 1 {
		return 1
	}
	return 0.1*m*math.Log(scale) + 1
}

// SoftmaxFactor is what the scale of the softmax is to be multiplied by besides,
// in models of DeepSeek's multi-head latent attention: (0.1 MScaleAllDim
// ln(Factor) + 1)^2, or 1 without MScaleAllDim.
func (s YaRN) SoftmaxFactor() float64 {
	m := mscale(s.Factor, s.MScaleAllDim)
	return m * m
}

// SoftmaxFactor returns what the scale of the softmax is to be multiplied by: that
// of a YaRN scheme, 1 for others.
func (cfg Config) SoftmaxFactor() float64 {
	if s, ok := cfg.Scheme.(YaRN); ok {
		return s.SoftmaxFactor()
	}
	return 1
}

func (s YaRN) stage(length int64) int64 {
	if !s.Dynamic {
		return 0
	}
	if length <= s.original() {
		return s.Original
	}
	return length
}

func (s YaRN) original() int64 {
	if !s.Dynamic {
		return math.MaxInt64
	}
	return max(s.MaxPosition, s.Original)
}
