package sparse

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/tile"
)

var nan = float32(math.NaN())

// blocksCase is a random call of Blocks, packed or not.
type blocksCase struct {
	cfg      BlocksConfig
	call     attention.Call
	choice   *Choice
	q, k     []int // offsets of the sequences
	at       []int64
	kv       [2]blas32.General
	weighted bool
}

func newBlocksCase(seed uint64) *blocksCase {
	r := rand.New(rand.NewPCG(seed, 5))
	kvHeads := 1 + r.IntN(2)
	x := &blocksCase{cfg: BlocksConfig{
		Heads: kvHeads * (1 + r.IntN(3)), KVHeads: kvHeads, HeadDim: 1 + r.IntN(40), ValueDim: 1 + r.IntN(40), Causal: r.IntN(3) > 0,
		QueryBlock: 1 + r.IntN(30), KeyBlock: 1 + r.IntN(40), Workers: 1 + r.IntN(3),
	}}
	if r.IntN(3) == 0 { // whole panels, which share steps
		x.cfg.KeyBlock = 32
	}
	x.q, x.k = []int{0}, []int{0}
	var queryBlocks, keyBlocks []int
	for range 1 + r.IntN(3) {
		n, m := r.IntN(70), r.IntN(120)
		x.q, x.k = append(x.q, x.q[len(x.q)-1]+n), append(x.k, x.k[len(x.k)-1]+m)
		x.at = append(x.at, int64(m-n))
		queryBlocks, keyBlocks = append(queryBlocks, ceil(n, x.cfg.QueryBlock)), append(keyBlocks, ceil(m, x.cfg.KeyBlock))
	}
	n, m := x.q[len(x.q)-1], x.k[len(x.k)-1]
	x.kv = [2]blas32.General{matrix(seed+1, m, kvHeads*x.cfg.HeadDim), matrix(seed+2, m, kvHeads*x.cfg.ValueDim)}
	x.call = attention.Call{
		Dst: mat.New(n, x.cfg.Heads*x.cfg.ValueDim), Q: matrix(seed, n, x.cfg.Heads*x.cfg.HeadDim), K: x.kv[:1], V: x.kv[1:],
		Offsets: x.q, KOffsets: x.k, LSE: mat.New(n, x.cfg.Heads),
	}
	if r.IntN(2) == 0 {
		x.weighted = true
		x.call.LogWeights = matrix(seed+3, m, []int{1, kvHeads}[r.IntN(2)])
		for i := range x.call.LogWeights.Data {
			if r.IntN(9) == 0 {
				x.call.LogWeights.Data[i] = tile.NegInf
			}
		}
	}
	if r.IntN(2) == 0 {
		first := int64(r.IntN(50)) - 20
		for s := range x.at {
			x.at[s] = int64(r.IntN(160)) - 40
			x.call.KeyPos = append(x.call.KeyPos, first)
			x.call.QueryPos = append(x.call.QueryPos, first+x.at[s])
		}
	}
	switch {
	case x.call.KeyPos != nil && r.IntN(3) == 0: // keys from 0 on
		for s := range x.at {
			x.at[s] = x.call.QueryPos[s]
		}
		x.call.KeyPos = nil
	case x.call.KeyPos != nil && r.IntN(3) == 0: // the queries are the last of the positions
		for s := range x.at {
			x.at[s] = int64(x.k[s+1] - x.k[s] - x.q[s+1] + x.q[s])
		}
		x.call.QueryPos = nil
	}
	x.choice = randomChoice(r, []int{1, kvHeads, x.cfg.Heads}[r.IntN(3)], queryBlocks, keyBlocks)
	x.call.Options = x.choice
	return x
}

// want is what the case's call should give, in float64.
func (x *blocksCase) want(scale float32) (out, lse [][]float64) {
	list := 0
	for s, at := range x.at {
		q, k, v := mat.Rows(x.call.Q, x.q[s], x.q[s+1]), mat.Rows(x.kv[0], x.k[s], x.k[s+1]), mat.Rows(x.kv[1], x.k[s], x.k[s+1])
		weight := func(g, j int) float64 {
			if !x.weighted {
				return 0
			}
			return float64(mat.Part(x.call.LogWeights, x.k[s]+j, min(g, x.call.LogWeights.Cols-1), 1)[0])
		}
		o, l := dense(q, k, v, x.cfg.Heads, x.cfg.KVHeads, scale, weight, func(h, i, j int) bool {
			if x.cfg.Causal && int64(j) > at+int64(i) {
				return false
			}
			n := list + i/x.cfg.QueryBlock*x.choice.Heads + h*x.choice.Heads/x.cfg.Heads
			for _, b := range x.choice.List(n) {
				if int(b) == j/x.cfg.KeyBlock {
					return true
				}
			}
			return false
		})
		out, lse = append(out, o...), append(lse, l...)
		list += ceil(q.Rows, x.cfg.QueryBlock) * x.choice.Heads
	}
	return out, lse
}

