package hyena

import (
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// fileModes are the modes of tensors [channels, N, 1, 2].
func fileModes(t *testing.T, f *golden.File) *Modes {
	t.Helper()
	s := f.Shape("poles")
	m, err := NewModes(ModesWeights{Poles: general(f.Float32("poles"), s[0], 2*s[1]), Residues: general(f.Float32("residues"), s[0], 2*s[1])})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// kernelOf returns rows of a kernel, [channels, rows].
func kernelOf(t *testing.T, m *Modes, rows int) []float32 {
	t.Helper()
	k := mat.New(rows, m.Channels())
	if err := m.Kernel(k, 0); err != nil {
		t.Fatal(err)
	}
	return transposed(k).Data
}

func goldenGated(t *testing.T, f *golden.File) {
	var cfg struct {
		B, Hidden, Heads, Steps int
		StateSize               int   `json:"state_size"`
		Prefill                 int   `json:"prefill_L"`
		Split                   *bool `json:"column_split_hyena"`
	}
	f.Config("config", &cfg)
	u := f.Shape("u")
	modes, tokens, d := fileModes(t, f), u[1], u[2]/3
	taps := f.Shape("short_filter_weight")[2]
	gc := GatedConfig{Dim: d}
	if cfg.Split == nil || *cfg.Split { // as upstream
		gc.Heads = cfg.Heads
	}
	op, err := NewGated(gc, GatedWeights{
		Short: general(f.Float32("short_filter_weight"), 3*d, taps), ShortBias: f.Optional("short_filter_bias"), Modes: modes, Skip: f.Optional("D"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.Has("expected.filter_h") {
		f.Compare("expected.filter_h", kernelOf(t, modes, f.Shape("expected.filter_h")[1]))
	}
	var full, prefill, steps, after, fir, final []float32
	x := f.Float32("u")
	readState := func(to []float32, st *State) []float32 {
		m := mat.New(d, 2*modes.Modes())
		if err := op.Read(m, st); err != nil {
			t.Fatal(err)
		}
		return append(to, m.Data...)
	}
	for b := range u[0] {
		z := general(x[b*tokens*3*d:], tokens, 3*d)
		y := mat.New(tokens, d)
		if err := op.Forward(y, z); err != nil {
			t.Fatal(err)
		}
		full = append(full, y.Data...)
		st := mustState(t, op, StateConfig{})
		step := func(from, to int) []float32 {
			out := mat.New(to-from, d)
			if err := op.Step(out, mat.Rows(z, from, to), st); err != nil {
				t.Fatal(err)
			}
			return out.Data
		}
		prefill = append(prefill, step(0, cfg.Prefill)...)
		after = readState(after, st)
		fir = append(fir, transposed(op.window(st.values)).Data...)
		for i := range cfg.Steps {
			steps = append(steps, step(cfg.Prefill+i, cfg.Prefill+i+1)...)
		}
		final = readState(final, st)
	}
	f.Compare("expected.y_full", full)
	f.Compare("expected.y_prefill", prefill)
	f.Compare("expected.y_steps", steps)
	f.Compare("expected.state_after_prefill", after)
	f.Compare("expected.fir_state_after_prefill", fir)
	f.Compare("expected.state_final", final)
}

// mustState makes a state of an operator.
func mustState(t testing.TB, op interface {
	NewState(StateConfig) (*State, error)
}, cfg StateConfig) *State {
	t.Helper()
	st, err := op.NewState(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func goldenH3(t *testing.T, f *golden.File) {
	var cfg struct {
		B, Heads, L int
		HeadDim     int `json:"head_dim"`
	}
	f.Config("config", &cfg)
	s, ks := f.Shape("q"), f.Shape("ssm_kernel")
	op, err := NewH3(H3Config{Heads: ks[0], HeadDim: s[1] / ks[0]}, H3Weights{Kernel: transposed(general(f.Float32("ssm_kernel"), ks[0], ks[1])), Skip: f.Optional("D")})
	if err != nil {
		t.Fatal(err)
	}
	q, k, v := f.Elements("q"), f.Elements("k"), f.Elements("v")
	var out, stepped []float32
	for b := range s[0] {
		at := func(e golden.Elements) blas32.General { return e.Columns(b, s[2], s[1]) }
		y := mat.New(s[2], s[1])
		if err := op.Forward(y, at(q), at(k), at(v)); err != nil {
			t.Fatal(err)
		}
		out = append(out, transposed(y).Data...)
		st := mustState(t, op, StateConfig{})
		for i := range s[2] {
			row := func(e golden.Elements) blas32.General { return mat.Rows(at(e), i, i+1) }
			if err := op.Step(mat.Rows(y, i, i+1), row(q), row(k), row(v), st); err != nil {
				t.Fatal(err)
			}
		}
		stepped = append(stepped, transposed(y).Data...)
	}
	f.Compare("out", out)
	f.Compare("out", stepped)
}

func goldenS4D(t *testing.T, f *golden.File) {
	var cfg struct{ B, H, N, L int }
	f.Config("config", &cfg)
	s := f.Shape("u")
	h, n := s[1], f.Shape("kernel.C")[1]
	modes, err := NewS4DModes(S4DWeights{
		LogDt: f.Float32("kernel.log_dt"), LogAReal: general(f.Float32("kernel.log_A_real"), h, n),
		AImag: general(f.Float32("kernel.A_imag"), h, n), C: general(f.Float32("kernel.C"), h, 2*n),
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.Has("expected.kernel") {
		f.Compare("expected.kernel", kernelOf(t, modes, f.Shape("expected.kernel")[1]))
	}
	op, err := NewS4D(S4DConfig{}, S4DLayerWeights{
		Modes: modes, Skip: f.Optional("D"), Out: general(f.Float32("output_linear.0.weight"), 2*h, h), OutBias: f.Optional("output_linear.0.bias"),
	})
	if err != nil {
		t.Fatal(err)
	}
	u := f.Elements("u")
	var out, stepped []float32
	for b := range s[0] {
		x := u.Columns(b, s[2], h)
		y := mat.New(s[2], h)
		if err := op.Forward(y, x); err != nil {
			t.Fatal(err)
		}
		out = append(out, transposed(y).Data...)
		st := mustState(t, op, StateConfig{})
		for i := range s[2] {
			if err := op.Step(mat.Rows(y, i, i+1), mat.Rows(x, i, i+1), st); err != nil {
				t.Fatal(err)
			}
		}
		stepped = append(stepped, transposed(y).Data...)
	}
	f.Compare("expected.y", out)
	f.Compare("expected.y", stepped)
}
