package rope

import (
	"math"
	"strings"
	"testing"
)

// TestSchemes: every scheme can be used and named, its frequencies do not grow
// with the pair, nothing is faster than without it, and the shortest wavelength
// is kept unless all are stretched.
func TestSchemes(t *testing.T) {
	factors := make([]float64, 32)
	for i := range factors {
		factors[i] = 1 + float64(i)
	}
	for name, c := range map[string]struct {
		scheme Scheme
		kept   bool
	}{
		"plain":                 {Plain{}, true},
		"linear, factor 4":      {Linear{Factor: 4}, false},
		"NTK-aware, factor 4":   {NTK{Factor: 4}, true},
		"dynamic NTK, factor 2": {DynamicNTK{Factor: 2, MaxPosition: 512}, true},
		"dynamic linear":        {DynamicLinear{MaxPosition: 512}, false},
		"NTK by parts":          {NTKByParts{Factor: 4, Original: 2048}, true},
		"YaRN, factor 4":        {YaRN{Factor: 4, Original: 2048}, true},
		"dynamic YaRN":          {YaRN{Dynamic: true, Original: 2048}, true},
		"Giraffe, scale 1":      {Giraffe{Power: 0.1, Truncate: 2048}, true},
		"LongRoPE, factor 8":    {LongRoPE{Long: factors, Original: 512, Factor: 8}, true},
		"dynamic LongRoPE":      {LongRoPE{Long: factors, Original: 512, Factor: 8, Dynamic: true}, true},
		"Llama 3, factor 8":     {Llama3{}, true},
		"RIFLEx, component 3":   {RIFLEx{K: 3, Length: 4096}, true},
		"proportional":          {Proportional{Fraction: 0.5}, true},
		"32 given frequencies":  {Custom{Frequencies: append([]float64{1}, make([]float64, 31)...), Factor: 2}, true},
	} {
		for _, accuracy := range []Accuracy{Exact, Float32Frequencies} {
			r := mustNew(t, Config{HeadDim: 64, Scheme: c.scheme, Length: 4096, Accuracy: accuracy})
			if text := r.String(); !strings.Contains(text, name) {
				t.Errorf("%q, want %q in it", text, name)
			}
			pairs := r.Pairs()
			if kept := pairs[0].Stretch == 1; kept != c.kept {
				t.Errorf("%s: the first pair is stretched %v times", name, pairs[0].Stretch)
			}
			for i, p := range pairs {
				_, riflex := c.scheme.(RIFLEx)
				if !(p.Stretch >= 1-1e-6) || i > 0 && !riflex && p.Frequency > pairs[i-1].Frequency {
					t.Errorf("%s: pair %d is %+v", name, i, p)
				}
			}
		}
		// What a scheme says of its stages is so.
		original := c.scheme.original()
		for _, length := range []int64{1, 512, 513, 2048, 2049, 5000} {
			f, _ := c.scheme.frequencies(round64, 64, 1e4, length)
			start, _ := c.scheme.frequencies(round64, 64, 1e4, 0)
			equal := true
			for i := range f {
				equal = equal && f[i] == start[i]
			}
			if stage := c.scheme.stage(length) == c.scheme.stage(0); stage != equal || stage != (length <= original) {
				t.Errorf("%s: length %d, original %d: the same stage: %v, the same frequencies: %v", name, length, original, stage, equal)
			}
		}
	}
}

// TestSeparateFactor: the factor can be left to the logits.
func TestSeparateFactor(t *testing.T) {
	cfg := Config{HeadDim: 16, Scheme: YaRN{Factor: 8, Original: 64}}
	within := mustNew(t, cfg)
	cfg.SeparateFactor = true
	apart := mustNew(t, cfg)
	x := matrix(random(1, 3*16), 3, 16)
	a, b := run(t, within, x, Positions{}), run(t, apart, x, Positions{})
	factor := apart.AttentionFactor()
	if factor != within.AttentionFactor() || math.Abs(factor-(0.1*math.Log(8)+1)) > 1e-12 {
		t.Errorf("factor %v", factor)
	}
	for i := range b.Data {
		b.Data[i] *= float32(factor)
	}
	near(t, "times the factor", b.Data, a.Data, 1e-6)
}

func TestHeads(t *testing.T) {
	for name, b := range biases(t) {
		want := 3
		if name == "ALiBi, one slope" || name == "FlexRoPE, frames" {
			want = 1
		}
		if got := b.(interface{ Heads() int }).Heads(); got != want {
			t.Errorf("%s: %d heads, want %d", name, got, want)
		}
	}
}