// TestBlocksOracle compares random calls, small tiles and large, with a mask in float64; what
// no query chose is NaN.
func TestBlocksOracle(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		seeds := uint64(150)
		if testing.Short() {
			seeds = 40
		}
		for seed := range seeds {
			x := newBlocksCase(10 * seed)
			end := func() {}
			if seed%2 == 0 {
				end = tile.Small()
			}
			b := mustBlocks(t, x.cfg)
			end()
			want, lse := x.want(b.cfg.Scale)
			x.poison()
			if err := b.Run(context.Background(), &x.call); err != nil {
				t.Fatal(err)
			}
			near(t, "dst", x.call.Dst, want, 2e-5)
			near(t, "LSE", x.call.LSE, lse, 2e-5)
		}
	})
}

// poison makes NaN of the keys and values that no query chose.
func (x *blocksCase) poison() {
	list := 0
	for s := range x.at {
		n := ceil(x.q[s+1]-x.q[s], x.cfg.QueryBlock) * x.choice.Heads
		chosen := map[int]bool{}
		for i := range n {
			for _, b := range x.choice.List(list + i) {
				chosen[int(b)] = true
			}
		}
		list += n
		for j := range x.k[s+1] - x.k[s] {
			if !chosen[j/x.cfg.KeyBlock] {
				for _, m := range x.kv {
					for c := range m.Cols {
						m.Data[(x.k[s]+j)*m.Stride+c] = nan
					}
				}
			}
		}
	}
}

// TestBlocksLarge crosses the borders of tiles, strips and rounds as they are, and compares with
// exact attention under a mask.
func TestBlocksLarge(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, x := range []BlocksConfig{
			{Heads: 4, KVHeads: 2, HeadDim: 8, Causal: true},
			{Heads: 2, HeadDim: 8, ValueDim: 4, QueryBlock: 300, KeyBlock: 700, Causal: true},
			{Heads: 2, KVHeads: 1, HeadDim: 4, QueryBlock: 64, KeyBlock: 64},
		} {
			b := mustBlocks(t, x)
			b.engine.perRound = 3 // rounds in fewer tokens
			cfg := b.cfg
			const n, m = 900, 1500
			q, k, v := matrix(1, n, cfg.Heads*cfg.HeadDim), matrix(2, m, cfg.KVHeads*cfg.HeadDim), matrix(3, m, cfg.KVHeads*cfg.ValueDim)
			v.Data[700*v.Stride] = nan // in a tile of its own kind
			choice := randomChoice(rand.New(rand.NewPCG(1, 1)), 1, []int{ceil(n, cfg.QueryBlock)}, []int{ceil(m, cfg.KeyBlock)})
			got, want := mat.New(n, cfg.Heads*cfg.ValueDim), mat.New(n, cfg.Heads*cfg.ValueDim)
			if err := b.Forward(got, q, k, v, choice); err != nil {
				t.Fatal(err)
			}
			mask := attention.MatrixMask{Queries: n, Keys: m, Seen: make([]bool, n*m)}
			for i := range n {
				for _, y := range choice.List(i / cfg.QueryBlock) {
					for j := int(y) * cfg.KeyBlock; j < min((int(y)+1)*cfg.KeyBlock, m); j++ {
						mask.Seen[i*m+j] = true
					}
				}
			}
			exact, err := attention.New(attention.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Causal: cfg.Causal})
			if err != nil {
				t.Fatal(err)
			}
			if err := exact.Run(context.Background(), &attention.Call{Dst: want, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Mask: mask}); err != nil {
				t.Fatal(err)
			}
			for i, w := range want.Data {
				if g := got.Data[i]; !(math.Abs(float64(g-w)) <= 1e-5*(1+math.Abs(float64(w)))) && (g == g || w == w) {
					t.Fatalf("%+v: element %d is %v, want %v", x, i, g, w)
				}
			}
		}
	})
}

