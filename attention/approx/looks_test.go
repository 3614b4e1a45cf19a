package approx

import (
	"context"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestLooks: calls whose tasks are large look at the context at least once in so many
// multiply-adds, end soon after it does, and leave a state where it was. Where there are many small
// tasks besides, the looks of a call that does less in as many tasks do not count.
func TestLooks(t *testing.T) {
	const most = 8 << 20
	group, wide := shape{32, 1, 64, 64}, shape{1, 1, 256, 256}
	n := 256
	if !testing.Short() {
		n = 1024
	}
	fixed := new(float32)
	performer := func(sh shape, features int, stable *float32) *Performer {
		return value[*Performer](t)(NewPerformer(PerformerConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, Features: features, Causal: true, Stabilizer: stable}))
	}
	nystrom := func(iterations int) *Nystrom {
		return value[*Nystrom](t)(NewNystrom(NystromConfig{Heads: 1, HeadDim: 16, Landmarks: 255, Iterations: iterations}))
	}
	mra := func(pairs int) *MRA2 {
		return value[*MRA2](t)(NewMRA2(MRA2Config{Heads: 1, HeadDim: 128, Block: 512, Pairs: pairs}))
	}
	isatest.Run(t, func(t *testing.T) {
		for _, c := range []struct {
			name  string
			shape shape
			op    attention.Operator
			rows  int
			work  int // multiply-adds, at least
			less  attention.Operator
		}{
			{"causal", group, value[*Linear](t)(NewLinear(LinearConfig{Heads: 32, KVHeads: 1, HeadDim: 64, Causal: true})), n, n * 32 * 3 * 64 * 64, nil},
			{"linear", group, value[*Linear](t)(NewLinear(LinearConfig{Heads: 32, KVHeads: 1, HeadDim: 64})), n, n * 33 * 64 * 64, nil},
			{"wide", wide, value[*Linear](t)(NewLinear(LinearConfig{Heads: 1, HeadDim: 256, Causal: true})), 4 * n, 8 * n * 256 * 256, nil},
			{"based", group, value[*Based](t)(NewBased(BasedConfig{Heads: 32, KVHeads: 1, HeadDim: 64})), 64, 64 * 33 * 2145 * 64, nil},
			{"performer", group, performer(group, 266, nil), n, n * 65 * 266 * 64, nil},
			{"performer stable", wide, performer(wide, 1419, fixed), n, 4 * n * 1419 * 256, nil},
			{"efficient", group, value[*Efficient](t)(NewEfficient(EfficientConfig{Heads: 32, KVHeads: 1, HeadDim: 64})), n, n * 33 * 64 * 64, nil},
			{"xca", group, value[*XCA](t)(NewXCA(XCAConfig{Heads: 32, KVHeads: 1, HeadDim: 64})), n, n * 64 * 64 * 64, nil},
			{"nystrom", shape{1, 1, 16, 16}, nystrom(6), 256, 5 * 4 * 255 * 255 * 255, nystrom(1)},
			{"linformer", wide, value[*Linformer](t)(NewLinformer(LinformerConfig{Heads: 1, HeadDim: 256, E: mat.New(128, 1024)})), 1024, 1024 * 128 * 512, nil},
			{"mra2", shape{1, 1, 128, 128}, mra(9), 1536, 6 * 512 * 512 * 256, mra(3)},
		} {
			call := randomCall(1, c.shape, c.rows, c.rows)
			call.Workers = 1
			var before *LinearState
			if f := featuredOf(c.op); f != nil && f.still == "" {
				call.State = value[*LinearState](t)(f.newState(StateConfig{}))
				before = call.State.Clone()
			}
			run := func(left int) (asked int, err error) {
				ctx := &statetest.Ending{Context: context.Background(), Left: left}
				err = c.op.Run(ctx, call.call())
				return ctx.Asked(), err
			}
			looks, err := run(1 << 30)
			if err != nil {
				t.Fatal(err)
			}
			fewer := 0
			if c.less != nil {
				ctx := &statetest.Ending{Context: context.Background(), Left: 1 << 30}
				if err := c.less.Run(ctx, call.call()); err != nil {
					t.Fatal(err)
				}
				fewer = ctx.Asked()
			}
			if want := c.work / most; looks-fewer < want {
				t.Errorf("%s: %d looks at the context, want %d", c.name, looks-fewer, want)
			}
			if before != nil {
				*call.State = *before.Clone()
			}
			for _, left := range []int{0, looks / 3, looks - 1} {
				if asked, err := run(left); err != context.Canceled || asked > left+8 {
					t.Errorf("%s: ended after %d looks of %d: error %v after %d", c.name, left, looks, err, asked)
				}
				if before != nil {
					sameBits(t, c.name, mat.Vector(call.State.values), mat.Vector(before.values))
				}
			}
		}
	})
}
