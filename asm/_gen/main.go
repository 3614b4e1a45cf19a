// Command _gen writes the assembly of packages asm and internal/kernel: one file
// per operation and instruction set, the Go declarations and dispatch that go with
// them, and the coefficients that the portable bodies share with the assembly.
//
//	go run . -dir ../..     (go generate ./asm does this)
//
// go test compares what it would write with what is checked in.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/subquad/subquad/asm/_gen/simd"
)

// kernel emits one function on a machine.
type kernel func(simd.Machine)

// operation is a file of kernels of a package.
type operation struct {
	pkg, name string
	kernels   []kernel
}

// folders are the packages that are written, by their names.
var folders = map[string]string{"asm": "asm", "kernel": "internal/kernel"}

func operations() []operation {
	public := func(name string, k ...kernel) operation { return operation{"asm", name, k} }
	private := func(name string, k ...kernel) operation { return operation{"kernel", name, k} }
	list := []operation{
		public("exp", unary("exp", "exp(x[i])", 4, func(m simd.Machine, x simd.Vec) simd.Vec { return expOf(m, x, true) })),
		public("sin", sine),
		public("sigmoid",
			unary("sigmoid", "1 / (1 + exp(-x[i]))", 2, sigmoidOf),
			unary("silu", "x[i] / (1 + exp(-x[i]))", 2, siluOf)),
		public("softplus", unary("softplus", "log(1 + exp(x[i]))", 2, softplusOf)),
		public("elu", unary("eluPlusOne", "x[i] + 1 for x[i] > 0, exp(x[i]) otherwise", 2, eluPlusOneOf)),
		public("gelu",
			unary("geluTanh", "x[i]/2 (1 + tanh(sqrt(2/pi) (x[i] + 0.044715 x[i]^3)))", 2, geluTanhOf),
			unary("geluErf", "x[i] Phi(x[i])", 2, geluErfOf)),
		public("vector",
			binary("add", "a[i] + b[i]", func(m simd.Machine, a, b simd.Vec) simd.Vec { return m.Add(a, b) }),
			binary("mul", "a[i] * b[i]", func(m simd.Machine, a, b simd.Vec) simd.Vec { return m.Mul(a, b) }),
			binary("larger", "the larger of a[i] and b[i], or NaN where either is one", simd.MaxNaN),
			scaled("scale", "a * x[i]", func(m simd.Machine, a, x simd.Vec, _ func() simd.Vec) simd.Vec { return m.Mul(x, a) }),
			scaled("axpy", "dst[i] + a * x[i]", func(m simd.Machine, a, x simd.Vec, old func() simd.Vec) simd.Vec {
				y := old()
				m.MulAdd(y, x, a)
				return y
			})),
		public("dot", dot, squaredDistance, cosine),
		public("sum", sum, maximum),
		public("norm", squaredDeviation, layerNorm, rmsNorm),
		public("softcap", softcap),
		private("expsum", expSum),
		private("keepabove",
			binary("keepAbove", "a[i] unless it is at most b[i], else 0", func(m simd.Machine, a, b simd.Vec) simd.Vec {
				return m.Select(m.Cmp(simd.LessEqual, a, b), simd.Const(0), a)
			})),
		private("cossin", cosSin),
		private("attention", attentionKernels()...),
		private("nearest", nearest(0), nearest(4), nearest(1)),
		public("conv", convolution(8), convolution(1)),
		private("fft", fftKernels()...),
		public("rotate", rotateKernels()...),
		private("decode", decodeKernels()...),
		private("prefetch", prefetch),
		private("outer", outer, combine, accumulate(4, false), accumulate(1, false), accumulate(4, true), accumulate(1, true)),
		private("rows", scaleRows, flush),
		private("scan", scanKernels()...),
	}
	for _, w := range weights {
		list = append(list, private("gemm_"+strings.ToLower(w.suffix), gemmKernels(w)...))
	}
	return list
}

// files returns every generated file by its path in the repository.
func files() (map[string][]byte, error) {
	out := map[string][]byte{}
	var err error
	if out["internal/kernel/scalar/coefficients.go"], err = coefficientsFile(); err != nil {
		return nil, err
	}
	declared := map[string]*declarations{"asm": {pkg: "asm"}, "kernel": {pkg: "kernel"}}
	for _, op := range operations() {
		for _, target := range []struct {
			name string
			make func() simd.Machine
		}{
			{"avx2_amd64", func() simd.Machine { return simd.NewAMD64(8) }},
			{"avx512_amd64", func() simd.Machine { return simd.NewAMD64(16) }},
			{"neon_arm64", simd.NewARM64},
		} {
			m := target.make()
			for _, k := range op.kernels {
				k(declared[op.pkg].record(m))
			}
			source, err := m.Source()
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", op.name, target.name, err)
			}
			out[fmt.Sprintf("%s/%s_%s.s", folders[op.pkg], op.name, target.name)] = source
		}
	}
	for _, d := range declared {
		if err := d.files(out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", "../..", "the folder of the repository")
	flag.Parse()
	list, err := files()
	if err != nil {
		log.Fatal(err)
	}
	for name, text := range list {
		if err := os.WriteFile(filepath.Join(*dir, name), text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
