package sparse

import (
	"context"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// goldenNSA runs a file, [batch, tokens, heads, dim], as a packed batch and, with states,
// in steps.
func goldenNSA(t *testing.T, f *golden.File) {
	s := f.Shape("q")
	batch, tokens, heads, d := s[0], s[1], s[2], s[3]
	kv, dv := f.Shape("k")[2], f.Shape("v")[3]
	rows := batch * tokens
	of := func(name string, cols int) blas32.General { return mat.Of(f.Float32(name), rows, cols) }
	q, k, v := of("q", heads*d), of("k", kv*d), of("v", kv*dv)
	cfg := NSAConfig{Heads: heads, KVHeads: kv, HeadDim: d, ValueDim: dv, Scale: f.Scale(),
		Block: int(f.Number("block_size", 0)), TopK: int(f.Number("block_count", 0)), Window: int(f.Number("window", 0))}
	var gates Gates
	for name, g := range map[string]*blas32.General{"g_cmp": &gates.Compressed, "g_slc": &gates.Selected, "g_swa": &gates.Window} {
		if f.Has(name) {
			*g = of(name, heads)
		}
	}
	if cfg.Window == 0 { // there, a window of 0 is none
		gates.Window = blas32.General{}
	}
	a := mustNSA(t, cfg)
	offsets := []int{0}
	for b := range batch {
		offsets = append(offsets, (b+1)*tokens)
	}
	chosen := make([]int32, rows*kv*cfg.TopK)
	run := func(gates Gates, each int) []float32 {
		dst := mat.New(rows, heads*dv)
		call := attention.Call{Dst: dst, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Offsets: offsets, Options: &NSAOptions{Gates: gates, Blocks: chosen}}
		if each == 0 {
			if err := a.Run(context.Background(), &call); err != nil {
				t.Fatal(err)
			}
			return dst.Data
		}
		for b := range batch {
			st := mustNSAState(t, a, NSAStateConfig{})
			for from := b * tokens; from < (b+1)*tokens; from += each {
				to := min(from+each, (b+1)*tokens)
				if err := a.Run(context.Background(), nsaPart(&call, from, to, st)); err != nil {
					t.Fatal(err)
				}
			}
		}
		return dst.Data
	}
	for _, each := range []int{0, 1, 3, fewTokens + 1} {
		if f.Has("out") {
			f.Compare("out", run(gates, each))
		}
		if f.Has("out_cmp") {
			f.Compare("out_cmp", run(Gates{Compressed: gates.Compressed}, each))
		}
		if f.Has("block_indices") {
			want, size := f.Int64("block_indices"), f.Shape("block_indices")[3]
			for i := range rows * kv {
				x := want[i*size:][:size]
				slices.Sort(x)
				x = x[len(x)-len(nonNegative(x)):]
				got := chosen[i*cfg.TopK:][:cfg.TopK]
				if !slices.EqualFunc(nonNegative(got), x, func(a int32, b int64) bool { return int64(a) == b }) {
					t.Fatalf("row and key head %d chose %v, want %v", i, got, x)
				}
			}
		}
	}
}

// nonNegative returns the numbers that are 0 or more.
func nonNegative[T int32 | int64](list []T) (out []T) {
	for _, x := range list {
		if x >= 0 {
			out = append(out, x)
		}
	}
	return out
}

// nsaPart is a call for some rows of a call, with a state.
func nsaPart(c *attention.Call, from, to int, st *NSAState) *attention.Call {
	a, o := st.op, c.Options.(*NSAOptions)
	p := (&nsaRequest{c.Dst, c.Q, c.K[0], c.V[0], o.Gates, o.Blocks, 0}).part(from, to, a.cfg.KVHeads*a.cfg.TopK)
	return &attention.Call{Dst: p.dst, Q: p.q, K: []blas32.General{p.k}, V: []blas32.General{p.v}, State: st, Workers: c.Workers, Options: &NSAOptions{Gates: p.gates, Blocks: p.blocks}}
}

func mustNSA(t testing.TB, cfg NSAConfig) *NSA {
	t.Helper()
	a, err := NewNSA(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustNSAState(t testing.TB, a *NSA, cfg NSAStateConfig) *NSAState {
	t.Helper()
	s, err := a.NewState(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
