package kvcache

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/needles"
	"github.com/subquad/subquad/internal/pack"
)

func sscanf(s, format string, args ...any) (int, error) { return fmt.Sscanf(s, format, args...) }

func callOf(dst, q, k, v blas32.General) *attention.Call {
	return &attention.Call{Dst: dst, Q: q, K: []blas32.General{k}, V: []blas32.General{v}}
}

// fill gives a state keys and values whose queries are of no interest.
func fill(t testing.TB, a *Attention, s *State, k, v blas32.General) {
	t.Helper()
	if k.Rows == 0 {
		return
	}
	must(t, a.Step(mat.New(k.Rows, a.cfg.Heads*a.cfg.ValueDim), mat.New(k.Rows, a.cfg.Heads*a.cfg.HeadDim), k, v, s))
}

func goldenTokenSelect(t *testing.T, f *golden.File) {
	q, heads := f.Heads("q")
	k, kvHeads := f.Heads("k") // in the order of the sequence
	v, _ := f.Heads("v")
	tokens := len(f.Int64("page_table")) // where the published code's pool has each token
	dim := q.Cols / heads
	p := TokenSelect{TopK: number(f, "top_k", 0), Kernel: max(0, number(f, "kernel_size", 0))}
	a := operator(t, Config{
		Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: v.Cols / kvHeads, Keep: number(f, "n_init", 0), Recent: number(f, "n_local", 0),
		Select: p, Rotation: rotation(f, dim), Positions: InCache, Chunk: q.Rows,
	})
	s := newState(t, a, StateConfig{})
	at := tokens - q.Rows
	fill(t, a, s, mat.Rows(k, 0, at), mat.Rows(v, 0, at))
	dst := mat.New(q.Rows, heads*a.cfg.ValueDim)
	r := new(run)
	inner := attention.Call{Dst: dst, Q: q}
	must(t, r.serve(t.Context(), a, inner, mat.Rows(k, at, tokens), mat.Rows(v, at, tokens), batchOf(s)))
	f.Compare("out_standard", dst.Data)
	var selected []int64
	for _, x := range r.runs[0] {
		for i := x.From; i < x.To; i++ {
			selected = append(selected, int64(i))
		}
	}
	f.CompareInts("selected_standard", selected)
	if len(r.sel.votes) > 0 {
		if len(r.sel.ids) > 0 { // most were ruled out without their votes
			r.ctx = t.Context()
			_, err := r.logVotes()
			must(t, err)
		}
		votes := make([]float32, r.sel.to-r.sel.from)
		for i := range votes {
			votes[i] = float32(math.Exp(float64(r.sel.votes[i])))
		}
		f.Compare("votes_standard", votes)
	}
	// The published kernel gives head h the keys of head h mod KVHeads.
	f.Ignore(func(name string) bool {
		return slices.Contains([]string{"votes_interleaved", "selected_interleaved", "out_interleaved"}, name)
	})
}

func goldenCached(t *testing.T, f *golden.File) {
	q, k := f.Matrix("q"), mat.Of(f.Float32("k"), f.Shape("k")[0], f.Shape("k")[1]*f.Shape("k")[2])
	dim := f.Shape("k")[2]
	first := number(f, "T0", 0)
	a := operator(t, Config{
		Heads: q.Cols / dim, KVHeads: f.Shape("k")[1], HeadDim: dim, Keep: number(f, "n_init", 0), Recent: number(f, "n_local", 0),
		Select: Cached{Select: TokenSelect{TopK: number(f, "top_k", 0)}, Similarity: f.Number("threshold", 0.9)},
		Dense:  first,
	})
	s := newState(t, a, StateConfig{})
	fill(t, a, s, mat.Rows(k, 0, first), mat.Rows(k, 0, first))
	width := f.Width("selected", 0)
	var selected, hits []int64
	var cosines []float32
	for i := range q.Rows {
		r := new(run)
		x := mat.Rows(k, first+i, first+i+1)
		must(t, r.serve(t.Context(), a, attention.Call{Dst: mat.New(1, q.Cols), Q: mat.Rows(q, i, i+1)}, x, x, batchOf(s)))
		var list []int
		for _, x := range r.runs[0] {
			for i := x.From; i < x.To; i++ {
				list = append(list, i)
			}
		}
		selected = append(selected, padded(list, width)...)
		c := s.index.(*cachedIndex)
		hits, cosines = append(hits, int64(bit(c.hit))), append(cosines, float32(c.cosine))
	}
	f.CompareInts("selected", selected)
	f.CompareInts("cache_hit", hits)
	compareWithNaN(t, f, "cosine", cosines)
}

