package kvcache

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

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
		for name, p := range map[string]Evictor{"knorm": Knorm{}, "keydiff": KeyDiff{}, "lagkv": LagKV{Lag: lag, Keep: &sinks}} {
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
		for _, r := range (Chunk{Length: length}).rows(o, norms, max(1, int(float64(chunks)*(1-ratio)))) {
			sets["chunk"] = append(sets["chunk"], int64(r))
		}
	}
	for name, x := range got {
		f.Compare("score_"+name, x)
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
			p.scoreHead(o, x, []blas32.General{w}, window)
			perHead = append(perHead, x[:past]...)
			rows := best(nil, x[:past], p.Budget-window)
			for _, r := range rows {
				keepHead = append(keepHead, int64(r))
			}
			k := o.Keys(h / o.group())
			order := slices.Clone(rows) // the published one, or by score
			slices.SortStableFunc(order, func(i, j int32) int { return cmp.Compare(x[j], x[i]) })
			for i := range f.Width("topk_order_perhead", 0) {
				order[i] = int32(f.Int64("topk_order_perhead")[(b*shape[1]+h)*len(rows)+i])
			}
			for _, r := range order {
				compressed = append(compressed, mat.Row(k, int(r))...)
			}
			for i := past; i < tokens; i++ {
				compressed = append(compressed, mat.Row(k, i)...)
			}
		}
		for g := range kv {
			p.scoreHead(o, x, weights[g*o.group():(g+1)*o.group()], window)
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
	f.Compare("score_perhead", perHead)
	f.Compare("score_gqa_mean", grouped)
	f.Compare("score_kvpress", press)
	f.Compare("score_h2o_kvpress_observed", observedScores)
	f.Compare("score_tova_kvpress", tova)
	sortedRows(t, f, "keep_idx_perhead", keepHead)
	sortedRows(t, f, "topk_order_perhead", keepHead)
	sortedRows(t, f, "keep_idx_gqa", keepGroup)
	f.Compare("k_compressed_perhead_topk_order", compressed)
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
	want, n := slices.Clone(f.Int64(name)), f.Width(name, 0)
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
	for c := 0; f.Has("q" + strconv.Itoa(c)); c++ {
		name := func(s string) string { return s + strconv.Itoa(c) }
		q, k := plain(f, name("q")), plain(f, name("k"))
		heads, kvHeads := f.Shape(name("q"))[0], f.Shape(name("k"))[0]
		a, err := AttentionRows(q, k, heads, kvHeads, float32(1/math.Sqrt(float64(q.Cols/heads))), question, tail)
		must(t, err)
		from := q.Rows - tail - question
		if c == 0 {
			weights, err = QuestionWeights(a, Run{From: from, To: from + question})
			must(t, err)
			f.Compare("question_weights", weights)
		}
		scores, err := p.Score(a, Run{From: prefix, To: from}, weights)
		must(t, err)
		if len(scores) != context && c == 0 {
			t.Errorf("%d tokens of context, want %d", len(scores), context)
		}
		f.Compare(name("token_scores"), scores)
		var bounds []int
		if f.Has(name("sentence_bounds")) {
			for _, x := range f.Int64(name("sentence_bounds")) {
				bounds = append(bounds, int(x))
			}
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
