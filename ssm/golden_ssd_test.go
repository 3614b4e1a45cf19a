package ssm

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// goldenBoth runs an SSD by chunks and by the recurrence, whole and in pieces of the
// official code's chunks, on every sequence of a file, and returns the results one after
// the other.
func goldenBoth(t *testing.T, cfg SSDConfig, w SSDWeights, initial golden.Elements, calls []SSDCall, chunk int, check func(out, final []float32)) {
	for form := range 4 {
		each := max(chunk, 1)
		if cfg.Recurrent = form%2 == 1; form < 2 {
			each = math.MaxInt
		}
		op := value[*SSD](t)(NewSSD(cfg, w))
		var out, final []float32
		wide := cfg.Heads * cfg.HeadDim
		for b, call := range calls {
			st := value[*State](t)(op.NewState(StateConfig{}))
			if initial.Given() {
				must(t, op.Write(st, initial.Matrix(b, wide, cfg.States)))
			}
			n := call.X.Rows
			call.Dst = zeros(n, wide)
			for from := 0; from < n || from == 0; from += min(each, max(n, 1)) {
				part := call
				for _, m := range []*blas32.General{&part.Dst, &part.X, &part.Dt, &part.Decay, &part.B, &part.C, &part.Z} {
					if mat.Given(*m) {
						*m = mat.Rows(*m, from, min(from+min(each, n), n))
					}
				}
				part.State = st
				must(t, op.Run(t.Context(), &part))
			}
			h := zeros(wide, cfg.States)
			must(t, op.Read(h, st))
			out, final = append(out, call.Dst.Data...), append(final, h.Data...)
		}
		check(out, final)
	}
}

func goldenSSD(t *testing.T, f *golden.File) {
	s, g := f.Shape("x"), f.Shape("B")
	n, heads, width, groups, states := s[1], s[2], s[3], g[2], g[3]
	cfg := SSDConfig{Heads: heads, HeadDim: width, States: states, Groups: groups, Softplus: true}
	if f.Meta("dt_softplus") != "" {
		cfg.Softplus = flag(t, f, "dt_softplus")
	}
	cfg.DtMin, cfg.DtMax = limits(t, f.Meta("dt_limit"))
	x, dt, z, b, c := f.Elements("x"), f.Elements("dt"), f.Elements("z"), f.Elements("B"), f.Elements("C")
	var calls []SSDCall
	for i := range s[0] {
		calls = append(calls, SSDCall{
			X: x.Matrix(i, n, heads*width), Dt: dt.Matrix(i, n, heads), Z: z.Matrix(i, n, heads*width),
			B: b.Matrix(i, n, groups*states), C: c.Matrix(i, n, groups*states),
		})
	}
	w := SSDWeights{A: f.Float32("A"), D: f.Optional("D"), DtBias: f.Optional("dt_bias")}
	goldenBoth(t, cfg, w, f.Initial("state"), calls, int(f.Number("chunk_size", 64)), func(out, final []float32) {
		f.Compare("out", out)
		f.Compare("final_states", final)
	})
}

// goldenMinimal has X times dt already, A times dt, and B and C for each head.
func goldenMinimal(t *testing.T, f *golden.File) {
	s, g := f.Shape("X"), f.Shape("B")
	n, heads, width, states := s[1], s[2], s[3], g[3]
	x, a, b, c := f.Elements("X"), f.Elements("A"), f.Elements("B"), f.Elements("C")
	var calls []SSDCall
	for i := range s[0] {
		calls = append(calls, SSDCall{
			X: x.Matrix(i, n, heads*width), Decay: a.Matrix(i, n, heads),
			B: b.Matrix(i, n, heads*states), C: c.Matrix(i, n, heads*states),
		})
	}
	cfg := SSDConfig{Heads: heads, HeadDim: width, States: states, Groups: heads}
	goldenBoth(t, cfg, SSDWeights{}, f.Initial("state"), calls, int(f.Number("block_len", 64)), func(out, final []float32) {
		f.Compare("Y", out)
		f.Compare("final_state", final)
	})
}

func goldenSISO(t *testing.T, f *golden.File) {
	v, k, angles := f.Shape("V"), f.Shape("K"), 0
	n, heads, width, groups, states := v[1], v[2], v[3], k[2], k[3]
	if f.Has("Angles") {
		angles = f.Shape("Angles")[3]
	}
	op := value[*SISO](t)(NewSISO(
		SISOConfig{Heads: heads, HeadDim: width, States: states, Groups: groups, Angles: angles},
		SISOWeights{BBias: f.Optional("K_bias"), CBias: f.Optional("Q_bias"), D: f.Optional("D")}))
	x, b, c, z := f.Elements("V"), f.Elements("K"), f.Elements("Q"), f.Elements("Z")
	dt, decay, trap, turn := f.Elements("DT"), f.Elements("ADT"), f.Elements("Trap"), f.Elements("Angles")
	initial := [4]golden.Elements{f.Initial("ssm_state"), f.Initial("k_state"), f.Initial("v_state"), f.Initial("angle_state")}
	results := map[string][]float32{}
	for i := range v[0] {
		st := value[*State](t)(op.NewState(StateConfig{}))
		to := SISOState{H: zeros(heads*width, states), B: zeros(heads, states), X: zeros(heads, width), Angles: zeros(heads, angles)}
		for j, m := range []blas32.General{to.H, to.B, to.X, to.Angles} {
			copy(m.Data, initial[j].At(i))
		}
		must(t, op.Write(st, to))
		y := zeros(n, heads*width)
		must(t, op.Run(t.Context(), &SISOCall{
			Dst: y, X: x.Matrix(i, n, heads*width), B: b.Matrix(i, n, groups*states), C: c.Matrix(i, n, groups*states), Z: z.Matrix(i, n, heads*width),
			Dt: dt.Columns(i, n, heads), Decay: decay.Columns(i, n, heads), Trap: trap.Columns(i, n, heads), Angles: turn.Matrix(i, n, heads*angles), State: st,
		}))
		must(t, op.Read(to, st))
		for name, m := range map[string]blas32.General{"out": y, "ssm_state": to.H, "k_state": to.B, "v_state": to.X, "angle_state": to.Angles} {
			results[name] = append(results[name], m.Data...)
		}
	}
	for name, got := range results {
		f.Compare(name, got)
	}
}
