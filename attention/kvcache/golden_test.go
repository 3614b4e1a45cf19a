package kvcache

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention/kvcache", map[string]func(*testing.T, *golden.File){
		"kvcache.h2o":                         goldenH2O,
		"kvcache.infiniretri":                 goldenInfiniRetri,
		"kvcache.infllm":                      goldenInfLLM,
		"kvcache.key_rerotation":              goldenRerotation,
		"kvcache.kvpress_scorers":             goldenScorers,
		"kvcache.longspec_tree":               goldenTree,
		"kvcache.minference_vslash":           goldenVerticalSlash,
		"kvcache.protocol_threads":            goldenThreads,
		"kvcache.quest":                       goldenQuest,
		"kvcache.retroinfer_zones":            goldenRetro,
		"kvcache.sink_window_prefill":         goldenSinkWindow,
		"kvcache.sirllm":                      goldenSirLLM,
		"kvcache.snapkv":                      goldenSnapKV,
		"kvcache.streamingllm":                goldenStreaming,
		"kvcache.tokenselect":                 goldenTokenSelect,
		"kvcache.tokenselect_selection_cache": goldenCached,
	})
}

// sequence reads batch b of [batch, heads, tokens, dim] as [tokens, heads*dim].
func sequence(f *golden.File, name string, b int) blas32.General {
	s := f.Shape(name)
	heads, rows, dim := s[1], s[2], s[3]
	m, data := mat.New(rows, heads*dim), f.Float32(name)
	for h := range heads {
		for i := range rows {
			copy(mat.Part(m, i, h*dim, dim), data[((b*heads+h)*rows+i)*dim:][:dim])
		}
	}
	return m
}

// byHead appends [tokens, heads*dim] in the order [heads, tokens, dim].
func byHead(list []float32, m blas32.General, heads int) []float32 {
	dim := m.Cols / heads
	for h := range heads {
		for i := range m.Rows {
			list = append(list, mat.Part(m, i, h*dim, dim)...)
		}
	}
	return list
}

func number(f *golden.File, key string, none int) int { return int(f.Number(key, float64(none))) }

func rotation(f *golden.File, dim int) *rope.Config {
	return &rope.Config{HeadDim: dim, Base: f.Number("rope_base", f.Number("base", 10000))}
}

