package subquad_test

import (
	"io"

	"github.com/subquad/subquad/rope"
)

func init() { rooms = append(rooms, ropeRoom, schemeRoom) }

// schemes are one of each kind, with numbers in all fields that go together.
func schemes() map[string]rope.Scheme {
	return map[string]rope.Scheme{
		"linear": rope.Linear{Factor: 2}, "ntk": rope.NTK{Factor: 2}, "dynamic ntk": rope.DynamicNTK{Factor: 2, MaxPosition: 16}, "dynamic linear": rope.DynamicLinear{MaxPosition: 16},
		"riflex": rope.RIFLEx{K: 2, Length: 16}, "proportional": rope.Proportional{Fraction: 0.5, Factor: 2}, "custom": rope.Custom{Frequencies: []float64{1, 0.5, 0.2, 0.1}, Factor: 1},
		"llama3":   rope.Llama3{Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, Original: 64},
		"longrope": rope.LongRoPE{Short: []float64{1, 1, 1, 1}, Long: []float64{1, 2, 3, 4}, Original: 16, Factor: 4, AttentionFactor: 1},
		"giraffe":  rope.Giraffe{Scale: 4, Power: 0.1}, "by parts": rope.NTKByParts{Factor: 4, Original: 16, NTKFactor: new(1.0), ExtrapolationFactor: new(1.0)},
		"yarn": rope.YaRN{Factor: 4, Original: 16, BetaFast: 32, BetaSlow: 1, MScale: 1, MScaleAllDim: 1, ExtrapolationFactor: new(1.0)},
	}
}

func schemeRoom(b *builder) {
	for name, s := range schemes() {
		s := s
		b.add("rope.New", rope.New, func() []any {
			return []any{rope.Config{HeadDim: headDim, Base: 1e4, Scheme: schemes()[name], Length: 32}}
		}).call = name
		b.add("rope.NewSchedule", rope.NewSchedule, func() []any { return []any{rope.Config{HeadDim: headDim, Scheme: s}, rope.Fixed} }).call = name
	}
}

