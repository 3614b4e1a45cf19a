package landmark

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/rope"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention/landmark", map[string]func(*testing.T, *golden.File){
		"attention.landmark_block":     goldenLandmarkBlock,
		"attention.landmark_retrieval": goldenLandmarkRetrieval,
		"attention.meta_tokens":        goldenMeta,
	})
}

func flags(f *golden.File, name string) []bool {
	list := []bool{}
	for _, x := range f.Int64(name) {
		list = append(list, x != 0)
	}
	return list
}

var decades = regexp.MustCompile(`theta_i=10\^\(-([0-9]+)\*2i/D\)`)

// goldenRotation is the one that the metadata rope tells of in words.
func goldenRotation(t *testing.T, f *golden.File, dim int) *rope.Config {
	t.Helper()
	text := f.Meta("rope")
	cfg := rope.Config{HeadDim: dim, Layout: rope.Half}
	if strings.Contains(text, "interleaved") {
		cfg.Layout = rope.Interleaved
	}
	theta := decades.FindStringSubmatch(text)
	if theta == nil {
		t.Fatalf("rope is %q", text)
	}
	cfg.Base = math.Pow(10, float64(theta[1][0]-'0'))
	return &cfg
}

// rotation turns interleaved pairs, base 10000.
func rotation(dim int) *rope.Config {
	return &rope.Config{HeadDim: dim, Layout: rope.Interleaved}
}

func mustRotation(t testing.TB, cfg *rope.Config) *rope.Rotation {
	t.Helper()
	r, err := rope.New(*cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustLandmark(t testing.TB, cfg Config) *Landmark {
	t.Helper()
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// landmarkInputs reads q, k and v and what they say of the Config.
func landmarkInputs(t *testing.T, f *golden.File, prefix string) (q, k, v blas32.General, cfg Config) {
	q, k, v, base := inputs(f, prefix)
	return q, k, v, Config{Heads: base.Heads, KVHeads: base.KVHeads, HeadDim: base.HeadDim, ValueDim: base.ValueDim, Scale: f.Scale(), Rotation: goldenRotation(t, f, base.HeadDim)}
}

func goldenLandmarkBlock(t *testing.T, f *golden.File) {
	q, k, v, cfg := landmarkInputs(t, f, "")
	is, n := flags(f, "is_landmark"), q.Rows
	if each := int(f.Number("mem_freq", 0)); each > 0 {
		for i, landmark := range is {
			if landmark != (i%(each+1) == each) {
				t.Fatalf("row %d of %v: want a landmark after each %d tokens", i, is, each)
			}
		}
	}
	forward := func(cfg Config, v blas32.General) blas32.General {
		out := zeroMatrix(n, cfg.Heads*cfg.ValueDim)
		if err := mustLandmark(t, cfg).Forward(out, q, k, v, is); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if f.Has("out") {
		f.Compare("out", forward(cfg, v).Data)
	}
	for name, x := range map[string]blas32.General{"q_rot": q, "k_rot": k} {
		if f.Has(name) {
			m := general(append([]float32(nil), x.Data...), x.Rows, x.Cols)
			if err := mustRotation(t, cfg.Rotation).Rotate(m, 0); err != nil {
				t.Fatal(err)
			}
			f.Compare(name, m.Data)
		}
	}
	switch {
	case f.Has("probs") && n > 0:
		// With the unit matrix for values the output is the weights.
		unit := zeroMatrix(n, cfg.KVHeads*n)
		for j := range n {
			for g := range cfg.KVHeads {
				unit.Data[j*unit.Stride+g*n+j] = 1
			}
		}
		cfg.ValueDim = n
		out := forward(cfg, unit)
		var probs []float32
		for h := range cfg.Heads {
			for i := range n {
				probs = append(probs, row(out, i)[h*n:][:n]...)
			}
		}
		f.Compare("probs", probs)
	case f.Has("probs"):
		f.Compare("probs", nil)
	}
}

func goldenLandmarkRetrieval(t *testing.T, f *golden.File) {
	selection, ok := map[string]Selection{"": PerTokenAndHead, "per_token_and_head": PerTokenAndHead, "max_over_heads": MaxOverHeads, "max_over_tokens": MaxOverTokens}[f.Meta("cache_selection_method")]
	if !ok {
		t.Fatalf("unknown cache_selection_method %q", f.Meta("cache_selection_method"))
	}
	var l *Landmark
	var s *State
	chunks := strings.FieldsFunc(f.Meta("chunks"), func(r rune) bool { return strings.ContainsRune("[], ", r) })
	for c, text := range chunks {
		prefix := fmt.Sprintf("c%d.", c)
		q, k, v, cfg := landmarkInputs(t, f, prefix)
		if l == nil {
			cfg.Block, cfg.TopK, cfg.Selection = int(f.Number("mem_cache_freq", 50)), int(f.Number("cache_topk", 4)), selection
			l = mustLandmark(t, cfg)
			var err error
			if s, err = l.NewState(StateConfig{MaxBlocks: int(f.Number("mem_cache_size", 0))}); err != nil {
				t.Fatal(err)
			}
		}
		is, landmarks := flags(f, prefix+"is_landmark"), 0
		for _, x := range is {
			if x {
				landmarks++
			}
		}
		if raw, err := strconv.Atoi(text); err != nil || raw+landmarks != q.Rows {
			t.Errorf("chunk %d has %d rows, %d landmarks among them, for %s tokens", c, q.Rows, landmarks, text)
		}
		if f.Has(prefix + "start_index") {
			f.CompareInts(prefix+"start_index", []int64{s.start()})
		}
		out := zeroMatrix(q.Rows, l.cfg.Heads*l.cfg.ValueDim)
		if err := l.Step(out, q, k, v, is, s); err != nil {
			t.Fatal(err)
		}
		if f.Has(prefix + "out") {
			f.Compare(prefix+"out", out.Data)
		}
	}
}

func goldenMeta(t *testing.T, f *golden.File) {
	q, k, v, base := inputs(f, "")
	m, err := NewMeta(MetaConfig{Heads: base.Heads, KVHeads: base.KVHeads, HeadDim: base.HeadDim, ValueDim: base.ValueDim, Scale: f.Scale()})
	if err != nil {
		t.Fatal(err)
	}
	out := zeroMatrix(q.Rows, base.Heads*base.ValueDim)
	for i := range out.Data {
		out.Data[i] = float32(math.NaN())
	}
	if err := m.Forward(out, q, k, v, flags(f, "is_meta")); err != nil {
		t.Fatal(err)
	}
	if f.Has("out") {
		f.Compare("out", out.Data, f.Strict())
	}
}
