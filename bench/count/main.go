// Command count runs an operation's kernels once, so that an emulator can count their
// instructions: see bench/instructions. Without an argument it lists the operations, each with
// how many elements it runs over and what an element is.
package main

import (
	"fmt"
	"log"
	"math"
	"os"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// operation is what is counted.
type operation struct {
	name, unit string
	elements   int
	run        func()
}

// filled returns a matrix of numbers between -1 and 1.
func filled(rows, cols int) blas32.General {
	m := mat.New(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(i*37%201-100) / 100
	}
	return m
}

const (
	long   = 4096 // elements of vectors
	rows   = 48   // of products: whole tiles of every tier
	inner  = 128
	outer  = 192 // whole panels of every tier
	keys   = 192
	tokens = 64
)

func operations() []operation {
	x, y, z := filled(1, long).Data, filled(1, long).Data, filled(1, long).Data
	each := func(name string, f func()) operation { return operation{name, "element", long, f} }
	list := []operation{
		each("dot", func() { asm.Dot(x, y) }),
		each("sum", func() { asm.Sum(x) }),
		each("max", func() { asm.Max(x) }),
		each("add", func() { asm.Add(z, x, y) }),
		each("exp", func() { asm.Exp(z, x) }),
		each("sin", func() { asm.Sin(z, x) }),
		each("silu", func() { asm.SiLU(z, x) }),
		each("gelu", func() { asm.GELU(z, x) }),
		each("softmax", func() { asm.Softmax(z, x) }),
		each("rmsnorm", func() { asm.RMSNorm(z, x, y, 1e-5) }),
		each("rotate", func() { asm.RotateHalf(z, x, 128, y[:64], y[64:128]) }),
	}
	return append(list, append(products(), streams()...)...)
}

func products() (list []operation) {
	a, b, dst := filled(rows, inner), filled(inner, outer), mat.New(rows, outer)
	for _, f := range []asm.Format{asm.Float32, asm.BFloat16, asm.Int8} {
		m := asm.NewMatrix(f, b)
		list = append(list, operation{"gemm " + f.String(), "multiply-add", rows * inner * outer, func() { asm.Gemm(dst, a, m, nil) }})
	}
	t := kernel.NewAttentionTile()
	q, k, v := filled(rows, inner), filled(keys, inner), filled(keys, outer)
	kp, vp := make([]float32, keys*inner), make([]float32, keys*outer)
	t.PackKeys(kp, 0, k)
	t.PackValues(vp, keys, 0, v)
	s, o := mat.New(rows, keys), mat.New(rows, outer)
	top, sum, factor := make([]float32, rows), make([]float32, rows), make([]float32, rows)
	for i := range top {
		top[i] = -math.MaxFloat32
	}
	return append(list,
		operation{"attention scores", "multiply-add", rows * keys * inner, func() { t.Scores(s, q, kp) }},
		operation{"attention weights", "score", rows * keys, func() { t.Weights(s, top, sum, factor) }},
		operation{"attention values", "multiply-add", rows * keys * outer, func() { t.Values(o, s, vp, keys, 0, factor) }})
}

func streams() (list []operation) {
	const group, dim = 4, 128
	t := kernel.NewDecodeTile()
	q, packed := filled(group, dim), make([]float32, group*dim)
	t.PackQueries(packed, q)
	s, o, ones := mat.New(group, keys), mat.New(group, dim), []float32{1, 1, 1, 1}
	k := filled(keys, dim)
	half, whole := make([]uint16, len(k.Data)), make([]int8, len(k.Data))
	for i, x := range k.Data {
		half[i], whole[i] = asm.BFloat16Bits(x), int8(100*x)
	}
	for _, m := range []kernel.Strided{
		{Format: kernel.Float32, Float32: k.Data}, {Format: kernel.BFloat16, Half: half}, {Format: kernel.Int8, Int8: whole},
	} {
		m.Rows, m.Cols, m.Stride = keys, dim, dim
		list = append(list,
			operation{"decode scores " + m.Format.String(), "multiply-add", group * keys * dim, func() { t.Scores(s, packed, m, nil) }},
			operation{"decode values " + m.Format.String(), "multiply-add", group * keys * dim, func() { t.Values(o, s, m, ones, nil) }})
	}
	const states, width = 128, 64
	y, state, x, bc := mat.New(tokens, width), mat.New(states, width), filled(tokens, width), filled(1, 2*tokens*states).Data
	return append(list, operation{"ssd", "state·step", tokens * states * width, func() { kernel.Accumulate(y, state, bc, x) }})
}

func main() {
	log.SetFlags(0)
	for _, op := range operations() {
		switch {
		case len(os.Args) < 2:
			fmt.Printf("%s\t%s\t%d\n", op.name, op.unit, op.elements)
		case os.Args[1] == op.name:
			op.run()
			return
		}
	}
	if len(os.Args) > 1 {
		log.Fatalf("count: there is no operation %q", os.Args[1])
	}
}
