package catanet

import (
	"context"
	"errors"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// operators returns a call of each operator, and how much working memory it is said to take.
func operators(t *testing.T, workers int) map[string]struct {
	dst   blas32.General
	run   func(ctx context.Context, workers int) error
	empty func(ctx context.Context) error
	bytes int64
} {
	t.Helper()
	const n, h, w = 300, 12, 25
	x := random(1, n, 8)
	cfg := TABConfig{Dim: 8, QKDim: 4, Inner: 6, Heads: 2, Centers: 5, GroupSize: 16, Workers: workers}
	weights := tabWeights(cfg, true)
	tab, err := NewTAB(cfg, weights)
	must(t, err)
	lrsa, err := NewLRSA(LRSAConfig{Dim: 8, QKDim: 4, Inner: 6, Heads: 2, Window: 5, Workers: workers},
		LRSAWeights{Norm: weights.Norm, NormBias: weights.NormBias, Q: weights.Q, K: weights.K, V: weights.V, Out: weights.Out, FFN: weights.FFN})
	must(t, err)
	group, err := NewGroupAttention(GroupConfig{Heads: 2, HeadDim: 4, GroupSize: 16, Workers: workers})
	must(t, err)
	bucket := make([]int32, n)
	for i := range bucket {
		bucket[i] = int32(i % 3)
	}
	type call = struct {
		dst   blas32.General
		run   func(ctx context.Context, workers int) error
		empty func(ctx context.Context) error
		bytes int64
	}
	list := map[string]call{}
	for name, op := range map[string]interface {
		Run(context.Context, *ImageCall) error
		ScratchBytes(images, height, width int) int64
	}{"TAB": tab, "LRSA": lrsa} {
		dst := mat.New(n, 8)
		list[name] = call{dst, func(ctx context.Context, workers int) error {
			return op.Run(ctx, &ImageCall{Dst: dst, X: x, Height: h, Width: w, Workers: workers})
		}, func(ctx context.Context) error { return op.Run(ctx, nil) }, op.ScratchBytes(1, h, w)}
	}
	dst := mat.New(n, 8)
	list["GroupAttention"] = call{dst, func(ctx context.Context, workers int) error {
		return group.Run(ctx, &GroupCall{Dst: dst, Q: x, K: x, V: x, Bucket: bucket, Workers: workers})
	}, func(ctx context.Context) error { return group.Run(ctx, nil) }, group.ScratchBytes(n, 0)}
	if tab.Bytes() < 4*8*8 || lrsa.Bytes() < 4*8*8 {
		t.Errorf("the weights take %d and %d bytes", tab.Bytes(), lrsa.Bytes())
	}
	return list
}

// TestCalls: no context and no call are errors, a done one gives its own error, the
// workers of a call change no bit, and calls take no more memory than is said.
func TestCalls(t *testing.T) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	isatest.Run(t, func(t *testing.T) { callsOfOperators(t, done) })
}

func callsOfOperators(t *testing.T, done context.Context) {
	for name, c := range operators(t, 3) {
		took := allocated(func() { must(t, c.run(context.Background(), 3)) })
		if took > c.bytes || took < c.bytes/20 {
			t.Errorf("%s: a first call takes %d bytes, ScratchBytes is %d", name, took, c.bytes)
		}
		want := slices.Clone(c.dst.Data)
		for _, workers := range []int{0, 1, 5} {
			clear(c.dst.Data)
			must(t, c.run(context.Background(), workers))
			if !slices.Equal(c.dst.Data, want) {
				t.Errorf("%s: %d workers of the call change the result", name, workers)
			}
		}
		for what, err := range map[string]error{
			"ctx is nil": c.run(nil, 0), "call is nil": c.empty(context.Background()),
			"Workers -1": c.run(context.Background(), -1), "Workers 1<<30": c.run(context.Background(), 1<<30),
		} {
			if !errors.Is(err, ErrCall) {
				t.Errorf("%s: %s: error %v", name, what, err)
			}
		}
		for asked := 0; ; asked++ {
			err := c.run(&statetest.Ending{Context: context.Background(), Left: asked}, 1)
			if err == nil {
				break
			}
			if err != context.Canceled {
				t.Fatalf("%s: error %v of a context that is done after %d questions", name, err, asked)
			}
		}
		if err := c.run(done, 0); err != context.Canceled {
			t.Errorf("%s: error %v of a done context", name, err)
		}
	}
}
