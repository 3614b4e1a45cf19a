package subquad_test

import (
	"github.com/subquad/subquad/attention/layers"
)

func init() { rooms = append(rooms, layersRoom) }

func layersRoom(b *builder) {
	const dim, context, feature, hidden, interactions = 8, 5, 6, 4, 5
	fc := layers.FourierConfig{Dim: dim, Bins: 4, Frequencies: 2}
	fw := func() layers.FourierWeights { return layers.FourierWeights{Weight: matrix(6, dim), Bias: vector(6)} }
	head := must(layers.NewFourierHead(fc, fw()))
	b.add("layers.NewFourierHead", layers.NewFourierHead, func() []any { return []any{fc, fw()} })
	b.operator(operator{op: head, whole: func() any {
		return &layers.FourierCall{X: matrix(tokens, dim), Logits: matrix(tokens, 4), Probabilities: matrix(tokens, 4), Density: matrix(tokens, 4)}
	}})
	self := func() any { return head }
	b.on(self, "Distribution", func() []any { return []any{vector(dim)} })
	b.on(self, "Roughness", func() []any { return []any{matrix(tokens, dim)} })

	gc := layers.GatedConfig{Heads: 2, HeadDim: 4, ContextDim: context}
	gw := func() layers.GatedWeights {
		return layers.GatedWeights{Context: matrix(dim, context), ContextBias: vector(dim), Norm1: vector(dim), Norm1Bias: vector(dim), Norm2: vector(dim), Norm2Bias: vector(dim),
			Q: matrix(dim, dim), K: matrix(dim, dim), V: matrix(dim, dim), Out: matrix(dim, dim), OutBias: vector(dim),
			Up: matrix(8*dim, dim), UpBias: vector(8 * dim), Down: matrix(dim, 4*dim), DownBias: vector(dim), AlphaAttention: 1, AlphaDense: 1}
	}
	gated := must(layers.NewGated(gc, gw()))
	b.add("layers.NewGated", layers.NewGated, func() []any { return []any{gc, gw()} })
	call := func() *layers.GatedCall {
		return &layers.GatedCall{Dst: matrix(tokens, dim), X: matrix(tokens, dim), Objects: matrix(3, context)}
	}
	b.operator(operator{op: gated, whole: func() any { return call() }, packed: func() any {
		c := call()
		c.Offsets, c.ObjectOffsets = []int{0, 3, 3, tokens}, []int{0, 1, 2, 3}
		return c
	}})
	b.on(func() any { return gated }, "Ground", func() []any { return []any{matrix(3, context)} })

	mlp := func() layers.TokensMLP {
		return layers.TokensMLP{First: matrix(hidden, feature+16), FirstBias: vector(hidden), Second: matrix(hidden, hidden), SecondBias: vector(hidden), Third: matrix(dim, hidden), ThirdBias: vector(dim)}
	}
	tc := layers.TokensConfig{FeatureDim: feature, Dim: dim, Inner: hidden, MaxInteractions: interactions, Frequencies: 2}
	tw := func() layers.TokensWeights {
		return layers.TokensWeights{Things: mlp(), Actions: mlp(), NullThing: vector(feature), NullAction: vector(feature), NullBox: vector(16), Interactions: matrix(interactions, dim), Roles: matrix(3, dim)}
	}
	b.add("layers.NewTokens", layers.NewTokens, func() []any { return []any{tc, tw()} })
	b.operator(operator{op: must(layers.NewTokens(tc, tw())), whole: func() any {
		return &layers.TokensCall{Dst: matrix(3*interactions, dim), Subjects: matrix(interactions, feature), Actions: matrix(interactions, feature), Objects: matrix(interactions, feature),
			SubjectBoxes: matrix(interactions, 4), ObjectBoxes: matrix(interactions, 4), Masked: make([]bool, interactions), Interactions: interactions}
	}})

	const side, half, wide = 2, dim / 2, 12
	norm := func(n int) layers.BatchNorm {
		return layers.BatchNorm{Weight: vector(n), Bias: vector(n), Mean: vector(n), Variance: vector(n)}
	}
	sc := layers.StripConfig{Dim: dim, Side: side}
	sw := func() layers.StripWeights {
		return layers.StripWeights{Norm: norm(dim), Conv: matrix(dim, 9), Mix: layers.StripMixWeights{
			MLP: matrix(dim, dim), MLPBias: vector(dim), MLPNorm: norm(dim), PosH: matrix(2*side+1, half), PosW: matrix(2*side+1, half),
			ProjH: matrix(side, 3*side), ProjHBias: vector(side), ProjW: matrix(side, 3*side), ProjWBias: vector(side),
			FuseH: matrix(half, dim), FuseW: matrix(half, dim), Norm: norm(half), LocalH: matrix(half, 21), LocalW: matrix(half, 21),
			Reweight1: matrix(3, half), Reweight1Bias: vector(3), Reweight2: matrix(3*half, 3), Reweight2Bias: vector(3 * half), Fuse: matrix(dim, dim)},
			Conv7: matrix(dim, 49), LayerNorm: vector(dim), LayerNormBias: vector(dim), Up: matrix(wide, dim), UpBias: vector(wide), Down: matrix(dim, wide), DownBias: vector(dim),
			Gamma: vector(wide), Beta: vector(wide)}
	}
	b.add("layers.NewStrip", layers.NewStrip, func() []any { return []any{sc, sw()} })
	b.operator(operator{op: must(layers.NewStrip(sc, sw())), whole: func() any {
		return &layers.StripCall{Dst: matrix(3*side*side, dim), X: matrix(3*side*side, dim)}
	}})
}
