package ssm

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkStep is a decoded token of one block, of the shapes of the models of 130
// million parameters, for one state and for several. "ctx" is the same with a context
// that can be cancelled, which should cost nothing.
func BenchmarkStep(b *testing.B) {
	const dim = 768
	for name, block := range map[string]Block{
		"mamba1": value[*Mamba](b)(NewMamba(MambaConfig{Workers: 1}, mambaWeights(dim, 2*dim, 16, 48, 4))),
		"mamba2": value[*Mamba2](b)(NewMamba2(Mamba2Config{Workers: 1}, mamba2Weights(dim, 0, 24, 64, 128, 1, 4))),
	} {
		for _, n := range []int{1, 8} {
			ended, cancel := context.WithCancel(context.Background())
			defer cancel()
			for what, ctx := range map[string]context.Context{"plain": context.Background(), "ctx": ended} {
				b.Run(fmt.Sprintf("%s/states=%d/%s", name, n, what), func(b *testing.B) {
					var states []*State
					for range n {
						states = append(states, value[*State](b)(block.NewState(StateConfig{})))
					}
					call := &BlockCall{Dst: zeros(n, dim), X: random(1, n, dim, 0.2, 0), States: states}
					must(b, block.Run(ctx, call))
					b.ReportAllocs()
					for b.Loop() {
						must(b, block.Run(ctx, call))
					}
					b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "tokens/s")
				})
			}
		}
	}
}