func goldenQuest(t *testing.T, f *golden.File) {
	shape := f.Shape("q") // [1, heads, dim]
	heads, dim := shape[1], shape[2]
	q := mat.Of(f.Float32("q"), 1, heads*dim)
	k, kvHeads := f.Heads("k")
	v, _ := f.Heads("v")
	page, budget := number(f, "page_size", 0), number(f, "token_budget", 0)
	tokens := k.Rows
	for _, way := range []struct {
		eval      bool
		mask, out string
	}{{true, "eval_keep_mask", "out_eval"}, {false, "kernel_keep_mask", "out_kernel"}} {
		a := operator(t, Config{
			Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: v.Cols / kvHeads, Chunk: 1,
			Select: Quest{Page: page, Budget: budget, Group: Alone, RankLast: way.eval}, Dense: tokens - 1,
		})
		s := newState(t, a, StateConfig{})
		fill(t, a, s, mat.Rows(k, 0, tokens-1), mat.Rows(v, 0, tokens-1))
		dst := mat.New(1, heads*a.cfg.ValueDim)
		r := new(run)
		must(t, r.serve(t.Context(), a, attention.Call{Dst: dst, Q: q}, mat.Rows(k, tokens-1, tokens), mat.Rows(v, tokens-1, tokens), batchOf(s)))
		f.Compare(way.out, dst.Data)
		var mask, pages []int64
		for h := range heads {
			row := make([]int64, tokens)
			list := []Run{{From: 0, To: tokens}}
			if !r.choice.All {
				list = r.runs[min(h, len(r.runs)-1)]
			}
			for _, x := range list {
				for i := x.From; i < x.To; i++ {
					row[i] = 1
				}
			}
			mask = append(mask, row...)
			for p := 0; (p+1)*page < tokens; p++ {
				if row[p*page] == 1 {
					pages = append(pages, int64(p))
				}
			}
		}
		if f.Has(way.mask) {
			f.CompareInts(way.mask, mask)
		}
		if !way.eval {
			sortedRows(t, f, "kernel_pages", pages)
			must(t, s.index.(*questIndex).scan(r.again(a, s, q), (tokens+page-1)/page))
			f.Compare("upper_bound", r.sel.log[:heads*((tokens+page-1)/page)])
			var high, low []float32
			kc := whole(dim, a.tile.Unit())
			x := s.index.(*questIndex)
			for p := range (tokens + page - 1) / page {
				for g := range kvHeads {
					high = append(high, x.bounds[g][p*2*kc:][:dim]...)
					low = append(low, x.bounds[g][p*2*kc+kc:][:dim]...)
				}
			}
			f.Compare("page_max", high)
			f.Compare("page_min", low)
		}
	}
}

// again readies a run for another look at its last query.
func (r *run) again(a *Attention, s *State, q blas32.General) *run {
	r.op, r.ctx, r.state, r.q, r.qRaw, r.x, r.first = a, context.Background(), s, q, q, q.Rows, s.n-q.Rows
	return r
}

