package subquad_test

import (
	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/ssm/mamba"
	"github.com/subquad/subquad/text"
)

func init() { rooms = append(rooms, rowsRoom) }

// letterWords is a vocabulary of a few letters.
func letterWords() text.Vocabulary {
	return text.Vocabulary{Bytes: [][]byte{[]byte("a"), []byte("b"), nil}, Specials: []int32{2}, Begin: 2, Encode: func(dst []int32, text []byte) []int32 {
		for _, c := range text {
			dst = append(dst, int32(c-'a'))
		}
		return dst
	}}
}

// bytes are the rows of a model as one of bytes, and beside another.
func (b *builder) bytes(m any) {
	self := func() any { return m }
	cfg := transformer.ByteConfig{Eps: 0.001, History: 3}
	b.on(self, "NewBytes", func() []any { return []any{letterWords(), cfg} })
	b.on(self, "NewSource", func() []any { return nil })
	_ = mamba.ByteConfig(cfg)
}

// rowsRoom are functions of rows of logits.
func rowsRoom(b *builder) {
	// Rows may differ in length: the shortest counts.
	some := func() []float32 { return vector(tokens - 2) }
	for _, r := range []*row{
		b.add("transformer.Contrast", transformer.Contrast, func() []any { return []any{some(), some(), some(), 0.1, 0.5} }),
		b.add("transformer.Proxy", transformer.Proxy, func() []any { return []any{some(), some(), some(), some(), 0.5} }),
		b.add("transformer.Critical", transformer.Critical, func() []any { return []any{some(), some(), int32(1)} }),
		b.add("transformer.Divergence", transformer.Divergence, func() []any { return []any{some(), some()} }),
		b.add("transformer.FitDrift", transformer.FitDrift, func() []any { return []any{[]float64{1, 2, 2.5, 2.7, 2.8}} }),
		b.add("transformer.Accept", transformer.Accept, func() []any {
			p := func() []float64 { return []float64{0.5, 0.25, 0.25} }
			return []any{[]int32{}, []int32{1}, [][]float64{p()}, [][]float64{p(), p()}, []float64{0.5, 0.5}, false}
		}),
	} {
		r.free = []string{"large.", "small.", "tuned.", "right.", "wrong.", "test.", "reference.", "turns.", "draft.[0].", "target.[1]."}
	}
	b.on(func() any { return text.Bytes() }, "Vocabulary", func() []any { return nil })
}