// TestBlocksBits: neither workers nor neighbours in a batch change a bit.
func TestBlocksBits(t *testing.T) {
	for seed := range uint64(20) {
		x := newBlocksCase(10*seed + 3)
		end := tile.Small()
		b := mustBlocks(t, x.cfg)
		end()
		ctx := context.Background()
		run := func(c attention.Call, workers int) (out, lse []float32) {
			c.Dst, c.LSE, c.Workers = mat.New(c.Q.Rows, x.call.Dst.Cols), mat.New(c.Q.Rows, x.cfg.Heads), workers
			if err := b.Run(ctx, &c); err != nil {
				t.Fatal(err)
			}
			return c.Dst.Data, c.LSE.Data
		}
		out, lse := run(x.call, 1)
		again, sums := run(x.call, 5)
		sameBits(t, "with 5 workers", again, out)
		sameBits(t, "LSE with 5 workers", sums, lse)
		list := 0
		for s := range x.at {
			c := attention.Call{Q: mat.Rows(x.call.Q, x.q[s], x.q[s+1]), K: []blas32.General{mat.Rows(x.kv[0], x.k[s], x.k[s+1])}, V: []blas32.General{mat.Rows(x.kv[1], x.k[s], x.k[s+1])}}
			if x.weighted {
				c.LogWeights = mat.Rows(x.call.LogWeights, x.k[s], x.k[s+1])
			}
			if x.call.KeyPos != nil {
				c.KeyPos = x.call.KeyPos[s : s+1]
			}
			if x.call.QueryPos != nil {
				c.QueryPos = x.call.QueryPos[s : s+1]
			}
			n := ceil(c.Q.Rows, x.cfg.QueryBlock) * x.choice.Heads
			alone := &Choice{Heads: x.choice.Heads, Offsets: []int{0}}
			for i := range n {
				alone.Blocks = append(alone.Blocks, x.choice.List(list+i)...)
				alone.close()
			}
			list += n
			c.Options = alone
			one, _ := run(c, 2)
			sameBits(t, "a sequence alone", one, out[x.q[s]*x.call.Dst.Cols:x.q[s+1]*x.call.Dst.Cols])
		}
	}
}

func TestBlocksChoiceErrors(t *testing.T) {
	b := mustBlocks(t, BlocksConfig{Heads: 4, KVHeads: 2, HeadDim: 4, QueryBlock: 4, KeyBlock: 3})
	q, k, v, dst := matrix(1, 8, 16), matrix(2, 10, 8), matrix(3, 10, 8), mat.New(8, 16)
	for want, c := range map[string]*Choice{
		"nil":                {},
		"Heads is 3":         {Heads: 3, Offsets: []int{0, 0, 0, 0, 0, 0, 0}},
		"Heads is 0":         {Offsets: []int{0}},
		"one more than":      {Heads: 1, Offsets: []int{0, 0}},
		"goes from 1":        {Heads: 1, Offsets: []int{1, 1, 1}, Blocks: []int32{0}},
		"goes from 0 to 0":   {Heads: 1, Offsets: []int{0, 0, 0}, Blocks: []int32{0}},
		"runs from 2 to 1":   {Heads: 2, Offsets: []int{0, 2, 1, 3, 3}, Blocks: []int32{0, 1, 2}},
		"runs from 0 to -1":  {Heads: 1, Offsets: []int{0, -1, 1}, Blocks: []int32{0}},
		"runs from 0 to 2":   {Heads: 1, Offsets: []int{0, 2, 1}, Blocks: []int32{1}},
		"Blocks[1] is 4":     {Heads: 1, Offsets: []int{0, 1, 2}, Blocks: []int32{0, 4}},
		"Blocks[0] is -1":    {Heads: 1, Offsets: []int{0, 1, 2}, Blocks: []int32{-1, 3}},
		"Blocks[1] is 3 aga": {Heads: 1, Offsets: []int{0, 2, 2}, Blocks: []int32{3, 3}},
		"is 1 after 2":       {Heads: 1, Offsets: []int{0, 0, 2}, Blocks: []int32{2, 1}},
	} {
		if want == "nil" {
			c = nil
		}
		for i := range dst.Data {
			dst.Data[i] = 7
		}
		err := b.Forward(dst, q, k, v, c)
		if err == nil || !errors.Is(err, ErrCall) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		for _, x := range dst.Data {
			if x != 7 {
				t.Fatalf("%s: dst was written", want)
			}
		}
	}
}