func goldenRetro(t *testing.T, f *golden.File) {
	q, k, v := f.Matrix("q"), f.Matrix("k"), f.Matrix("v")
	first, end := number(f, "static_start", 0), number(f, "static_end", 0)
	p := RetroInfer{clusters: number(f, "n_retrieve", 0), estimates: number(f, "n_estimate", 0), Segment: 1 << 20}
	a := operator(t, Config{Heads: q.Rows, KVHeads: 1, HeadDim: q.Cols, ValueDim: v.Cols, Keep: first, Recent: end, Select: p})
	s := newState(t, a, StateConfig{})
	tokens := k.Rows
	fill(t, a, s, mat.Rows(k, 0, tokens-1), mat.Rows(v, 0, tokens-1))
	x := s.index.(*retroIndex)
	var of []int32
	for _, c := range f.Int64("assign") {
		of = append(of, int32(c))
	}
	centroids := centroidsOf(f, k, of, first)
	x.done = len(of)
	x.heads[0].add(of, centroids, mat.Rows(v, first, first+len(of)))
	f.Compare("value_sum", x.heads[0].values)
	var sizes []int64
	for _, size := range x.heads[0].size {
		sizes = append(sizes, int64(size))
	}
	f.CompareInts("cluster_size", sizes)
	dst := mat.New(1, q.Rows*v.Cols)
	r := new(run)
	must(t, r.serve(t.Context(), a, attention.Call{Dst: dst, Q: mat.Of(q.Data, 1, q.Rows*q.Cols)}, mat.Rows(k, tokens-1, tokens), mat.Rows(v, tokens-1, tokens), batchOf(s)))
	f.Compare("out", dst.Data)
	f.CompareInts("rank", wide(x.ranked[0]))
	var exact []int64
	for _, x := range r.runs[0] {
		for i := x.From; i < x.To; i++ {
			exact = append(exact, int64(i))
		}
	}
	sortedRows(t, f, "exact_idx", exact)
}

// centroidsOf returns the centroids of a file, the means of their keys where it lacks them.
func centroidsOf(f *golden.File, k blas32.General, of []int32, first int) blas32.General {
	if f.Has("centroids") {
		s := f.Shape("centroids")
		return mat.Of(f.Float32("centroids"), s[0], s[1])
	}
	n := f.Width("cluster_size", int(slices.Max(of))+1)
	if f.Has("value_sum") {
		n = f.Shape("value_sum")[0]
	}
	sizes := make([]float32, n)
	for _, c := range of {
		sizes[c]++
	}
	centroids := mat.New(n, k.Cols)
	for i, c := range of {
		for d, x := range mat.Row(k, first+i) {
			mat.Row(centroids, int(c))[d] += x / sizes[c]
		}
	}
	return centroids
}

func batchOf(s *State) pack.Batch[*State] { return pack.Batch[*State]{State: s} }

