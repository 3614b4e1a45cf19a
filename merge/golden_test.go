package merge

import (
	"context"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "merge", map[string]func(*testing.T, *golden.File){
		"merge.tome_bsm":         goldenBSM,
		"merge.tome_kth_random":  goldenKthRandom,
		"merge.tomesd2d":         goldenGrid,
		"merge.tome_parse_r":     goldenParseR,
		"merge.prop_attention":   goldenPropAttention,
		"merge.tome_block_stack": goldenBlockStack,
		"merge.local":            goldenLocal,
		"merge.pitome":           goldenPiToMe,
		"merge.route":            goldenRoute,
	})
}

// batch reads [batch, rows, columns].
func batch(f *golden.File, name string) (list []blas32.General) {
	s := f.Shape(name)
	data := f.Float32(name)
	for b := range s[0] {
		list = append(list, mat.Of(data[b*s[1]*s[2]:], s[1], s[2]))
	}
	return list
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newMatcher(t *testing.T, cfg Config) *Matcher {
	t.Helper()
	m, err := New(cfg)
	must(t, err)
	return m
}

// applied adds what a plan makes of x and sizes under the names of the files. Where the
// plan leaves a tail that the official code drops, only the first rows and tokens count.
func applied(t *testing.T, r *golden.Results, p *Plan, x, size blas32.General, rows, tokens int) {
	t.Helper()
	out, back := mat.New(p.Len(), x.Cols), mat.New(p.Tokens(), x.Cols)
	add := func(name string) {
		r.Add(name, mat.Of(out.Data, rows, x.Cols))
		must(t, p.Unmerge(back, out))
		r.Add("un"+map[string]string{"merged_mean": "merged_mean", "merged_sum": "merged_sum", "merged_amax": "merged_amax", "wavg_x": "merged_wavg", "wavg_nosize_x": "merged_nosize"}[name], mat.Of(back.Data, tokens, x.Cols))
	}
	must(t, p.Apply(out, x, Mean))
	add("merged_mean")
	must(t, p.Apply(out, x, Sum))
	add("merged_sum")
	must(t, p.Apply(out, x, Max))
	add("merged_amax")
	total := mat.New(p.Len(), 1)
	must(t, p.ApplyWeighted(out, x, total.Data, nil))
	add("wavg_nosize_x")
	r.Add("wavg_nosize_size", mat.Of(total.Data, rows, 1))
	if size.Data != nil {
		must(t, p.ApplyWeighted(out, x, total.Data, size.Data))
		add("wavg_x")
		r.Add("wavg_size", mat.Of(total.Data, rows, 1))
	}
	source := mat.New(p.Len(), p.Tokens())
	for t, j := range p.Map() {
		source.Data[int(j)*source.Stride+t] = 1
	}
	r.Add("source", mat.Of(source.Data, rows, p.Tokens()))
}

// intRow returns row b of an integer tensor [batch, n], or its only one.
func intRow(f *golden.File, name string, b int) []int64 {
	s, list := f.Shape(name), f.Int64(name)
	if len(s) == 1 {
		return list
	}
	return list[b*s[1]:][:s[1]]
}

func everyOther(n, from int) (list []int) {
	for t := from; t < n; t += 2 {
		list = append(list, t)
	}
	return list
}

// pairs compares src_idx and dst_idx, places in lists of sources and destinations, with
// what merged; without src_idx dst_idx is of all sources, where all says so. unm_idx are
// the places of those that did not, in their order.
func pairs(t *testing.T, f *golden.File, prefix string, r *golden.Results, p *Plan, b int, sources, destinations []int, all bool) {
	t.Helper()
	isSource, merged := map[int32]int64{}, map[int]int{}
	for i, s := range sources {
		isSource[int32(s)] = int64(i)
		if to := int(p.Kept()[p.Map()[s]]); to != s {
			merged[s] = to
		}
	}
	if r.Has("unm_idx") {
		var got []int64
		for _, k := range p.Kept() {
			if i, ok := isSource[k]; ok {
				got = append(got, i)
			}
		}
		r.AddInts("unm_idx", got)
	}
	var src []int
	switch {
	case r.Has("src_idx"):
		for _, i := range intRow(f, prefix+"src_idx", b) {
			src = append(src, sources[i])
		}
		if len(src) != len(merged) {
			t.Fatalf("%s: %d sources merged, want %d", prefix, len(merged), len(src))
		}
	case all:
		src = sources
	}
	for i, s := range src {
		to, ok := merged[s]
		if !ok {
			t.Fatalf("%s: source %d did not merge", prefix, s)
		}
		if r.Has("dst_idx") {
			if want := destinations[intRow(f, prefix+"dst_idx", b)[i]]; to != want {
				t.Fatalf("%s: source %d merged into %d, want %d", prefix, s, to, want)
			}
		}
	}
	if src == nil && r.Has("dst_idx") {
		want := intRow(f, prefix+"dst_idx", b)
		counts := map[int]int{}
		for _, to := range merged {
			counts[to]++
		}
		for _, i := range want {
			counts[destinations[i]]--
		}
		for to, n := range counts {
			if n != 0 {
				t.Fatalf("%s: %d more sources than wanted merged into %d", prefix, n, to)
			}
		}
	}
}

// optional reads a batch that a file may lack.
func optional(f *golden.File, name string, n int) []blas32.General {
	if !f.Has(name) {
		return make([]blas32.General, n)
	}
	return batch(f, name)
}

func goldenBSM(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		cfg := Config{Order: Published, ClassToken: e.Bool("class_token"), DistillToken: e.Bool("distill_token")}
		m, res := newMatcher(t, cfg), golden.NewResults(f, e.Prefix)
		metric, x := batch(f, e.Prefix+"metric"), batch(f, e.Prefix+"x")
		size := optional(f, e.Prefix+"size", len(metric))
		for b := range metric {
			var p Plan
			must(t, m.Run(context.Background(), &Call{Plan: &p, Metric: metric[b], R: e.Int("r", 0), AtMost: true}))
			applied(t, res, &p, x[b], size[b], p.Len(), p.Tokens())
			pairs(t, f, e.Prefix, res, &p, b, everyOther(p.Tokens(), 0), everyOther(p.Tokens(), 1), false)
		}
		s := f.Shape(e.Prefix + "metric")
		e.Sizes(map[string]int{"B": s[0], "T": s[1]})
		e.Done("seed")
		res.Compare()
	}
}

