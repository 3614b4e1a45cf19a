package rope

import (
	"strconv"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/golden"
)

func goldenHF(t *testing.T, f *golden.File) {
	var names []string
	f.Config("cases", &names)
	for _, c := range names {
		var args struct {
			SeqLen    *int64  `json:"seq_len"`
			LayerType *string `json:"layer_type"`
		}
		f.Config("args."+c, &args)
		hf, err := FromHF([]byte(f.Meta("config."+c)), V5)
		if err != nil {
			t.Fatal(err)
		}
		if len(hf.Unknown) > 0 {
			t.Errorf("%s: unknown keys %q", c, hf.Unknown)
		}
		layer := ""
		if args.LayerType != nil {
			layer = *args.LayerType
		}
		cfg, err := hf.Config(layer)
		if err != nil {
			t.Fatal(err)
		}
		if args.SeqLen != nil {
			cfg.Length = *args.SeqLen
		}
		r := mustNew(t, cfg)
		if f.Has(c + ".attention_factor") {
			f.Compare64(c+".attention_factor", []float64{r.AttentionFactor()}, golden.Tolerance{Rel: 1e-12})
		}
		if f.Has(c + ".inv_freq_f64") {
			f.Compare64(c+".inv_freq_f64", r.Frequencies(), golden.Tolerance{Rel: 1e-12, Abs: 1e-15})
		}
		cfg.Accuracy = Float32Frequencies
		if f.Has(c + ".inv_freq_hf_f32") {
			f.Compare64(c+".inv_freq_hf_f32", mustNew(t, cfg).Frequencies(), golden.Tolerance{Rel: 3e-6})
		}
	}
}

// extension is the parameters of every scheme in one struct.
type extension struct {
	Dim          int      `json:"dim"`
	HeadDim      int      `json:"head_dim"`
	Base         float64  `json:"base"`
	Theta        float64  `json:"theta"`
	MaxPosition  int64    `json:"max_position_embeddings"`
	Original     int64    `json:"original_max_position_embeddings"`
	ForwardLen   int64    `json:"forward_seq_len"`
	SeqLen       int64    `json:"seq_len"`
	Scale        float64  `json:"scale"`
	NTK          float64  `json:"ntk"`
	Alpha        float64  `json:"alpha"`
	Beta         float64  `json:"beta"`
	BetaFast     float64  `json:"beta_fast"`
	BetaSlow     float64  `json:"beta_slow"`
	AttnFactor   float64  `json:"attn_factor"`
	Extrapolate  *float64 `json:"extrapolation_factor"`
	NTKFactor    *float64 `json:"ntk_factor"`
	ScalePower   float64  `json:"scale_power"`
	Truncate     float64  `json:"truncate"`
	A            float64  `json:"a"`
	B            float64  `json:"b"`
	Rho          float64  `json:"rho"`
	Policy       string   `json:"magnitude_scaling_policy"`
	K            int      `json:"k"`
	LTest        int64    `json:"L_test"`
	XPosBase     float64  `json:"scale_base"`
	Offset       int64    `json:"offset"`
	Layout       string   `json:"layout"`
	Exponent     string   `json:"exponent"`
	Note, Source string
	factors      []float64
}

// schemes makes the scheme of a case.
var schemes = map[string]func(p extension) Scheme{
	"linear":         func(p extension) Scheme { return Linear{Factor: p.Scale} },
	"ntk_aware":      func(p extension) Scheme { return NTK{Factor: p.Alpha} },
	"dynamic_ntk":    func(p extension) Scheme { return DynamicNTK{Factor: p.NTK, MaxPosition: p.MaxPosition} },
	"dynamic_linear": func(p extension) Scheme { return DynamicLinear{MaxPosition: p.MaxPosition} },
	"ntk_by_parts": func(p extension) Scheme {
		return NTKByParts{Factor: p.Scale, Original: p.Original, NTKFactor: p.NTKFactor, ExtrapolationFactor: p.Extrapolate}
	},
	"yarn": func(p extension) Scheme {
		return YaRN{Factor: p.Scale, Original: p.Original, BetaFast: p.BetaFast, BetaSlow: p.BetaSlow, AttnFactor: p.AttnFactor, ExtrapolationFactor: p.Extrapolate}
	},
	"dynamic_yarn": func(p extension) Scheme {
		return YaRN{Dynamic: true, Original: p.Original, MaxPosition: p.MaxPosition, BetaFast: p.BetaFast, BetaSlow: p.BetaSlow, AttnFactor: p.AttnFactor, ExtrapolationFactor: p.Extrapolate}
	},
	"yarn_paper_ramp": func(p extension) Scheme {
		return YaRN{Factor: p.Scale, Original: p.Original, BetaFast: p.Beta, BetaSlow: p.Alpha, PaperRamp: true}
	},
	"giraffe": func(p extension) Scheme {
		return Giraffe{Scale: p.Scale, Power: p.ScalePower, Truncate: p.Truncate, Keep: p.B, Zero: p.A, Middle: p.Rho}
	},
	"riflex": func(p extension) Scheme { return RIFLEx{K: p.K, Length: p.LTest} },
	"longrope": func(p extension) Scheme {
		s := LongRoPE{Long: p.factors, Original: p.Original, Factor: float64(p.MaxPosition) / float64(p.Original)}
		switch p.Policy {
		case "su":
		case "yarn":
			s.Magnitude = MagnitudeYaRN
		default:
			s.AttentionFactor, _ = strconv.ParseFloat(p.Policy, 64) // 0 is caught by the comparison
		}
		return s
	},
	"longrope_dynamic": func(p extension) Scheme {
		return LongRoPE{Long: p.factors, Original: p.Original, Factor: float64(p.MaxPosition) / float64(p.Original), Dynamic: true}
	},
}