func goldenThreads(t *testing.T, f *golden.File) {
	cfg := needles.Config{
		Seed: uint64(f.Number("seed", 0)), Tokens: number(f, "N", 0), Dim: number(f, "D", 0), Group: number(f, "G", 0), Sigma: f.Number("sigma", 0), Mass: f.Number("mass", 0),
		Threads: number(f, "threads", 0), Hops: number(f, "hops", 0), Width: number(f, "width", 0), Topic: f.Number("topic", 0), Segment: number(f, "seg", 64), RetrievalHeads: number(f, "retrieval_heads", 0),
	}
	text := needles.New(cfg)
	k, v := mat.New(cfg.Tokens, cfg.Dim), mat.New(cfg.Tokens, cfg.Dim)
	text.Fill(k, v, 0)
	exact := golden.Tolerance{Abs: 2e-6, Rel: 1e-6}
	f.Compare("K", k.Data, exact)
	f.Compare("V", v.Data, exact)
	var codes []float64
	for _, c := range text.Codes {
		codes = append(codes, c...)
	}
	f.Compare64("code", codes, exact)
	if c := f.Number("cos_c", 0); math.Abs(c-text.Cosine) > 1e-6 {
		t.Errorf("cosine %v, want %v", text.Cosine, c)
	}
	var positions []int64
	for _, thread := range text.Positions {
		for _, p := range thread {
			for w := range cfg.Width {
				positions = append(positions, int64(p+w))
			}
		}
	}
	f.CompareInts("needle_positions", positions)
	n := cfg.Threads * cfg.Hops
	queries := mat.New(n, cfg.Group*cfg.Dim)
	for i := range n {
		text.Query(mat.Row(queries, i), i)
	}
	f.Compare("queries", queries.Data, exact)

	// What policies find: the state reads everything, then a budget of tokens.
	shape := Config{Heads: cfg.Group, KVHeads: 1, HeadDim: cfg.Dim, Dense: cfg.Tokens}
	budget, page := number(f, "budget", 0), number(f, "quest_page", 16)
	found := map[string]*[]int64{}
	for _, way := range []struct {
		name, recall string
		p            Selector
	}{
		{"", "", nil},
		{"topk_tokenselect_votes", "recall_tokenselect", TokenSelect{TopK: budget}},
		{"quest_tokens", "recall_quest", Quest{Page: page, Budget: budget, RankLast: true}},
	} {
		shape.Select = way.p
		a := operator(t, shape)
		s := newState(t, a, StateConfig{})
		fill(t, a, s, k, v)
		var out []float32
		var decoded, list []int64
		right := 0
		for i := range n {
			dst := make([]float32, cfg.Group*cfg.Dim)
			r := new(run)
			r.op, r.ctx, r.state, r.x, r.first = a, t.Context(), s, 1, s.n
			r.q, r.dst = mat.Of(mat.Row(queries, i), 1, cfg.Group*cfg.Dim), mat.Of(dst, 1, cfg.Group*cfg.Dim)
			r.qRaw, r.attend, r.scan = r.q, r.attendTask, r.scanTask
			r.choice.All, r.tail = true, s.n
			if s.index != nil {
				must(t, s.index.choose(r))
				r.tail = s.n
			}
			must(t, r.readChosen(s))
			var rows []int64
			for _, x := range r.runs[0] {
				for j := x.From; j < x.To; j++ {
					rows = append(rows, int64(j))
				}
			}
			if x, ok := s.index.(*questIndex); ok { // the protocol ranks all pages alike
				pages := cfg.Tokens / page
				must(t, x.scan(r, pages))
				r.sel.from, r.sel.to, rows = 0, pages, nil
				for _, p := range r.pickTop(r.groupScores(0, GroupSum), budget/page) {
					for j := range page {
						rows = append(rows, int64(int(p)*page+j))
					}
				}
			}
			list = append(list, rows...)
			thread, hop := i/cfg.Hops, i%cfg.Hops
			if _, ok := slices.BinarySearch(rows, int64(text.Positions[thread][hop])); ok {
				right++
			}
			out = append(out, dst...)
			decoded = append(decoded, int64(text.Decode(dst)))
			if way.name == "" {
				// The largest sums of exact weights over heads.
				sums := make([]float32, cfg.Tokens)
				for g := range cfg.Group {
					p := causalWeights(mat.Columns(r.q, g*cfg.Dim, cfg.Dim), k, a.cfg.Scale)
					for j, x := range mat.Row(p, 0) {
						sums[j] += x
					}
				}
				top := best(nil, sums, budget)
				if found["top"] == nil {
					found["top"] = new([]int64)
				}
				*found["top"] = append(*found["top"], wide(top)...)
			}
		}
		if way.name == "" {
			if all := float64(right) / float64(n); all < f.Number("recall_topk", 1) {
				t.Errorf("everything has %v of the needles", all)
			}
			f.Compare("exact_out", out)
			f.CompareInts("decoded_code", decoded)
			f.CompareInts("topk_summed_attention", *found["top"])
			continue
		}
		f.CompareInts(way.name, list)
		if got, want := float64(right)/float64(n), f.Number(way.recall, 0); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s is %v, want %v", way.recall, got, want)
		}
	}
	var bits []int64
	var normals []float64
	for i := range uint64(f.Width("prng_u64", 0)) {
		bits = append(bits, int64(needles.Uint64(cfg.Seed, 1, i)))
	}
	for i := range uint64(f.Width("prng_normal", 0)) {
		normals = append(normals, needles.Normal(cfg.Seed, 1, i))
	}
	f.CompareInts("prng_u64", bits)
	f.Compare64("prng_normal", normals)
}