func goldenKthRandom(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		res := golden.NewResults(f, e.Prefix)
		metric, x := batch(f, e.Prefix+"metric"), batch(f, e.Prefix+"x")
		size := optional(f, e.Prefix+"size", len(metric))
		for b := range metric {
			var p Plan
			if k := e.Int("k", 0); k > 0 {
				m := newMatcher(t, Config{Method: KTh, Every: k, Order: Published})
				must(t, m.Run(context.Background(), &Call{Plan: &p, Metric: metric[b]}))
				var src, dst []int
				whole := p.Tokens() / k * k
				for t := range whole {
					if t%k == k-1 {
						dst = append(dst, t)
					} else {
						src = append(src, t)
					}
				}
				applied(t, res, &p, x[b], size[b], whole/k, whole)
				pairs(t, f, e.Prefix, res, &p, b, src, dst, true)
				continue
			}
			m := newMatcher(t, Config{Method: Given, Order: Published})
			c := Call{Plan: &p, Metric: metric[b], R: e.Int("r", 0), AtMost: true, Sources: tokens(f, e.Prefix+"a_idx", b), Destinations: tokens(f, e.Prefix+"b_idx", b)}
			must(t, m.Run(context.Background(), &c))
			applied(t, res, &p, x[b], size[b], p.Len(), p.Tokens())
			pairs(t, f, e.Prefix, res, &p, b, c.Sources, c.Destinations, true)
		}
		s := f.Shape(e.Prefix + "metric")
		e.Sizes(map[string]int{"B": s[0], "T": s[1]})
		e.Done("seed")
		res.Compare()
	}
}

func tokens(f *golden.File, name string, b int) (list []int) {
	for _, t := range intRow(f, name, b) {
		list = append(list, int(t))
	}
	return list
}

func ints(list []int32) (out []int) {
	for _, t := range list {
		out = append(out, int(t))
	}
	return out
}

