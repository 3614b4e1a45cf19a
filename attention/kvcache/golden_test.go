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
	width := f.Shape("keep_positions")[1]
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
			f.CompareGiven(name+way.name, out)
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
				held = append(held, padded(s.Positions(nil, g), f.Shape("keep_positions")[2])...)
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
	width := f.Shape("keep_positions_paper")[1]
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
		Select:   InfLLM{Block: number(f, "block", 0), Blocks: number(f, "topk", 0), Representatives: number(f, "repr_topk", 0)},
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
	width := f.Shape("sel_blocks_strict")[2]
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
	want := slices.Clone(f.Int64("block_repr_idx_strict"))
	r := index3(f.Shape("block_repr_idx_strict"))
	for i := 0; i < len(want); i += r {
		slices.Sort(want[i : i+r])
	}
	if !slices.Equal(want, ids) {
		t.Errorf("representatives %v, want %v", ids, want)
	}
	f.Ignore(func(name string) bool { return slices.Contains(officialInfLLM, name) })
}

func index3(shape []int) int { return shape[len(shape)-1] }

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

// observed shows keys and values [batch, heads, tokens, dim] of a sequence to a scorer.
func observed(f *golden.File, b int) *Observation {
	k, v := sequence(f, "k", b), sequence(f, "v", b)
	heads := f.Shape("k")[1]
	o := &Observation{cfg: &Config{Heads: heads, KVHeads: heads, HeadDim: k.Cols / heads, ValueDim: v.Cols / heads, Scale: float32(1 / math.Sqrt(float64(k.Cols/heads)))}}
	if f.Has("q") {
		o.Queries = sequence(f, "q", b)
		o.cfg.Heads = f.Shape("q")[1]
	}
	for h := range heads {
		o.keys = append(o.keys, mat.Columns(k, h*o.cfg.HeadDim, o.cfg.HeadDim))
		o.values = append(o.values, mat.Columns(v, h*o.cfg.ValueDim, o.cfg.ValueDim))
	}
	return o
}

// scoresOf runs a scorer on what a test shows it.
func scoresOf(t *testing.T, p Evictor, o *Observation) [][]float32 {
	t.Helper()
	list := make([][]float32, o.cfg.KVHeads)
	for g := range list {
		list[g] = make([]float32, o.Held(g))
	}
	must(t, p.score(list, o))
	return list
}

func goldenScorers(t *testing.T, f *golden.File) {
	shape := f.Shape("k")
	tokens := shape[2]
	ratio := f.Number("compression_ratio", 0)
	kept := int(float64(tokens) * (1 - ratio))
	lag, sinks := number(f, "lag_size", 0), number(f, "n_sink", 4)
	got := map[string][]float32{}
	sets := map[string][]int64{}
	for b := range shape[0] {
		o := observed(f, b)
		for name, p := range map[string]Evictor{"knorm": Knorm{}, "keydiff": KeyDiff{}, "lagkv": LagKV{Lag: lag, Sinks: &sinks}} {
			scores := scoresOf(t, p, o)
			for _, x := range scores {
				got[name] = append(got[name], x...)
				for _, r := range best(nil, x, kept) {
					sets[name] = append(sets[name], int64(r))
				}
			}
		}
		for range shape[1] {
			for i := range tokens { // what Config.Keep and Recent stand for
				got["streaming"] = append(got["streaming"], float32(bit(i < sinks || i >= sinks+tokens-kept)))
			}
		}
		norms := scoresOf(t, Knorm{}, o)
		keep := make([][]int32, shape[1])
		AdaKV{Evict: Knorm{}}.share(keep, o, norms, kept)
		for _, rows := range keep {
			mask := make([]int64, tokens)
			for _, r := range rows {
				mask[r] = 1
			}
			sets["ada"] = append(sets["ada"], mask...)
		}
		length := number(f, "chunk_length", 6)
		chunks := (tokens + length - 1) / length
		for _, r := range (Chunk{Length: length}).rows(norms, max(1, int(float64(chunks)*(1-ratio)))) {
			sets["chunk"] = append(sets["chunk"], int64(r))
		}
	}
	for name, x := range got {
		f.CompareGiven("score_"+name, x)
	}
	for name, tensor := range map[string]string{"knorm": "keep_knorm", "keydiff": "keep_keydiff", "lagkv": "keep_lagkv", "ada": "adakv_keep_mask", "chunk": "chunkkv_keep"} {
		if f.Has(tensor) {
			sortedRows(t, f, tensor, sets[name])
		}
	}
	for _, name := range f.Names() {
		var n, layers, capacity, window int
		if _, err := sscanf(name, "pyramid_budget_T%d_L%d", &n, &layers); err == nil {
			f.CompareInts(name, wide(PyramidShares(layers, n, ratio, number(f, "window_size", 8), number(f, "beta", 20))))
		} else if _, err := sscanf(name, "pyramid_budget_kvcachefactory_cap%d_w%d_L%d", &capacity, &window, &layers); err == nil {
			f.CompareInts(name, wide(PyramidBudgets(layers, number(f, "factory_tokens", 1<<20), capacity, window, number(f, "beta", 20))))
		}
	}
}