func ropeRoom(b *builder) {
	plain := must(rope.New(rope.Config{HeadDim: headDim, RotaryDim: 6, Offset: 1}))
	self := func() any { return plain }
	b.add("rope.New", rope.New, func() []any {
		return []any{rope.Config{HeadDim: headDim, RotaryDim: 6, Offset: 1, XPos: &rope.XPos{ScaleBase: 512}}}
	}).call = "xpos"
	b.add("rope.New", rope.New, func() []any {
		return []any{rope.Config{HeadDim: headDim, Axes: []rope.Axis{{Dim: 4, Base: 100}, {Dim: 4, Scheme: rope.Linear{Factor: 2}}}}}
	}).call = "axes"
	b.add("rope.New", rope.New, func() []any {
		return []any{rope.Config{HeadDim: headDim, Sections: []int{2, 1, 1}}}
	}).call = "sections"
	b.add("rope.New", rope.New, func() []any {
		return []any{rope.Config{HeadDim: headDim, Learned: &rope.Learned{Axes: 2, Heads: 2, Frequencies: vector(2 * 2 * headDim / 2)}}}
	}).call = "learned"
	b.operator(operator{op: plain, whole: func() any {
		return &rope.Call{Dst: matrix(tokens, 2*headDim), X: matrix(tokens, 2*headDim), Positions: rope.Positions{Start: 3}}
	}, free: []string{"call.X.Cols"}})
	b.on(self, "Run", func() []any {
		return []any{nowhere, &rope.Call{X: matrix(tokens, 2*headDim), Positions: rope.Positions{At: make([]int64, tokens)}}}
	}).call = "positions"
	b.on(self, "Rotate", func() []any { return []any{matrix(tokens, 2*headDim), int64(3)} })
	b.on(self, "RotateAt", func() []any { return []any{matrix(tokens, 2*headDim), make([]int64, tokens)} })
	b.on(self, "Shift", func() []any { return []any{matrix(tokens, 2*headDim), int64(3)} })
	b.on(self, "CosSin64", func() []any { return []any{make([]float64, 3), make([]float64, 3), []float64{2}} })
	b.on(self, "CosSin", func() []any {
		return []any{matrix(tokens, 3), matrix(tokens, 3), rope.Positions{At: make([]int64, tokens)}}
	})
	b.on(self, "Describe", func() []any { return []any{io.Discard} })
	schedule := func() any {
		return must(rope.NewSchedule(rope.Config{HeadDim: headDim, Scheme: rope.DynamicNTK{Factor: 2, MaxPosition: 16}}, rope.Rerotate))
	}
	b.on(schedule, "Step", func() []any { return []any{int64(20)} })

	b.add("rope.NewALiBi", rope.NewALiBi, func() []any { return []any{rope.ALiBiSlopes(heads)} })
	b.add("rope.NewKERPLELog", rope.NewKERPLELog, func() []any { return []any{[]float64{1, 2}, []float64{1, 2}} })
	b.add("rope.NewKERPLEPower", rope.NewKERPLEPower, func() []any { return []any{[]float64{1, 2}, []float64{1, 2}} })
	b.add("rope.NewFIRE", rope.NewFIRE, func() []any {
		return []any{rope.FIREConfig{W1: []float64{1, -1}, B1: []float64{0, 1}, W2: []float64{1, 2, 3, 4}, B2: []float64{0, 1}, C: 0.1, Threshold: 8}}
	})
	b.add("rope.NewFlexRoPE", rope.NewFlexRoPE, func() []any {
		return []any{rope.FlexRoPEConfig{Slopes: []float32{0.5, 0.1}, Frames: []int64{0, 1, 2}}}
	})
	b.add("rope.FlexRoPESlope", rope.FlexRoPESlope, func() []any { return []any{int64(8), 0.1} })
	b.add("rope.NewFAR", rope.NewFAR, func() []any {
		return []any{rope.FARConfig{Frames: 4, Height: 8, Width: 8, Patch: 2, Window: 2, ContextPatch: 4}}
	})
	b.add("rope.NewMRoPE", rope.NewMRoPE, func() []any {
		return []any{rope.MRoPEConfig{ImageToken: 5, VideoToken: 6, Merge: 2, TokensPerSecond: 2}}
	})
	m := func() any { return must(rope.NewMRoPE(rope.MRoPEConfig{ImageToken: 5, VideoToken: 6, Merge: 2})) }
	b.on(m, "Append", func() []any { return []any{make([]int64, 3*tokens), []int64{1, 2, 3, 4, 7, 8, 9}, []int64(nil)} }).never = true
	b.add("rope.FromHF", rope.FromHF, func() []any {
		return []any{[]byte(`{"model_type":"llama","hidden_size":64,"num_attention_heads":4,"rope_theta":10000,"max_position_embeddings":128,"num_hidden_layers":2}`), rope.V5}
	})
	hf := must(rope.FromHF([]byte(`{"model_type":"llama","hidden_size":64,"num_attention_heads":4,"rope_theta":10000,"max_position_embeddings":128,"num_hidden_layers":2}`), rope.V5))
	b.on(func() any { return hf }, "Config", func() []any { return []any{""} })
	b.on(func() any { return hf }, "Layer", func() []any { return []any{1} })
	b.add("rope.ConvertLayout", rope.ConvertLayout, func() []any { return []any{matrix(tokens, 2*headDim), headDim, 6, rope.Interleaved} }).free = []string{"x.Cols"}
	b.add("rope.ConvertWeights", rope.ConvertWeights, func() []any { return []any{matrix(2*headDim, 3), headDim, 6, rope.Interleaved} }).free = []string{"w.Cols"}
	b.add("rope.PixelFrequencies", rope.PixelFrequencies, func() []any { return []any{4, 10.0} })
	b.add("rope.Patches", rope.Patches, func() []any { return []any{matrix(2*4, 3*4), vector(2 * 3 * 4 * 4), 2, 3, 4, 4, 2} })
	b.add("rope.Unpatch", rope.Unpatch, func() []any { return []any{vector(2 * 3 * 4 * 4), matrix(2*4, 3*4), 2, 3, 4, 4, 2} })
}
