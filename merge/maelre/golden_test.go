package maelre

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/merge"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "merge/maelre", map[string]func(*testing.T, *golden.File){"merge.maelre": goldenEncoder})
}

// numbers reads a number, or several between brackets or cut by commas.
func numbers(t *testing.T, f *golden.File, key string) (list []float64) {
	t.Helper()
	for _, w := range strings.FieldsFunc(f.Meta(key), func(c rune) bool { return strings.ContainsRune("[](), ", c) }) {
		v, err := strconv.ParseFloat(w, 64)
		if err != nil {
			t.Fatalf("metadata %s is %q", key, f.Meta(key))
		}
		list = append(list, v)
	}
	return list
}

func goldenEncoder(t *testing.T, f *golden.File) {
	one := func(key string) int {
		t.Helper()
		list := numbers(t, f, key)
		if len(list) != 1 {
			t.Fatalf("metadata %s is %q", key, f.Meta(key))
		}
		return int(list[0])
	}
	d, heads, layers := one("D"), one("heads"), one("layers")
	window := one("local_k")
	f.Margin("min_similarity_gap")
	cfg := Config{Heads: heads, SwitchTokens: one("switch_N"), Ratios: numbers(t, f, "merge_ratio"), Eps: numbers(t, f, "ln_eps")[0]}
	if cfg.SwitchTokens == 0 { // there, exact for no tokens
		cfg.Approximate = func(int, int) bool { return true }
	}
	var err error
	switch f.Meta("approx") {
	case "efficient":
	case "linear_elu":
		cfg.Approximation, err = approx.NewLinear(approx.LinearConfig{Heads: heads, HeadDim: d / heads})
	default:
		t.Fatalf("approx is %q", f.Meta("approx"))
	}
	if err != nil {
		t.Fatal(err)
	}
	matching := merge.Config{}
	switch f.Meta("merge") {
	case "bsm":
		// The vectors' cap is the number of even tokens, which for odd numbers is one
		// more than ToMe's.
		if slices.Max(cfg.Ratios) > 0.5 {
			matching = merge.Config{Method: merge.Local, Window: max(f.Shape("x")[0], 1)}
		}
	case "local":
		matching = merge.Config{Method: merge.Local, Window: window}
	default:
		t.Fatalf("merge is %q", f.Meta("merge"))
	}
	if cfg.Matching, err = merge.New(matching); err != nil {
		t.Fatal(err)
	}
	m, err := read(f.Weights(func(name string) bool { return name != "x" && !strings.HasPrefix(name, "expected.") }), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if m.Layers() != layers || m.Dim() != d {
		t.Fatalf("%d layers of width %d, want %d of %d", m.Layers(), m.Dim(), layers, d)
	}
	f.Sizes(map[string]int{"N": f.Shape("x")[0], "mlp_hidden": f.Shape("blocks.0.fc1.weight")[0]})
	var modes []string
	var lens []int
	compare := func(name string, got []float32) {
		if f.Has(name) {
			f.Compare(name, got)
		}
	}
	pooled := mat.New(1, d)
	x := f.Float32("x")
	call := &Call{X: mat.Of(x, len(x)/d, d), Pooled: pooled, Observe: func(s Stage) {
		if s.Plan == nil {
			compare("expected.final", flat(s.X))
			return
		}
		lens = append(lens, s.X.Rows)
		modes = append(modes, map[bool]string{true: "approx", false: "exact"}[s.Approximated])
		if name := fmt.Sprintf("expected.token_map%d", s.Layer); f.Has(name) {
			var index []int64
			for _, j := range s.Plan.Map() {
				index = append(index, int64(j))
			}
			f.CompareInts(name, index)
		}
		compare(fmt.Sprintf("expected.size%d", s.Layer), s.Sizes)
		compare(fmt.Sprintf("expected.out%d", s.Layer), flat(s.X))
	}}
	if err := m.Run(context.Background(), call); err != nil {
		t.Fatal(err)
	}
	compare("expected.pooled", pooled.Data)
	f.CompareMeta("lens", lens)
	if want := f.Meta("modes"); want != "" && want != strings.Join(modes, ",") {
		t.Errorf("modes are %v, want %s", modes, want)
	}
}

func flat(m blas32.General) []float32 { return m.Data[:m.Rows*m.Cols] }