func goldenSnapKV(t *testing.T, f *golden.File) {
	shape, kv := f.Shape("q"), f.Shape("k")[1]
	tokens, window := shape[2], number(f, "window_size", 0)
	p := SnapKV{Budget: number(f, "max_capacity_prompt", 0), Window: window, Kernel: number(f, "kernel_size", 0)}
	if f.Meta("pooling") == "maxpool" {
		p.Pool = MaxPool
	}
	past := tokens - window
	var perHead, grouped, press, observedScores, tova, compressed []float32
	var keepHead, keepGroup []int64
	for b := range shape[0] {
		o := observed(f, b)
		weights := windowWeights(o, window)
		x := make([]float32, tokens)
		for h, w := range weights {
			p.scoreHead(x, []blas32.General{w}, window)
			perHead = append(perHead, x[:past]...)
			rows := best(nil, x[:past], p.Budget-window)
			for _, r := range rows {
				keepHead = append(keepHead, int64(r))
			}
			k := o.Keys(h / o.group())
			for i := range f.Shape("topk_order_perhead")[2] { // the published order
				r := f.Int64("topk_order_perhead")[(b*shape[1]+h)*len(rows)+i]
				compressed = append(compressed, mat.Row(k, int(r))...)
			}
			for i := past; i < tokens; i++ {
				compressed = append(compressed, mat.Row(k, i)...)
			}
		}
		for g := range kv {
			p.scoreHead(x, weights[g*o.group():(g+1)*o.group()], window)
			grouped = append(grouped, x[:past]...)
			for _, r := range best(nil, x[:past], p.Budget-window) {
				keepGroup = append(keepGroup, int64(r))
			}
		}
		after := p
		after.Pool, after.Group = AveragePool, GroupAfterPool
		for _, x := range scoresOf(t, after, o) {
			press = append(press, x...)
		}
		last := *o
		last.Queries = mat.Rows(o.Queries, tokens-1, tokens)
		for _, x := range scoresOf(t, TOVA{}, &last) {
			tova = append(tova, x...)
		}
		// ObservedAttention by way of a state.
		a := operator(t, Config{Heads: shape[1], KVHeads: kv, HeadDim: shape[3], Evict: ObservedAttention{Budget: tokens}, Chunk: 1 << 20})
		s := newState(t, a, StateConfig{})
		q := sequence(f, "q", b)
		stepRows(t, a, s, mat.New(tokens, shape[1]*shape[3]), q, sequence(f, "k", b), sequence(f, "v", b), 0, tokens)
		s.observe(&s.seen)
		for _, x := range scoresOf(t, ObservedAttention{}, &s.seen) {
			observedScores = append(observedScores, x...)
		}
	}
	// The published padding is one more than the largest score of the batch.
	for _, x := range [...][]float32{press, tova} {
		raise(x, tokens, past)
	}
	f.CompareGiven("score_perhead", perHead)
	f.CompareGiven("score_gqa_mean", grouped)
	f.CompareGiven("score_kvpress", press)
	f.CompareGiven("score_h2o_kvpress_observed", observedScores)
	f.CompareGiven("score_tova_kvpress", tova)
	sortedRows(t, f, "keep_idx_perhead", keepHead)
	sortedRows(t, f, "topk_order_perhead", keepHead)
	sortedRows(t, f, "keep_idx_gqa", keepGroup)
	f.CompareGiven("k_compressed_perhead_topk_order", compressed)
}

