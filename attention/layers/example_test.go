package layers_test

import (
	"context"
	"fmt"
	"log"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/layers"
)

func matrix(rows, cols int, data ...float32) blas32.General {
	if len(data) == 0 {
		data = make([]float32, rows*cols)
	}
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// A head of one frequency whose input moves the peak: a = (1, x_0 + i x_1).
func ExampleNewFourierHead() {
	head, err := layers.NewFourierHead(layers.FourierConfig{Dim: 2, Bins: 4, Frequencies: 1}, layers.FourierWeights{
		Weight: matrix(4, 2, 0, 0, 1, 0, 0, 0, 0, 1), Bias: []float32{1, 0, 0, 0},
	})
	if err != nil {
		log.Fatal(err)
	}
	x, p := matrix(2, 2, 1, 0, 0, 1), matrix(2, 4)
	if err := head.Run(context.Background(), &layers.FourierCall{X: x, Probabilities: p}); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n%.3f\n", p.Data[:4], p.Data[4:])
	d, err := head.Distribution(x.Data[:2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("density of 0: %.2f, three quarters below %.2f\n", d.Density(0), d.Quantile(0.75))
	// Output:
	// [0.073 0.427 0.427 0.073]
	// [0.427 0.427 0.073 0.073]
	// density of 0: 1.00, three quarters below 0.26
}

func ones(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = 1
	}
	return x
}

// A gate that has learned nothing, 0, leaves tokens as they were; open, it adds what the
// grounding tokens say.
func ExampleNewGated() {
	identity := matrix(2, 2, 1, 0, 0, 1)
	weights := layers.GatedWeights{
		Context: identity, Norm1: ones(2), Norm1Bias: make([]float32, 2), Norm2: ones(2), Norm2Bias: make([]float32, 2),
		Q: identity, K: identity, V: identity, Out: identity, Up: matrix(16, 2), Down: matrix(2, 8),
	}
	x, objects, dst := matrix(1, 2, 1, 2), matrix(1, 2, 3, 0), matrix(1, 2)
	for _, alpha := range []float32{0, float32(math.Inf(1))} {
		weights.AlphaAttention = alpha
		layer, err := layers.NewGated(layers.GatedConfig{Heads: 1, HeadDim: 2, ContextDim: 2}, weights)
		if err != nil {
			log.Fatal(err)
		}
		if err := layer.Forward(dst, x, objects); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%.2f\n", dst.Data)
	}
	// Output:
	// [1.00 2.00]
	// [0.11 2.89]
}

// The tokens of one interaction, with weights of 0: what it is and its role.
func ExampleNewTokens() {
	mlp := layers.TokensMLP{First: matrix(1, 9), Second: matrix(1, 1), Third: matrix(1, 1)}
	layer, err := layers.NewTokens(layers.TokensConfig{FeatureDim: 1, Dim: 1, Inner: 1, MaxInteractions: 2, Frequencies: 1}, layers.TokensWeights{
		Things: mlp, Actions: mlp, NullThing: ones(1), NullAction: ones(1), NullBox: ones(8),
		Interactions: matrix(2, 1, 10, 20), Roles: matrix(3, 1, 1, 2, 3),
	})
	if err != nil {
		log.Fatal(err)
	}
	call := &layers.TokensCall{Dst: matrix(6, 1), Subjects: matrix(2, 1), Actions: matrix(2, 1), Objects: matrix(2, 1),
		SubjectBoxes: matrix(2, 4), ObjectBoxes: matrix(2, 4), Interactions: 2}
	if err := layer.Run(context.Background(), call); err != nil {
		log.Fatal(err)
	}
	fmt.Println(call.Dst.Data)
	// Output: [11 21 13 23 12 22]
}

// A layer of an image of 2 x 2 pixels with 8 channels and weights of 0 adds nothing.
func ExampleNewStrip() {
	norm := func(n int) layers.BatchNorm {
		return layers.BatchNorm{Weight: ones(n), Bias: make([]float32, n), Mean: make([]float32, n), Variance: ones(n)}
	}
	layer, err := layers.NewStrip(layers.StripConfig{Dim: 8, Side: 2}, layers.StripWeights{
		Norm: norm(8), Conv: matrix(8, 9),
		Mix: layers.StripMixWeights{
			MLP: matrix(8, 8), MLPNorm: norm(8), PosH: matrix(5, 4), PosW: matrix(5, 4),
			ProjH: matrix(2, 6), ProjHBias: make([]float32, 2), ProjW: matrix(2, 6), ProjWBias: make([]float32, 2),
			FuseH: matrix(4, 8), FuseW: matrix(4, 8), Norm: norm(4), LocalH: matrix(4, 21), LocalW: matrix(4, 21),
			Reweight1: matrix(2, 4), Reweight2: matrix(12, 2), Fuse: matrix(8, 8),
		},
		Conv7: matrix(8, 49), LayerNorm: ones(8), LayerNormBias: make([]float32, 8), Up: matrix(24, 8), Down: matrix(8, 24),
		Gamma: make([]float32, 24), Beta: make([]float32, 24),
	})
	if err != nil {
		log.Fatal(err)
	}
	x := matrix(4, 8)
	x.Data[3] = 5
	if err := layer.Forward(x, x); err != nil {
		log.Fatal(err)
	}
	fmt.Println(x.Data[:8])
	// Output: [0 0 0 5 0 0 0 0]
}
