package hyena

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "hyena", map[string]func(*testing.T, *golden.File){
		"hyena.fftconv":       goldenConv,
		"hyena.filter":        goldenFilter,
		"hyena.operator":      goldenOperator,
		"hyena.h3conv":        goldenH3,
		"hyena.s4d":           goldenS4D,
		"hyena.striped_modal": goldenGated,
	})
}

// cases returns what comes before the first dot of the tensors' names.
func cases(f *golden.File) (list []string) {
	seen := map[string]bool{}
	for _, n := range f.Names() {
		c, _, _ := strings.Cut(n, ".")
		if !seen[c] {
			seen[c] = true
			list = append(list, c)
		}
	}
	return list
}

// general makes a [rows, cols] matrix of data.
func general(data []float32, rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// transposed turns [channels, tokens] into [tokens, channels] and back.
func transposed(m blas32.General) blas32.General {
	t := general(make([]float32, m.Rows*m.Cols), m.Cols, m.Rows)
	for i := range m.Rows {
		for j := range m.Cols {
			t.Data[j*t.Stride+i] = m.Data[i*m.Stride+j]
		}
	}
	return t
}

func goldenConv(t *testing.T, f *golden.File) {
	for _, c := range cases(f) {
		shape := f.Shape(c + ".u") // [B, H, L]
		if len(shape) == 4 {       // [B, h, H, L]: one kernel for all of the second
			shape = []int{shape[0] * shape[1], shape[2], shape[3]}
		}
		batch, channels, tokens := shape[0], shape[1], shape[2]
		kernel := func(name string) blas32.General {
			s := f.Shape(c + "." + name)
			return transposed(general(f.Float32(c+"."+name), s[0], s[1]))
		}
		u, skip := f.Float32(c+".u"), f.Optional(c+".D")
		run := func(name string, cfg ConvConfig) {
			if !f.Has(c + "." + name) {
				return
			}
			cfg.Skip = skip
			conv := mustConv(t, cfg)
			var out []float32
			for b := range batch {
				x := transposed(general(u[b*channels*tokens:], channels, tokens))
				if err := conv.Forward(x, x); err != nil {
					t.Fatal(err)
				}
				out = append(out, transposed(x).Data...)
			}
			f.Compare(c+"."+name, out)
		}
		k := kernel("k")
		run("out", ConvConfig{Kernel: k})
		run("out_gelu", ConvConfig{Kernel: k, GELU: true})
		if f.Has(c + ".k_rev") {
			run("out_krev", ConvConfig{Kernel: k, Reverse: kernel("k_rev")})
		}
		if f.Has(c + ".k_short") {
			run("out_kshort", ConvConfig{Kernel: kernel("k_short")})
		}
		// The repository's experiment: half the length of zeros before u, cyclic in
		// twice the length. What wraps around is an anticausal kernel.
		delayed, wrapped := general(make([]float32, tokens*channels), tokens, channels), general(make([]float32, tokens*channels), tokens, channels)
		for h := range channels {
			for m := range min(tokens, k.Rows) {
				if d := m + tokens/2; d < tokens {
					delayed.Data[d*channels+h] = k.Data[m*k.Stride+h]
				} else if d := 2*tokens - d; d < tokens {
					wrapped.Data[d*channels+h] = k.Data[m*k.Stride+h]
				}
			}
		}
		run("out_bidirectional_repo", ConvConfig{Kernel: delayed, Reverse: wrapped})
	}
}

// readFilter makes a filter from tensors under the official names.
func readFilter(t *testing.T, f *golden.File, prefix string, cfg FilterConfig) *Filter {
	t.Helper()
	var w FilterWeights
	for i := 0; ; i += 2 {
		name := prefix + ".implicit_filter." + itoa(i)
		s := f.Shape(name + ".weight")
		weight := general(f.Float32(name+".weight"), s[0], s[1])
		if !f.Has(name + ".bias") {
			w.Out = weight
			break
		}
		// One Sine module serves all layers, and may be stored once.
		freq := prefix + ".implicit_filter." + itoa(i+1) + ".freq"
		if !f.Has(freq) {
			freq = prefix + ".implicit_filter.1.freq"
		}
		w.Layers = append(w.Layers, FilterLayer{weight, f.Float32(name + ".bias"), f.Float32(freq)})
	}
	for name, to := range map[string]*[]float32{".pos_emb.z": &w.Z, ".pos_emb.t": &w.T, ".modulation.deltas": &w.Deltas} {
		if f.Has(prefix + name) {
			*to = f.Float32(prefix + name)
		}
	}
	cfg.Channels = w.Out.Rows
	filter, err := NewFilter(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	// The grid that is computed when none is stored.
	w.Z, w.T, w.Deltas = nil, nil, nil
	own, err := NewFilter(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	if !perturbed(f, prefix) {
		near := func(what string, i int, got, want float64) {
			if math.Abs(got-want) > 1e-5*(1+math.Abs(want)) { // stored in float32, computed in it
				t.Fatalf("%s: %s %d is %v, stored is %v", prefix, what, i, got, want)
			}
		}
		z, stored := make([]float64, filter.cfg.EmbDim), make([]float64, filter.cfg.EmbDim)
		for i := range filter.MaxLen() {
			near("position", i, own.position(i), filter.position(i))
			own.embedding(z, i)
			filter.embedding(stored, i)
			for j := range z {
				near("embedding of position", i, z[j], stored[j])
			}
		}
		for c := range filter.deltas {
			near("decay", c, own.deltas[c], filter.deltas[c])
		}
	}
	return filter
}

// perturbed tells whether the stored grid of a case is not the computed one.
func perturbed(f *golden.File, prefix string) bool {
	c, _, _ := strings.Cut(prefix, ".")
	var cfg struct {
		Perturbed bool `json:"perturbed_buffers"`
	}
	if text := f.Meta("cfg_" + c); text != "" {
		_ = json.Unmarshal([]byte(text), &cfg)
	}
	return cfg.Perturbed
}

func itoa(i int) string {
	text, _ := json.Marshal(i)
	return string(text)
}

// filterCase is the configuration of a filter in a file of any operation.
type filterCase struct {
	DModel      int      `json:"d_model"`
	EmbDim      int      `json:"emb_dim"`
	FilterOrder int      `json:"filter_order"`
	SeqLen      int      `json:"seq_len"`
	LMax        int      `json:"l_max"`
	W           float64  `json:"w"`
	L           int      `json:"L"`
	Shift       *float64 `json:"shift"`
	Modulate    *bool    `json:"modulate"`
	InnerMLPs   int      `json:"num_inner_mlps"`
	ShortOrder  int      `json:"short_filter_order"`
	RepoVariant bool     `json:"repo_variant"`
	Perturbed   bool     `json:"perturbed_buffers"`
	Batch       int      `json:"B"`
	Order       int      `json:"order"`
	Normalized  bool     `json:"normalized"`
	LinearMixer bool     `json:"linear_mixer"` // as the tensors tell
	FastDecay   float64  `json:"fast_decay_pct"`
	SlowDecay   float64  `json:"slow_decay_pct"`
	Target      float64  `json:"target"`
	Dropout     float64  `json:"dropout"` // of training, as the rest
	LR          float64  `json:"lr"`
	LRPosEmb    float64  `json:"lr_pos_emb"`
	WD          float64  `json:"wd"`
}

// filter returns the library's configuration. The repository's filter decays to
// 0, the standalone one to 0.05, unless the case says otherwise.
func (c filterCase) filter(maxLen int) FilterConfig {
	cfg := FilterConfig{MaxLen: maxLen, EmbDim: c.EmbDim, NoModulation: c.Modulate != nil && !*c.Modulate, Shift: c.Shift,
		Normalized: c.Normalized, FastDecay: c.FastDecay, SlowDecay: c.SlowDecay, Target: c.Target}
	if c.Shift == nil && c.RepoVariant {
		cfg.Shift = new(float64)
	}
	return cfg
}

func goldenFilter(t *testing.T, f *golden.File) {
	for _, c := range f.Keys("cfg_") {
		var cfg filterCase
		f.Config("cfg_"+c, &cfg)
		filter := readFilter(t, f, c+".filter_fn", cfg.filter(cfg.SeqLen))
		f.Ignore(func(name string) bool { return name == c+".filter_fn.bias" }) // the convolution's, not the filter's
		if !f.Has(c + ".k") {
			continue
		}
		k := general(make([]float32, cfg.L*cfg.DModel), cfg.L, cfg.DModel)
		if err := filter.Kernel(k, 0); err != nil {
			t.Fatal(err)
		}
		f.Compare(c+".k", k.Data, golden.Tolerance{Abs: 2e-6})
	}
}

func goldenOperator(t *testing.T, f *golden.File) {
	for _, c := range f.Keys("cfg_") {
		var cfg filterCase
		f.Config("cfg_"+c, &cfg)
		at := func(name string) blas32.General {
			s := f.Shape(c + ".mixer." + name)
			return general(f.Float32(c+".mixer."+name), s[0], s[len(s)-1])
		}
		vec := func(name string) []float32 { return f.Float32(c + ".mixer." + name) }
		op, err := NewOperator(OperatorConfig{Dim: cfg.DModel, Order: cfg.Order, ChannelMajor: cfg.RepoVariant}, OperatorWeights{
			In: at("in_proj.weight"), InBias: vec("in_proj.bias"), Short: at("short_filter.weight"), ShortBias: vec("short_filter.bias"),
			Filter: readFilter(t, f, c+".mixer.filter_fn", cfg.filter(cfg.LMax)), Skip: vec("filter_fn.bias"),
			Out: at("out_proj.weight"), OutBias: vec("out_proj.bias"),
		})
		if err != nil {
			t.Fatal(err)
		}
		shape, x := f.Shape(c+".x"), f.Float32(c+".x")
		var y []float32
		for b := range shape[0] {
			seq := general(x[b*shape[1]*shape[2]:(b+1)*shape[1]*shape[2]], shape[1], shape[2])
			if seq.Rows > op.MaxLen() { // the official operator cuts the input off in silence
				if err := op.Forward(seq, seq); !errors.Is(err, ErrTooLong) {
					t.Errorf("%s: %d tokens of %d: error %v", c, seq.Rows, op.MaxLen(), err)
				}
				seq.Rows = op.MaxLen()
			}
			dst := general(make([]float32, seq.Rows*seq.Cols), seq.Rows, seq.Cols)
			if err := op.Forward(dst, seq); err != nil {
				t.Fatal(err)
			}
			y = append(y, dst.Data...)
		}
		if f.Has(c + ".y") {
			f.Compare(c+".y", y)
		}
	}
}