func goldenExtensions(t *testing.T, f *golden.File) {
	f.Ignore(func(name string) bool { // the float32 runs, and inputs of cases that may not be there
		return len(name) > 4 && name[len(name)-4:] == "_f32" || name == "longrope.rescale_factors"
	})
	for _, c := range f.Keys("params.") {
		var p extension
		f.Config("params."+c, &p)
		if strings.HasPrefix(c, "xpos") {
			goldenXPos(t, f, c, p)
			continue
		}
		kind := longest(c, schemes)
		if kind == "" {
			t.Fatalf("no scheme for %q", c)
		}
		if strings.HasPrefix(kind, "longrope") {
			p.factors = f.Float64("longrope.rescale_factors")
		}
		cfg := Config{HeadDim: p.Dim, Base: or(p.Base, p.Theta), Scheme: schemes[kind](p), Length: or(p.ForwardLen, p.SeqLen)}
		r := mustNew(t, cfg)
		if name := c + ".inv_freq_f64"; f.Has(name) {
			freq := r
			if kind == "linear" || kind == "dynamic_linear" { // stored unscaled; positions are divided
				cfg.Scheme = nil
				freq = mustNew(t, cfg)
			}
			f.Compare64(name, freq.Frequencies(), golden.Tolerance{Rel: 1e-11})
		}
		if name := c + ".mscale"; f.Has(name) {
			f.Compare64(name, []float64{r.AttentionFactor()}, golden.Tolerance{Rel: 1e-11})
		}
		for _, at := range [][3]string{{"rows", ".cos_rows_f64", ".sin_rows_f64"}, {"longrope.positions", ".cos_f64", ".sin_f64"}} {
			if !f.Has(c+at[1]) && !f.Has(c+at[2]) {
				continue
			}
			var cos, sin []float64
			for _, p := range f.Int64(at[0]) {
				rc, rs := make([]float64, r.pairs), make([]float64, r.pairs)
				must(t, r.CosSin64(rc, rs, float64(p)))
				cos, sin = append(cos, rc...), append(sin, rs...)
			}
			for i, got := range [][]float64{cos, sin} {
				if f.Has(c + at[i+1]) {
					f.Compare64(c+at[i+1], got, golden.Tolerance{Abs: 1e-11})
				}
			}
		}
	}
	f.Ignore(func(name string) bool { return name == "rows" || name == "longrope.positions" })
}

// goldenXPos rotates with the center that the official code has.
func goldenXPos(t *testing.T, f *golden.File, c string, p extension) {
	r := mustNew(t, Config{HeadDim: p.HeadDim, Base: p.Theta, Layout: Interleaved, XPos: &XPos{ScaleBase: p.XPosBase}})
	for _, in := range []string{"q", "k"} {
		if !f.Has(c + "." + in) {
			continue
		}
		shape := f.Shape(c + "." + in)
		x := tokens(f.Float32(c+"."+in), shape)
		for b := range shape[0] {
			part := rows(x, b*shape[2], (b+1)*shape[2])
			must(t, r.Run(t.Context(), &Call{X: part, Positions: Positions{Start: p.Offset}, Keys: in == "k", Center: p.MaxPosition / 2}))
		}
		if name := c + "." + in + "_rot_f64"; f.Has(name) {
			f.Compare(name, heads(x, shape[0], shape[3]), golden.Tolerance{Abs: 2e-6, Max: 2e-6})
		}
	}
}
