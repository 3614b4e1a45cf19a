package cca

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/state"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention/cca", map[string]func(*testing.T, *golden.File){
		"attention.cca_decode":  goldenCCADecode,
		"attention.cca_prefill": goldenCCAPrefill,
	})
}

// fromHeads reads batch b of [batch, heads, rows, dim] as [rows, heads*dim].
func fromHeads(f *golden.File, name string, b int) (m blas32.General, heads int) {
	s := f.Shape(name)
	heads, rows, dim := s[1], s[2], s[3]
	m = general(make([]float32, rows*heads*dim), rows, heads*dim)
	data := f.Float32(name)
	for h := range heads {
		for i := range rows {
			copy(m.Data[i*m.Stride+h*dim:], data[((b*heads+h)*rows+i)*dim:][:dim])
		}
	}
	return m, heads
}

// toHeads appends rows of m, whose heads are each repeated, in the order
// [heads, rows, dim].
func toHeads(list []float32, m blas32.General, rows, heads, repeat int) []float32 {
	dim := m.Cols / heads
	for h := range heads * repeat {
		for i := range rows {
			list = append(list, m.Data[i*m.Stride+h/repeat*dim:][:dim]...)
		}
	}
	return list
}

// ccaConfig reads the shapes and options of a file.
func ccaConfig(t *testing.T, f *golden.File) Config {
	q, k, v := f.Shape("q"), f.Shape("k"), f.Shape("v")
	f.Sizes(map[string]int{"q_heads": q[1], "kv_heads": k[1], "head_dim": q[3], "seq_len": q[2]})
	return Config{
		Heads: q[1], KVHeads: k[1], HeadDim: q[3], ValueDim: v[3], Scale: f.Scale(),
		GroupSize: int(f.Number("group_size", 16)), Window: int(f.Number("window", 1024)),
	}
}

func mustCCA(t testing.TB, cfg Config) *CCA {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func goldenCCAPrefill(t *testing.T, f *golden.File) {
	batches, n := f.Shape("q")[0], f.Shape("q")[2]
	known := map[string]Pooling{"cca": PoolSignificance, "mean": PoolMean, "max": PoolMax}
	kinds := map[string]bool{}
	for _, name := range f.Names() {
		if name == "core_weights" {
			kinds["cca"] = true
		} else if i := strings.LastIndexByte(name, '_'); i >= 0 && (name[:i] == "out" || strings.HasPrefix(name, "core_")) {
			kinds[name[i+1:]] = true
		}
	}
	cfg := ccaConfig(t, f)
	for kind := range kinds {
		pooling, ok := known[kind]
		if !ok {
			t.Errorf("unknown pooling %s", kind)
			continue
		}
		cfg.Pooling = pooling
		c := mustCCA(t, cfg)
		var out, coreK, coreV, weights []float32
		for b := range batches {
			call := &flat{}
			call.Q, _ = fromHeads(f, "q", b)
			call.K, _ = fromHeads(f, "k", b)
			call.V, _ = fromHeads(f, "v", b)
			rows, kCols, vCols := c.CoreShape(n)
			call.Dst, call.CoreK, call.CoreV = zeroMatrix(n, cfg.Heads*cfg.ValueDim), zeroMatrix(rows, kCols), zeroMatrix(rows, vCols)
			if pooling == PoolSignificance {
				call.Weights = zeroMatrix(rows, cfg.Heads*cfg.GroupSize)
			}
			if err := call.run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			heads := c.coreHeads()
			out = toHeads(out, call.Dst, n, cfg.Heads, 1)
			coreK = toHeads(coreK, call.CoreK, rows, heads, cfg.Heads/heads)
			coreV = toHeads(coreV, call.CoreV, rows, heads, cfg.Heads/heads)
			if pooling == PoolSignificance {
				weights = toHeads(weights, call.Weights, rows, cfg.Heads, 1)
			}
		}
		for name, got := range map[string][]float32{"out_" + kind: out, "core_k_" + kind: coreK, "core_v_" + kind: coreV} {
			if f.Has(name) {
				f.Compare(name, got)
			}
		}
		if kind == "cca" && f.Has("core_weights") {
			f.Compare("core_weights", weights)
		}
	}
	if f.Has("mask") { // [query, cores then tokens]
		c := mustCCA(t, cfg)
		rows, _, _ := c.CoreShape(n)
		var mask []int64
		for i := range n {
			cores, at := c.coresOf(0, int64(i))
			from, to := c.Window(int64(i))
			for p := range int64(rows) {
				mask = append(mask, state.Bool(p >= cores && p < at))
			}
			for j := range int64(n) {
				mask = append(mask, state.Bool(j >= from && j < to))
			}
		}
		f.CompareInts("mask", mask)
	}
}

func goldenCCADecode(t *testing.T, f *golden.File) {
	batches, n := f.Shape("q")[0], f.Shape("q")[2]
	cfg := ccaConfig(t, f)
	c := mustCCA(t, cfg)
	prefill := int(f.Number("prefill_len", 0))
	f.Sizes(map[string]int{"decode_steps": n - prefill})
	random := rand.New(rand.NewPCG(1, 1))
	splits := map[string]func(at int) int{
		"as published": func(at int) int {
			if at < prefill {
				return prefill
			}
			return at + 1
		},
		"one by one":   func(at int) int { return at + 1 },
		"at random":    func(at int) int { return at + 1 + random.IntN(9) },
		"all together": func(int) int { return n },
	}
	for name, next := range splits {
		var out, coreK, coreV []float32
		cores, _, _ := c.CoreShape(n)
		for b := range batches {
			q, _ := fromHeads(f, "q", b)
			k, _ := fromHeads(f, "k", b)
			v, _ := fromHeads(f, "v", b)
			dst := zeroMatrix(n, cfg.Heads*cfg.ValueDim)
			s, err := c.NewState(StateConfig{})
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < n; {
				to := min(next(at), n)
				if err := c.Step(part(dst, at, to), part(q, at, to), part(k, at, to), part(v, at, to), s); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				at = to
			}
			ck, cv, ok := s.Cores(nil)[0].Float32()
			if !ok {
				t.Fatal("cores are not float32")
			}
			out = toHeads(out, dst, n, cfg.Heads, 1)
			coreK, coreV = toHeads(coreK, ck, cores, cfg.Heads, 1), toHeads(coreV, cv, cores, cfg.Heads, 1)
		}
		for name, got := range map[string][]float32{"out": out, "final_core_k": coreK, "final_core_v": coreV} {
			if f.Has(name) {
				f.Compare(name, got)
			}
		}
	}
}