// raise sets what is scored above all others in rows of n, from past or the last on, to one
// more than the largest of the rest.
func raise(x []float32, n, past int) {
	top, padded := float32(0), []int{}
	for i, v := range x {
		if v > 1 && (i%n >= past) {
			padded = append(padded, i)
		} else {
			top = max(top, v)
		}
	}
	for _, i := range padded {
		x[i] = top + 1
	}
}

// sortedRows compares integers, each row of the last axis as a set.
func sortedRows(t *testing.T, f *golden.File, name string, got []int64) {
	t.Helper()
	if !f.Has(name) {
		return
	}
	want, n := slices.Clone(f.Int64(name)), index3(f.Shape(name))
	got = slices.Clone(got)
	if f.Type(name) == "BOOL" {
		n = 1
	}
	for i := 0; i+n <= len(want) && n > 0; i += n {
		slices.Sort(want[i : i+n])
	}
	for i := 0; i+n <= len(got) && n > 0; i += n {
		slices.Sort(got[i : i+n])
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", name, got, want)
	}
}

func goldenVerticalSlash(t *testing.T, f *golden.File) {
	shape := f.Shape("q")
	columns, near := number(f, "forced_vertical", 30), number(f, "forced_slash", 100)
	p := VerticalSlash{
		Heads: shape[1], KVHeads: f.Shape("k")[1], Last: number(f, "last_q", 0), Vertical: number(f, "vertical_size", 0), Slash: number(f, "slash_size", 0),
		FirstColumns: &columns, NearDiagonals: &near,
	}
	var out []float32
	var vertical, slash []int64
	for b := range shape[0] {
		q, k, v := sequence(f, "q", b), sequence(f, "k", b), sequence(f, "v", b)
		dst := mat.New(q.Rows, p.Heads*f.Shape("v")[3])
		must(t, p.Run(t.Context(), dst, q, k, v))
		out = byHead(out, dst, p.Heads)
		for h := range p.Heads {
			x, y, err := p.Choose(q, k, h)
			must(t, err)
			vertical, slash = append(vertical, padded(x, len(x))...), append(slash, padded(y, len(y))...)
		}
	}
	f.Compare("out", out)
	sortedRows(t, f, "vertical_idx", vertical)
	sortedRows(t, f, "slash_offset", slash)
}

func goldenInfiniRetri(t *testing.T, f *golden.File) {
	prefix, context := number(f, "prefix_tokens", 0), number(f, "context_tokens", 0)
	question, tail := number(f, "question_tokens", 0), number(f, "tail_tokens", 0)
	p := Sentences{Tokens: number(f, "topk", 0), Phrase: number(f, "phrase_token_num", 0)}
	var weights []float32
	for c := 0; f.Has("q" + string(rune('0'+c))); c++ {
		name := func(s string) string { return s + string(rune('0'+c)) }
		q, k := plain(f, name("q")), plain(f, name("k"))
		heads, kvHeads := f.Shape(name("q"))[0], f.Shape(name("k"))[0]
		a, err := AttentionRows(q, k, heads, kvHeads, float32(1/math.Sqrt(float64(q.Cols/heads))), question, tail)
		must(t, err)
		from := q.Rows - tail - question
		if c == 0 {
			weights, err = QuestionWeights(a, Run{from, from + question})
			must(t, err)
			f.Compare("question_weights", weights)
		}
		scores, err := p.Score(a, Run{prefix, from}, weights)
		must(t, err)
		if len(scores) != context && c == 0 {
			t.Errorf("%d tokens of context, want %d", len(scores), context)
		}
		f.Compare(name("token_scores"), scores)
		var bounds []int
		for _, x := range f.Int64(name("sentence_bounds")) {
			bounds = append(bounds, int(x))
		}
		tokens, sentences := p.Choose(scores, prefix, bounds)
		f.CompareInts(name("top_tokens"), wide(tokens))
		f.CompareInts(name("selected_sentences"), wide(sentences))
	}
}

// plain reads [heads, tokens, dim] as [tokens, heads*dim].
func plain(f *golden.File, name string) blas32.General {
	s := f.Shape(name)
	m, data := mat.New(s[1], s[0]*s[2]), f.Float32(name)
	for h := range s[0] {
		for i := range s[1] {
			copy(mat.Part(m, i, h*s[2], s[2]), data[(h*s[1]+i)*s[2]:][:s[2]])
		}
	}
	return m
}

func wide[T int | int32](list []T) []int64 { return padded(list, len(list)) }