func goldenGrid(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		res := golden.NewResults(f, e.Prefix)
		metric, x := batch(f, e.Prefix+"metric"), batch(f, e.Prefix+"x")
		size := optional(f, e.Prefix+"size", len(metric))
		random := e.Bool("rand")
		m := newMatcher(t, Config{Method: Given, Order: Published})
		if !random {
			m = newMatcher(t, Config{Method: Grid, Order: Published, Height: e.Int("h", 0), Width: e.Int("w", 0), CellHeight: e.Int("sy", 0), CellWidth: e.Int("sx", 0)})
		}
		for b := range metric {
			var p Plan
			var r matchRun
			c := Call{Plan: &p, Metric: metric[b], R: e.Int("r", 0), AtMost: true}
			if random {
				c.Sources, c.Destinations = tokens(f, e.Prefix+"a_idx", b), tokens(f, e.Prefix+"b_idx", b)
			}
			must(t, r.match(context.Background(), m, &c))
			src, dst := ints(r.src), ints(r.dst)
			if b == 0 {
				res.AddInts("a_idx", wide(src))
				res.AddInts("b_idx", wide(dst))
			}
			applied(t, res, &p, x[b], size[b], p.Len(), p.Tokens())
			pairs(t, f, e.Prefix, res, &p, b, src, dst, false)
		}
		e.Sizes(map[string]int{"B": len(metric)})
		if h, w := e.Int("h", 0), e.Int("w", 0); h*w != f.Shape(e.Prefix + "metric")[1] {
			t.Errorf("%s h=%d w=%d, the tensors have %d tokens", e.Prefix, h, w, f.Shape(e.Prefix + "metric")[1])
		}
		e.Done("seed", "sx", "sy") // a random choice of tokens has none
		res.Compare()
	}
}

func goldenLocal(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		res := golden.NewResults(f, e.Prefix)
		s := f.Shape(e.Prefix + "metric")
		metric := mat.Of(f.Float32(e.Prefix+"metric"), s[0], s[1])
		m := newMatcher(t, Config{Method: Local, Window: e.Int("k", 1)})
		var p Plan
		c := Call{Plan: &p, Metric: metric, R: e.Int("r", 0), AtMost: true}
		if e.Has("threshold") {
			c.Above = new(float32(e.Float("threshold", 0)))
		}
		c.Protect = make([]bool, s[0])
		for _, at := range e.Ints("protect") {
			c.Protect[at] = true
		}
		e.Sizes(map[string]int{"T": s[0]})
		e.Done("seed")
		var r matchRun
		must(t, r.match(context.Background(), m, &c))

		n := (s[0] + 1) / 2
		best, to := make([]float32, n), make([]int64, n)
		for i := range best {
			best[i], to[i] = -2, -1
		}
		for i, src := range r.from {
			if r.to[i] != none {
				best[src/2], to[src/2] = r.score[i], int64(r.cand[r.to[i]]/2)
			}
		}
		res.Add("best_score", mat.Of(best, n, 1))
		res.AddInts("best_dst", to)
		var src, index, kept []int64
		for t, j := range p.Map() {
			index = append(index, int64(j))
			if p.Kept()[j] != int32(t) {
				src = append(src, int64(t))
			}
		}
		for _, k := range p.Kept() {
			kept = append(kept, int64(k))
		}
		if f.Has(e.Prefix + "src_pos") {
			want := slices.Sorted(slices.Values(f.Int64(e.Prefix + "src_pos")))
			if !slices.Equal(src, want) {
				t.Errorf("%s sources %v, want %v", e.Prefix, src, want)
			}
		}
		res.AddInts("token_map", index)
		res.AddInts("keep_pos", kept)
		if f.Has(e.Prefix + "x") {
			xs := f.Shape(e.Prefix + "x")
			x := mat.Of(f.Float32(e.Prefix+"x"), xs[0], xs[1])
			out, back, total := mat.New(p.Len(), x.Cols), mat.New(p.Tokens(), x.Cols), mat.New(p.Len(), 1)
			var size []float32
			if f.Has(e.Prefix + "size") {
				size = f.Float32(e.Prefix + "size")
			}
			must(t, p.ApplyWeighted(out, x, total.Data, size))
			must(t, p.Unmerge(back, out))
			res.Add("merged", out)
			res.Add("merged_size", total)
			res.Add("unmerged", back)
		}
		res.Compare()
	}
}
