package catanet_test

import (
	"fmt"
	"log"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/merge/catanet"
)

func matrix(rows, cols int, data ...float32) blas32.General {
	if len(data) == 0 {
		data = make([]float32, rows*cols)
	}
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// Attention among tokens of like content, in groups of two.
func ExampleNewGroupAttention() {
	op, err := catanet.NewGroupAttention(catanet.GroupConfig{Heads: 1, HeadDim: 1, GroupSize: 2})
	if err != nil {
		log.Fatal(err)
	}
	x := matrix(6, 1, 1, -1, 1, -1, 1, -1)
	bucket := make([]int32, 6)
	if err := catanet.AssignCenters(bucket, x, matrix(2, 1, 2, -2)); err != nil {
		log.Fatal(err)
	}
	out := matrix(6, 1)
	if err := op.Forward(out, matrix(6, 1), x, x, bucket); err != nil {
		log.Fatal(err)
	}
	fmt.Println(bucket, out.Data)
	// Output:
	// [0 1 0 1 0 1] [0.5 -0.5 0.5 -1 -0.5 -1]
}

// Centres move to the directions that tokens have.
func ExampleFitCenters() {
	x := matrix(4, 2, 3, 0.1, 5, -0.1, 0, 2, 0, 7)
	centers := matrix(2, 2, 1, 0.5, 0.5, 1)
	if err := catanet.FitCenters(centers, x, centers, 3); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.2f\n", centers.Data)
	// Output: [1.00 0.01 0.00 1.00]
}

// random returns weights.
func random(rng *rand.Rand, rows, cols int) blas32.General {
	m := matrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64()) / 4
	}
	return m
}

func ones(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = 1
	}
	return x
}

const dim, qkDim, mlpDim = 8, 4, 12

func feedForward(rng *rand.Rand) catanet.ConvFFNWeights {
	return catanet.ConvFFNWeights{Norm: ones(dim), NormBias: make([]float32, dim), Up: random(rng, mlpDim, dim), Down: random(rng, dim, mlpDim), Conv: random(rng, mlpDim, 25)}
}

// A block of an image of 6 x 5 pixels, in place: every pixel attends to pixels of like
// content, wherever they are.
func ExampleNewTAB() {
	rng := rand.New(rand.NewPCG(1, 2))
	op, err := catanet.NewTAB(catanet.TABConfig{Dim: dim, QKDim: qkDim, Inner: mlpDim, Heads: 2, Centers: 4, GroupSize: 8}, catanet.TABWeights{
		Norm: ones(dim), NormBias: make([]float32, dim), CenterK: random(rng, qkDim, dim), CenterV: random(rng, dim, dim),
		Q: random(rng, qkDim, dim), K: random(rng, qkDim, dim), V: random(rng, dim, dim), Out: random(rng, dim, dim),
		Conv: random(rng, dim, dim), FFN: feedForward(rng), Means: random(rng, 4, dim),
	})
	if err != nil {
		log.Fatal(err)
	}
	x := random(rng, 6*5, dim)
	if err := op.Forward(x, x, 6, 5); err != nil {
		log.Fatal(err)
	}
	fmt.Println(x.Rows, "pixels")
	// Output: 30 pixels
}

// The block that follows: every pixel attends to the windows around it.
func ExampleNewLRSA() {
	rng := rand.New(rand.NewPCG(1, 2))
	op, err := catanet.NewLRSA(catanet.LRSAConfig{Dim: dim, QKDim: qkDim, Inner: mlpDim, Heads: 2, Window: 4}, catanet.LRSAWeights{
		Norm: ones(dim), NormBias: make([]float32, dim), Q: random(rng, qkDim, dim), K: random(rng, qkDim, dim), V: random(rng, dim, dim), Out: random(rng, dim, dim),
		FFN: feedForward(rng),
	})
	if err != nil {
		log.Fatal(err)
	}
	x := random(rng, 6*5, dim)
	if err := op.Forward(x, x, 6, 5); err != nil {
		log.Fatal(err)
	}
	fmt.Println(x.Rows, "pixels")
	// Output: 30 pixels
}