// TestBlocksPrivate: the memory of a steady state, what is held, and no caller's data kept.
func TestBlocksPrivate(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			for _, n := range []int{1, 300, 2000} {
				b := mustBlocks(t, BlocksConfig{Heads: 4, KVHeads: 2, HeadDim: 24, ValueDim: 7, Causal: true, Workers: workers})
				b.engine.sizes.Alone = 1
				if n == 2000 {
					b.engine.perRound = 4
				}
				q, k, v, dst := matrix(1, n, 96), matrix(2, n, 48), matrix(3, n, 14), mat.New(n, 28)
				var choice Choice
				if err := b.Choose(&choice, Pattern{Window: 2, Keep: 1, Random: 1}, n, n); err != nil {
					t.Fatal(err)
				}
				forward := func() {
					if err := b.Forward(dst, q, k, v, &choice); err != nil {
						t.Fatal(err)
					}
				}
				forward()
				if x := isatest.Allocations(forward); x != 0 {
					t.Errorf("%d workers: %v allocations a call", workers, x)
				}
				held := isatest.Held(b.scratch.Get())
				if said := b.ScratchBytes(n, n); held > said || held < said/4 {
					t.Errorf("%d tokens: %d bytes, said %d", n, held, said)
				}
			}
		}
	})
}

// TestBlocksCancel: a done context gives its own error, before and in the middle.
func TestBlocksCancel(t *testing.T) {
	const n = 3000
	b := mustBlocks(t, BlocksConfig{Heads: 2, HeadDim: 16, Causal: true, QueryBlock: 16, KeyBlock: 16, Workers: 1})
	var choice Choice
	if err := b.Choose(&choice, Pattern{Share: 1}, n, n); err != nil {
		t.Fatal(err)
	}
	x := matrix(1, n, 32)
	c := &attention.Call{Dst: mat.New(n, 32), Q: x, K: []blas32.General{x}, V: []blas32.General{x}, Options: &choice}
	for after := range 12 {
		if testing.Short() && after%4 != 1 {
			continue
		}
		ctx := &ending{Context: context.Background(), after: after * after * after}
		if err := b.Run(ctx, c); err != context.Canceled {
			t.Errorf("after %d looks: %v", after, err)
		}
	}
}

// ending is a context that ends when it has been looked at so often.
type ending struct {
	context.Context
	after int
}

func (e *ending) Err() error {
	if e.after--; e.after < 0 {
		return context.Canceled
	}
	return nil
}

// FuzzChoice takes choices of any lists: an error, or what a mask gives.
func FuzzChoice(f *testing.F) {
	f.Add([]byte{0, 1, 3, 4, 4}, []byte{0, 0, 1, 2}, uint8(1), uint8(9), uint8(11))
	f.Add([]byte{0, 2, 1}, []byte{255, 3}, uint8(2), uint8(4), uint8(3))
	f.Fuzz(func(t *testing.T, offsets, blocks []byte, heads, queries, keys uint8) {
		b := mustBlocks(t, BlocksConfig{Heads: 2, HeadDim: 2, Causal: true, QueryBlock: 3, KeyBlock: 4, Workers: 1})
		c := &Choice{Heads: int(heads)}
		for _, x := range offsets {
			c.Offsets = append(c.Offsets, int(int8(x)))
		}
		for _, x := range blocks {
			c.Blocks = append(c.Blocks, int32(int8(x)))
		}
		n, m := int(queries), int(keys)
		q, k, v, dst := matrix(1, n, 4), matrix(2, m, 4), matrix(3, m, 4), mat.New(n, 4)
		if err := b.Forward(dst, q, k, v, c); err != nil {
			if !errors.Is(err, ErrCall) {
				t.Fatal(err)
			}
			return
		}
		want, _ := dense(q, k, v, 2, 2, b.cfg.Scale, func(int, int) float64 { return 0 }, func(h, i, j int) bool {
			for _, x := range c.List(i/3*c.Heads + h*c.Heads/2) {
				if int(x) == j/4 && j <= i+m-n {
					return true
				}
			}
			return false
		})
		near(t, "dst", dst, want, 2e-5)
	})
}
