package approx

import (
	"context"
	"fmt"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestLong compares with the formulas in float64 where tokens are more than a piece, keys more than
// a pass, and rows of blocks more than are compared at once; the largest keys stand at either end.
func TestLong(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		sh := shape{1, 1, 2, 3}
		rows := MRA2Config{Heads: 1, KVHeads: 1, HeadDim: 2, ValueDim: 3, Block: 1, PairsPerRow: 2, Sparse: true}
		all := append(operators(t, sh, 1), operator{name: "mra2 rows", self: true, shape: sh, run: value[*MRA2](t)(NewMRA2(rows)), oracle: mraOracle(rows)})
		for _, op := range all {
			queries, keys := 40, 1300
			if op.self {
				queries = keys
			}
			switch op.name {
			case "mra2 rows":
				queries, keys = 520, 520
			case "linear", "xca", "efficient", "performer", "performer causal", "linformer":
			default:
				continue
			}
			for _, rising := range []bool{false, true} {
				c := randomCall(1, op.shape, queries, keys)
				for j := range keys {
					size := float32(keys-j) / float32(keys)
					if rising {
						size = 1 - size
					}
					if op.name == "efficient" {
						size *= 60 // more than float32 has in exponents
					}
					times(mat.Rows(c.K, j, j+1), 3*size)
				}
				if err := op.run.Run(context.Background(), c.call()); err != nil {
					t.Fatal(err)
				}
				near(t, fmt.Sprintf("%s, the last keys the largest %v", op.name, rising), c.Dst, op.oracle(c, op.shape), 1e-4)
			}
		}
	})
}

// TestFoldedBatch: the sums of sequences that are done together are folded when they are alone, be
// the key heads one set or several.
func TestFoldedBatch(t *testing.T) {
	old := foldTokens
	defer func() { foldTokens = old }()
	foldTokens = 100
	for _, sh := range []shape{{2, 2, 4, 4}, {4, 2, 9, 70}} {
		l := value[*Linear](t)(NewLinear(LinearConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Causal: true}))
		const n, b = 260, 3
		c := randomCall(1, sh, b*n, b*n)
		c.Offsets = []int{0}
		var alone []*LinearState
		for i := range b {
			c.Offsets = append(c.Offsets, (i+1)*n)
			st := value[*LinearState](t)(l.NewState(StateConfig{}))
			before := randomCall(7, sh, 30*i, 30*i)
			before.State = st
			if err := l.Run(context.Background(), before.call()); err != nil {
				t.Fatal(err)
			}
			alone, c.States = append(alone, st), append(c.States, attention.Past(st.Clone()))
		}
		if err := l.Run(context.Background(), c.call()); err != nil {
			t.Fatal(err)
		}
		for i, st := range alone {
			one := stepCall(c, i*n, (i+1)*n, st)
			one.Dst = mat.New(n, c.Dst.Cols)
			if err := l.Run(context.Background(), one.call()); err != nil {
				t.Fatal(err)
			}
			together := c.States[i].(*LinearState)
			if st.folded == 0 || together.folded != st.folded || st.n-st.folded >= foldTokens+chunkRows {
				t.Errorf("%v, sequence %d: %d of %d tokens are folded, together %d", sh, i, st.folded, st.n, together.folded)
			}
			sameBits(t, "sums", mat.Vector(together.values), mat.Vector(st.values))
			sameBits(t, "results", mat.Rows(c.Dst, i*n, (i+1)*n), one.Dst)
		}
	}
}