func operator(t testing.TB, cfg Config) *Attention {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newState(t testing.TB, a *Attention, cfg StateConfig) *State {
	t.Helper()
	s, err := a.NewState(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stepRows gives a state rows from ... to of a sequence.
func stepRows(t testing.TB, a *Attention, s *State, dst, q, k, v blas32.General, from, to int) {
	t.Helper()
	must(t, a.Step(mat.Rows(dst, from, to), mat.Rows(q, from, to), mat.Rows(k, from, to), mat.Rows(v, from, to), s))
}

// padded returns numbers filled up to n with -1.
func padded[T int | int32 | int64](list []T, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = -1
		if i < len(list) {
			out[i] = int64(list[i])
		}
	}
	return out
}

func goldenStreaming(t *testing.T, f *golden.File) {
	q, k := f.Shape("q"), f.Shape("k")
	start, recent := number(f, "start_size", 0), number(f, "recent_size", 0)
	calls := f.Int64("calls")
	a := operator(t, Config{
		Heads: q[1], KVHeads: k[1], HeadDim: q[3], ValueDim: f.Shape("v")[3], Keep: start, Recent: recent,
		Evict: StreamingLLM{}, Rotation: rotation(f, q[3]), Positions: InCache, Chunk: 1 << 20,
	})
	var out []float32
	var held []int64
	width := f.Width("keep_positions", 0)
	for b := range q[0] {
		x, y, z := sequence(f, "q", b), sequence(f, "k", b), sequence(f, "v", b)
		dst := mat.New(x.Rows, a.cfg.Heads*a.cfg.ValueDim)
		s := newState(t, a, StateConfig{})
		at := 0
		for _, n := range calls {
			stepRows(t, a, s, dst, x, y, z, at, at+int(n))
			at += int(n)
			if b == 0 {
				held = append(held, padded(s.Positions(nil, 0), width)...)
			}
		}
		out = byHead(out, dst, a.cfg.Heads)
	}
	f.Compare("out", out)
	f.CompareInts("keep_positions", held)
}

func goldenSinkWindow(t *testing.T, f *golden.File) {
	q, k := f.Shape("q"), f.Shape("k")
	local, first := number(f, "n_local", 0), number(f, "n_init", 0)
	for _, way := range []struct {
		name      string
		positions Positions
		distance  int
	}{{"streamllm", FarInCache, local + first - 1}, {"lm_infinite", Far, local - 1}} {
		a := operator(t, Config{
			Heads: q[1], KVHeads: k[1], HeadDim: q[3], ValueDim: f.Shape("v")[3], Keep: first, Recent: local,
			Select: Window{}, Rotation: rotation(f, q[3]), Positions: way.positions, Distance: way.distance, Chunk: 1 << 20,
		})
		var out []float32
		for b := range q[0] {
			x, y, z := sequence(f, "q", b), sequence(f, "k", b), sequence(f, "v", b)
			dst := mat.New(x.Rows, a.cfg.Heads*a.cfg.ValueDim)
			s := newState(t, a, StateConfig{})
			at := 0
			for _, n := range f.Int64("calls") {
				stepRows(t, a, s, dst, x, y, z, at, at+int(n))
				at += int(n)
			}
			out = byHead(out, dst, a.cfg.Heads)
		}
		for _, name := range []string{"out_", "out_intended_"} {
			f.Compare(name+way.name, out)
		}
	}
}

func goldenH2O(t *testing.T, f *golden.File) {
	q := f.Shape("q")
	heads, tokens, dim := q[1], q[2], q[3]
	hh, recent, prefill := number(f, "hh_size", 0), number(f, "recent_size", 0), number(f, "prefill", 0)
	f.Sizes(map[string]int{"steps": tokens - prefill})
	a := operator(t, Config{Heads: heads, KVHeads: f.Shape("k")[1], HeadDim: dim, ValueDim: f.Shape("v")[3], Recent: recent, Evict: H2O{Budget: hh + recent}, Chunk: 1 << 20})
	var out, scores []float32
	var held []int64
	var mask []int64
	nan := float32(math.NaN())
	for b := range q[0] {
		x, y, z := sequence(f, "q", b), sequence(f, "k", b), sequence(f, "v", b)
		dst := mat.New(tokens, heads*a.cfg.ValueDim)
		s := newState(t, a, StateConfig{})
		for at := 0; at < tokens; {
			n := 1
			if at == 0 {
				n = prefill
			}
			stepRows(t, a, s, dst, x, y, z, at, at+n)
			at += n
			for g := range s.heads {
				held = append(held, padded(s.Positions(nil, g), f.Width("keep_positions", 0))...)
				list := slices.Clone(s.marks.mass[g])
				for len(list) < hh+recent {
					list = append(list, nan)
				}
				scores = append(scores, list...)
			}
		}
		out = byHead(out, dst, heads)
		for h := range heads {
			m := HeavyHitters(causalWeights(mat.Columns(x, h*dim, dim), mat.Columns(y, h*dim, dim), a.cfg.Scale), hh)
			for _, seen := range m.Seen {
				mask = append(mask, int64(bit(seen)))
			}
		}
	}
	f.Compare("out", out)
	f.CompareInts("keep_positions", held)
	compareWithNaN(t, f, "hh_scores", scores)
	f.CompareInts("local_heavy_hitter_mask", mask)
}

func bit(x bool) int {
	if x {
		return 1
	}
	return 0
}

// compareWithNaN is Compare where NaN is equal to NaN.
func compareWithNaN(t *testing.T, f *golden.File, name string, got []float32) {
	t.Helper()
	if !f.Has(name) {
		return
	}
	want, tol := f.Float64(name), f.Tolerance()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
	}
	for i, w := range want {
		if g := float64(got[i]); math.IsNaN(w) != math.IsNaN(g) || math.Abs(g-w) > tol.Abs+tol.Rel*math.Abs(w) {
			t.Fatalf("%s[%d] is %v, want %v", name, i, g, w)
		}
	}
}

func goldenSirLLM(t *testing.T, f *golden.File) {
	logits := f.Matrix("logits")
	ids := make([]int32, logits.Rows)
	for i, id := range f.Int64("token_ids") {
		ids[i] = int32(id)
	}
	decay := float32(f.Number("decay_ratio", 1))
	a := operator(t, Config{
		Heads: 1, HeadDim: 4, Keep: number(f, "start_size", 0), Recent: number(f, "recent_size", 0),
		Evict: SirLLM{Tokens: number(f, "token_entropy_size", 0), Decay: decay}, Positions: InCache, Chunk: 1 << 20,
	})
	f.Sizes(map[string]int{"cache_size": a.cfg.Evict.rule(&a.cfg).budget})
	s := newState(t, a, StateConfig{})
	width := max(f.Width("keep_positions_paper", 0), f.Width("entropy_paper", 0))
	var held []int64
	var entropy []float32
	at := 0
	x := mat.New(len(ids), 4)
	for _, r := range f.Int64("rounds") {
		n := int(r)
		surprise := make([]float32, n)
		must(t, SelfInformation(surprise, mat.Rows(logits, at, at+n), ids[at:at+n]))
		rows := mat.Rows(x, at, at+n)
		call := callOf(mat.New(n, 4), rows, rows, rows)
		call.State, call.Options = s, &Options{Importance: surprise}
		must(t, a.Run(t.Context(), call))
		at += n
		held = append(held, padded(s.Positions(nil, 0), width)...)
		list := slices.Clone(s.marks.importance[0])
		for len(list) < width {
			list = append(list, float32(math.NaN()))
		}
		entropy = append(entropy, list...)
	}
	f.CompareInts("keep_positions_paper", held)
	compareWithNaN(t, f, "entropy_paper", entropy)
	// What the published code makes of surprises that are another token's.
	f.Ignore(func(name string) bool { return name == "keep_positions_official" || name == "entropy_official" })
}

func goldenInfLLM(t *testing.T, f *golden.File) {
	q, k := f.Shape("q"), f.Shape("k")
	heads, dim := q[1], q[3]
	cfg := Config{
		Heads: heads, KVHeads: k[1], HeadDim: dim, ValueDim: f.Shape("v")[3], Keep: number(f, "n_init", 0), Recent: number(f, "n_local", 0),
		Select:   InfLLM{Block: number(f, "block", 0), TopK: number(f, "topk", 0), Representatives: number(f, "repr_topk", 0)},
		Rotation: rotation(f, dim), Positions: Far, Chunk: number(f, "exc", 0),
	}
	batch, kvHeads, repeat := q[0], k[1], 1
	f.Sizes(map[string]int{"B": batch, "H": heads, "Hkv": kvHeads, "D": dim})
	for i, n := range f.Numbers("chunks") {
		if n != float64(f.Int64("chunks")[i]) {
			t.Errorf("chunks %d is %v", i, n)
		}
	}
	perHead := f.Meta("perhead") == "True"
	if perHead { // every query head is a sequence of its own
		cfg.Heads, cfg.KVHeads, repeat = 1, 1, heads/kvHeads
		batch *= heads
	}
	a := operator(t, cfg)
	var out, keys, scores []float32
	var steps, ids []int64
	steps, blocks := nil, make([][]int64, batch)
	width := f.Width("sel_blocks_strict", 0)
	for b := range batch {
		var x, y, z blas32.General
		if perHead {
			x = mat.Columns(sequence(f, "q", b/heads), b%heads*dim, dim)
			y = mat.Columns(sequence(f, "k", b/heads), b%heads/repeat*dim, dim)
			z = mat.Columns(sequence(f, "v", b/heads), b%heads/repeat*a.cfg.ValueDim, a.cfg.ValueDim)
		} else {
			x, y, z = sequence(f, "q", b), sequence(f, "k", b), sequence(f, "v", b)
		}
		dst := mat.New(x.Rows, cfg.Heads*a.cfg.ValueDim)
		s := newState(t, a, StateConfig{})
		index := s.index.(*infIndex)
		index.made = func(_ int, list [][]float32, rows [][]int32) {
			for h := range list {
				scores = append(scores, list[h][:index.p.Block]...)
				slices.Sort(rows[h])
				for _, r := range rows[h] {
					ids = append(ids, int64(r))
				}
			}
		}
		at := 0
		for _, n := range f.Int64("chunks") {
			for end := at + int(n); at < end; {
				to := min(at+a.cfg.Chunk, end)
				stepRows(t, a, s, dst, x, y, z, at, to)
				if b == 0 {
					steps = append(steps, int64(at), int64(to))
				}
				blocks[b] = append(blocks[b], padded(index.chosen, width)...)
				at = to
			}
		}
		out = byHead(out, dst, cfg.Heads)
		keys = append(keys, index.keys...)
	}
	f.Compare("out_strict", out)
	f.CompareInts("step_start_end", steps)
	var chosen []int64 // [step, batch, topk]
	for i := 0; i < len(blocks[0]); i += width {
		for b := range blocks {
			chosen = append(chosen, blocks[b][i:i+width]...)
		}
	}
	f.CompareInts("sel_blocks_strict", chosen)
	f.Compare("block_repr_keys_strict", keys)
	f.Compare("block_token_scores_strict", scores)
	sortedRows(t, f, "block_repr_idx_strict", ids)
	f.Ignore(func(name string) bool { return slices.Contains(officialInfLLM, name) })
}

// officialInfLLM are what the published mask makes, which shows some tokens twice.
var officialInfLLM = []string{"out_official", "sel_blocks_official", "block_repr_keys_official", "block_token_scores_official", "block_repr_idx_official"}

func goldenRerotation(t *testing.T, f *golden.File) {
	shape := f.Shape("keys_rotated")
	r, err := rope.New(*rotation(f, shape[3]))
	must(t, err)
	keep := f.Int64("keep_idx")
	kept := f.Shape("keep_idx")[2]
	var out []float32
	for b := range shape[0] {
		x := sequence(f, "keys_rotated", b)
		for h := range shape[1] {
			from := keep[(b*shape[1]+h)*kept:][:kept]
			y := mat.New(kept, shape[3])
			for i, p := range from {
				copy(mat.Row(y, i), mat.Part(x, int(p), h*shape[3], shape[3]))
			}
			must(t, Rerotate(y, r, from))
			out = append(out, y.Data...)
		}
	}
	f.Compare("expected", out)
	f.Ignore(func(name string) bool { return name == "official_f32_angles" })
}
