package sparse

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/tile"
)

// reach fails the test unless the heads of dst that something reached are NaN, in one column at
// least, and the others what they were in base.
func reach(t *testing.T, what string, dst, base blas32.General, heads int, reached func(i, h int) bool) {
	t.Helper()
	d := dst.Cols / heads
	for i := range dst.Rows {
		for h := range heads {
			bad := false
			for c, x := range mat.Part(dst, i, h*d, d) {
				bad = bad || x != x || math.IsInf(float64(x), 0)
				w := mat.Part(base, i, h*d, d)[c]
				if !reached(i, h) && !(math.Abs(float64(x-w)) <= 1e-5*(1+math.Abs(float64(w)))) {
					t.Fatalf("%s reached query %d, head %d: %v in place of %v", what, i, h, x, w)
				}
			}
			if reached(i, h) && !bad {
				t.Fatalf("%s did not reach query %d, head %d", what, i, h)
			}
		}
	}
}

// TestReach puts a NaN or an Inf in the place of a query, key, value or gate of one head, in tiles
// large and small: it reaches the queries and heads that read it, and no others.
func TestReach(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		seeds := uint64(60)
		if testing.Short() {
			seeds = 16
		}
		for seed := range seeds {
			r := rand.New(rand.NewPCG(seed, 3))
			end := func() {}
			if seed%2 == 0 {
				end = tile.Small()
			}
			const heads, kv, d, dv = 4, 2, 5, 3
			n := 60 + r.IntN(60)
			q, k, v := matrix(seed, n, heads*d), matrix(seed+1, n, kv*d), matrix(seed+2, n, kv*dv)
			bad := []float32{nan, float32(math.Inf(1))}[r.IntN(2)]
			row, g, head := r.IntN([]int{n, n, 5}[r.IntN(3)]), r.IntN(kv), r.IntN(heads)
			mine := func(h int) bool { return h/(heads/kv) == g }
			at := func(m blas32.General, col int) blas32.General {
				x := mat.New(m.Rows, m.Cols)
				mat.Copy(x, m)
				mat.Row(x, row)[col] = bad
				return x
			}
			run := func(op attention.Operator, q, k, v blas32.General, options any) blas32.General {
				t.Helper()
				dst := mat.New(n, heads*dv)
				if err := op.Run(context.Background(), &attention.Call{Dst: dst, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Options: options}); err != nil {
					t.Fatal(err)
				}
				return dst
			}

			size := 1 + r.IntN(33)
			b := mustBlocks(t, BlocksConfig{Heads: heads, KVHeads: kv, HeadDim: d, ValueDim: dv, Causal: true, QueryBlock: 1 + r.IntN(20), KeyBlock: size})
			choice := randomChoice(r, heads, []int{ceil(n, b.cfg.QueryBlock)}, []int{ceil(n, size)})
			sees := func(i, h int) bool {
				for _, x := range choice.List(i/b.cfg.QueryBlock*heads + h) {
					if int(x) == row/size && mine(h) && row <= i {
						return true
					}
				}
				return false
			}
			base := run(b, q, k, v, choice)
			reach(t, "Blocks: a value", run(b, q, k, at(v, g*dv+1), choice), base, heads, sees)
			x := at(k, g*d)
			mat.Row(x, row)[g*d] = nan // whatever the sign of the query
			reach(t, "Blocks: a key", run(b, q, x, v, choice), base, heads, sees)
			any := func(i, h int) bool {
				for _, y := range choice.List(i/b.cfg.QueryBlock*heads + h) {
					if int(y)*size <= i {
						return i == row && h == head
					}
				}
				return false
			}
			y := at(q, head*d)
			mat.Row(y, row)[head*d] = nan
			reach(t, "Blocks: a query", run(b, y, k, v, choice), base, heads, any)

			m := mustMoBA(t, MoBAConfig{Heads: heads, KVHeads: kv, HeadDim: d, ValueDim: dv, Block: size, TopK: 2})
			chosen := mobaSees(&m.cfg, q, k)
			base = run(m, q, k, v, nil)
			reach(t, "MoBA: a value", run(m, q, k, at(v, g*dv+1), nil), base, heads, func(i, h int) bool { return mine(h) && chosen(h, i, row) })
			reach(t, "MoBA: a query", run(m, y, k, v, nil), base, heads, func(i, h int) bool { return i == row && h == head })
			far := blas32.General{Rows: min(n, (row/size+1)*size)} // where no query chose without the mean
			with := run(m, q, x, v, nil)
			reach(t, "MoBA: a key", mat.Rows(with, 0, far.Rows), mat.Rows(base, 0, far.Rows), heads, func(i, h int) bool { return mine(h) && i >= row })
			for i := far.Rows; i < n; i++ {
				for h := range heads {
					if x := mat.Part(with, i, h*dv, dv)[0]; (x != x) != (mine(h) && i/size < 2) {
						t.Fatalf("MoBA: the mean of a block with NaN: query %d, head %d is %v", i, h, x)
					}
				}
			}

			a := mustNSA(t, NSAConfig{Heads: heads, KVHeads: kv, HeadDim: d, ValueDim: dv, Block: 1 + r.IntN(9), TopK: 3, Window: 1 + r.IntN(20)})
			end()
			size = a.cfg.Block
			gate := matrix(seed+3, n, heads)
			o := &NSAOptions{Gates: Gates{gate, gate, gate}, Blocks: make([]int32, n*kv*3)}
			base = run(a, q, k, v, o)
			inWindow := func(i int) bool { return row <= i && row > i-a.cfg.Window }
			compressed := func(i int) bool { return (row/size+1)*size <= i+1 }
			selected := func(i, h int) bool {
				for _, x := range o.Blocks[(i*kv+h/(heads/kv))*3:][:3] {
					if int(x) == row/size && row <= i {
						return true
					}
				}
				return false
			}
			for name, z := range map[string]struct {
				gates Gates
				reads func(i, h int) bool
			}{
				"all":        {Gates{gate, gate, gate}, func(i, h int) bool { return inWindow(i) || compressed(i) || selected(i, h) }},
				"compressed": {Gates{Compressed: gate}, func(i, h int) bool { return compressed(i) }},
				"selected":   {Gates{Selected: gate}, selected},
				"window":     {Gates{Window: gate}, func(i, h int) bool { return inWindow(i) }},
			} {
				base := run(a, q, k, v, &NSAOptions{Gates: z.gates})
				got := run(a, q, k, at(v, g*dv+1), &NSAOptions{Gates: z.gates})
				reach(t, "NSA, "+name+": a value", got, base, heads, func(i, h int) bool { return mine(h) && z.reads(i, h) })
			}
			got := run(a, q, k, v, &NSAOptions{Gates: Gates{gate, at(gate, head), gate}})
			reach(t, "NSA: a gate", got, base, heads, func(i, h int) bool { return i == row && h == head })
			got = run(a, q, k, v, &NSAOptions{Gates: Gates{Compressed: at(gate, head), Window: gate}})
			steps, state := mat.New(n, heads*dv), mustNSAState(t, a, NSAStateConfig{})
			for i := range n {
				one := func(m blas32.General) blas32.General { return mat.Rows(m, i, i+1) }
				if err := a.Step(one(steps), one(q), one(k), one(v), Gates{Compressed: one(at(gate, head)), Window: one(gate)}, state); err != nil {
					t.Fatal(err)
				}
			}
			for name, x := range map[string]blas32.General{"whole": got, "steps": steps} {
				base := run(a, q, k, v, &NSAOptions{Gates: Gates{Compressed: gate, Window: gate}})
				reach(t, "NSA: a gate of compressed keys, "+name, x, base, heads, func(i, h int) bool { return i == row && h == head })
			}
			got = run(a, q, x, v, &NSAOptions{Gates: Gates{gate, gate, gate}})
			reach(t, "NSA: a key", mat.Rows(got, 0, row), mat.Rows(base, 0, row), heads, func(i, h int) bool { return false })
			reach(t, "NSA: a key of another head", mat.Columns(got, (1-g)*2*dv, 2*dv), mat.Columns(base, (1-g)*2*dv, 2*dv), 2, func(i, h int) bool { return false })
			got = run(a, y, k, v, &NSAOptions{Gates: Gates{Compressed: gate}})
			base = run(a, q, k, v, &NSAOptions{Gates: Gates{Compressed: gate}})
			reach(t, "NSA: a query", got, base, heads, func(i, h int) bool { return i == row && h == head && row+1 >= size })
		}
	})
}
