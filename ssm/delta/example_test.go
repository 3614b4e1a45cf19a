package delta_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm/delta"
)

// A delta rule remembers the last value of each key: what it has under a key is erased
// before the key is written.
func Example() {
	op, err := delta.New(delta.Config{Heads: 1, KeyDim: 2, ValueDim: 2, Erase: delta.EraseKey, Scale: 1})
	if err != nil {
		log.Fatal(err)
	}
	rows := func(data ...float32) blas32.General {
		return blas32.General{Rows: len(data) / 2, Cols: 2, Stride: 2, Data: data}
	}
	keys := rows(1, 0, 0, 1, 1, 0) // the first one twice
	values := rows(1, 2, 3, 4, 5, 6)
	out := rows(make([]float32, 6)...)
	if err := op.Forward(out, keys, keys, values, blas32.General{}, blas32.General{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Data)
	// Output: [1 2 3 4 5 6]
}

// A state is stored, and read by an operator with the same Config.
func ExampleRecurrence_ReadState() {
	cfg := delta.Config{Heads: 2, KeyDim: 4, ValueDim: 3, Decay: delta.ConstantDecay, LogDecay: delta.RetNetDecay(2)}
	op, err := delta.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	st, err := op.NewState(delta.StateConfig{Snapshots: 1})
	if err != nil {
		log.Fatal(err)
	}
	const n = 5
	if err := op.Step(ones(n, 6), ones(n, 8), ones(n, 8), ones(n, 6), blas32.General{}, blas32.General{}, st); err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		log.Fatal(err)
	}
	again, err := delta.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	restored, err := again.ReadState(&file)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(restored.Len(), restored.Bytes())
	// Output: 5 96
}

// DeltaProduct takes several steps of the delta rule for a token: they are as many rows,
// of which the first one has the token's decay and the last one its output. Here two
// reflections (beta 2) turn a state by twice the angle between the keys.
func ExampleRecurrence_product() {
	op, err := delta.New(delta.Config{Heads: 1, KeyDim: 2, ValueDim: 1, Decay: delta.HeadDecay, Erase: delta.EraseKey, Normalize: true, Scale: 1})
	if err != nil {
		log.Fatal(err)
	}
	st, err := op.NewState(delta.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if err := op.Write(st, blas32.General{Rows: 2, Cols: 1, Stride: 1, Data: []float32{1, 0}}); err != nil {
		log.Fatal(err)
	}
	column := func(data ...float32) blas32.General {
		return blas32.General{Rows: len(data), Cols: 1, Stride: 1, Data: data}
	}
	keys := blas32.General{Rows: 2, Cols: 2, Stride: 2, Data: []float32{1, 0, 1, 1}}
	queries := blas32.General{Rows: 2, Cols: 2, Stride: 2, Data: []float32{1, 0, 0, 1}}
	out := column(0, 0)
	if err := op.Step(out, queries, keys, column(0, 0), column(0, 0), column(2, 2), st); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n", out.Data[1])
	// Output: 1.000
}

// The block of Qwen3-Next, whose projections stand key head by key head.
func ExampleNewGatedDelta() {
	const dim, keyHeads, heads, key, value, taps = 16, 2, 4, 4, 4, 4
	cfg := delta.GatedDeltaConfig{Heads: heads, KeyHeads: keyHeads, KeyDim: key, ValueDim: value}
	qkv, z, b, a, err := delta.SplitQKVZ(cfg, ones(2*keyHeads*key+2*heads*value, dim), ones(2*heads, dim))
	if err != nil {
		log.Fatal(err)
	}
	block, err := delta.NewGatedDelta(cfg, delta.GatedDeltaWeights{
		InQKV: qkv, InZ: z, InB: b, InA: a, Conv: ones(2*keyHeads*key+heads*value, taps),
		ALog: make([]float32, heads), DtBias: make([]float32, heads), Norm: ones(1, value).Data, Out: ones(dim, heads*value),
	})
	if err != nil {
		log.Fatal(err)
	}
	st, err := block.NewState(delta.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	prompt, token := ones(10, dim), ones(1, dim)
	if err := block.Step(prompt, prompt, st); err != nil {
		log.Fatal(err)
	}
	if err := block.Step(token, token, st); err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		log.Fatal(err)
	}
	st, err = block.ReadState(&file)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(st.Len())
	// Output: 11
}

// The block of Kimi Linear, whose decays have a rank of a head's width.
func ExampleNewKDA() {
	const dim, heads, key, taps = 16, 2, 4, 4
	wide := func() blas32.General { return ones(heads*key, dim) }
	block, err := delta.NewKDA(delta.KDAConfig{Heads: heads, KeyDim: key}, delta.KDAWeights{
		Q: wide(), K: wide(), V: wide(), QConv: ones(heads*key, taps), KConv: ones(heads*key, taps), VConv: ones(heads*key, taps),
		FA: ones(key, dim), FB: ones(heads*key, key), DtBias: make([]float32, heads*key), ALog: make([]float32, heads), B: ones(heads, dim),
		GA: ones(key, dim), GB: ones(heads*key, key), Norm: ones(1, key).Data, Out: ones(dim, heads*key),
	})
	if err != nil {
		log.Fatal(err)
	}
	x := ones(5, dim)
	if err := block.Forward(x, x); err != nil {
		log.Fatal(err)
	}
	fmt.Println(block.Dim(), block.StateBytes(0))
	// Output: 16 416
}

// The two halves of a layer of RWKV-7; norms and sums are the model's.
func ExampleNewRWKV7() {
	const dim, rank, n = 8, 2, 3
	v := func() []float32 { return make([]float32, dim) }
	low, high, full := func() blas32.General { return ones(dim, rank) }, func() blas32.General { return ones(rank, dim) }, func() blas32.General { return ones(dim, dim) }
	mixer, err := delta.NewRWKV7(delta.RWKV7Config{HeadDim: 4, First: true}, delta.RWKV7Weights{
		XR: v(), XW: v(), XK: v(), XV: v(), XA: v(), XG: v(), W0: v(), A0: v(), W1: low(), W2: high(), A1: low(), A2: high(), G1: low(), G2: high(),
		KK: ones(1, dim).Data, KA: v(), RK: v(), Receptance: full(), Key: full(), Value: full(), Out: full(), Norm: v(), NormBias: v(),
	})
	if err != nil {
		log.Fatal(err)
	}
	ffn, err := delta.NewRWKV7FFN(delta.RWKV7FFNConfig{}, delta.RWKV7FFNWeights{XK: v(), Key: ones(4*dim, dim), Value: ones(dim, 4*dim)})
	if err != nil {
		log.Fatal(err)
	}
	x, first := ones(n, dim), ones(n, dim) // first is for the layers after this one
	if err := mixer.Run(ctx, &delta.BlockCall{Dst: x, X: x, First: first}); err != nil {
		log.Fatal(err)
	}
	if err := ffn.Forward(x, x); err != nil {
		log.Fatal(err)
	}
	fmt.Println(first.Data[:2])
	// Output: [8 8]
}

var ctx = context.Background()

// ones is a matrix of ones.
func ones(rows, cols int) blas32.General {
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
	for i := range m.Data {
		m.Data[i] = 1
	}
	return m
}
