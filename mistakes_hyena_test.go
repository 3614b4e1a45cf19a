package subquad_test

import (
	"github.com/subquad/subquad/hyena"
)

func init() { rooms = append(rooms, hyenaRoom) }

func hyenaFilter() *hyena.Filter {
	return must(hyena.NewFilter(hyenaFilterConfig(), hyenaFilterWeights()))
}

func hyenaFilterConfig() hyena.FilterConfig {
	return hyena.FilterConfig{Channels: channels, MaxLen: 16, EmbDim: 3, Shift: new(0.05), FastDecay: 0.3, SlowDecay: 1.5, Target: 0.01}
}

func hyenaFilterWeights() hyena.FilterWeights {
	return hyena.FilterWeights{
		Layers: []hyena.FilterLayer{{Weight: matrix(4, 3), Bias: vector(4), Freq: vector(4)}, {Weight: matrix(4, 4), Bias: vector(4), Freq: vector(4)}},
		Output: matrix(channels, 4), Deltas: positive(channels),
	}
}

func hyenaRoom(b *builder) {
	cc := func() hyena.ConvConfig {
		return hyena.ConvConfig{Kernel: matrix(5, channels), Skip: vector(channels), Reverse: matrix(3, channels), SpectraBytes: 1 << 16, Scratch: new(hyena.Scratch)}
	}
	b.add("hyena.NewConv", hyena.NewConv, func() []any { return []any{cc()} }).free = []string{"cfg.Kernel.Rows"}
	b.operator(operator{op: must(hyena.NewConv(cc())), whole: func() any {
		return &hyena.ConvCall{Dst: matrix(tokens, channels), U: matrix(tokens, channels)}
	}})
	b.add("hyena.NewCache", hyena.NewCache, func() []any { return []any{int64(1 << 20)} })
	b.add("hyena.NewFilter", hyena.NewFilter, func() []any { return []any{hyenaFilterConfig(), hyenaFilterWeights()} })
	b.on(func() any { return hyenaFilter() }, "Kernel", func() []any { return []any{matrix(5, channels), 2} }).free = []string{"dst.Rows"}
	const dim = channels
	oc := hyena.OperatorConfig{Dim: dim, Order: 2, SpectraBytes: 1 << 16}
	ow := func() hyena.OperatorWeights {
		return hyena.OperatorWeights{
			In: matrix(3*dim, dim), InBias: vector(3 * dim), Short: matrix(3*dim, 3), ShortBias: vector(3 * dim), Filter: hyenaFilter(), Skip: vector(dim),
			Out: matrix(dim, dim), OutBias: vector(dim),
		}
	}
	b.add("hyena.NewOperator", hyena.NewOperator, func() []any { return []any{oc, ow()} }).free = []string{"w.Short.Cols"}
	b.operator(operator{op: must(hyena.NewOperator(oc, ow())), whole: func() any {
		return &hyena.OperatorCall{Dst: matrix(tokens, dim), X: matrix(tokens, dim)}
	}})
}
