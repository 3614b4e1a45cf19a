// Command _gen writes the assembly of packages asm and internal/kernel: one file
// per operation and instruction set, the Go declarations and dispatch that go with
// them, and the coefficients that the portable bodies share with the assembly.
//
//	go run . -dir ../..     (go generate ./asm does this)
//
// go test compares what it would write with what is checked in.
package main

import (
	"bytes"
	"errors"
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

// operation is a file of kernels of a package, and what chooses among them.
type operation struct {
	pkg, name string
	kernels   []kernel
	choices   []choice
}

// folders are the packages that are written, by their names.
var folders = map[string]string{"asm": "asm", "kernel": "internal/kernel"}

func operations() []operation {
	public := func(name string, k ...kernel) operation { return operation{pkg: "asm", name: name, kernels: k} }
	private := func(name string, k ...kernel) operation { return operation{pkg: "kernel", name: name, kernels: k} }
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
		{pkg: "asm", name: "rotate", kernels: rotateKernels(rotateHalf), choices: []choice{rotateChoice("rotateHalf", "half")}},
		{pkg: "kernel", name: "rotate", kernels: rotateKernels(rotateInterleaved), choices: []choice{rotateChoice("rotateInterleaved", "width")}},
		private("prefetch", prefetch),
		private("panel", copyPanel),
		private("shadow", shadowScores(4, false), shadowScores(2, false), shadowScores(1, false), shadowScores(4, true), shadowScores(2, true), shadowScores(1, true), shadowWeights),
		private("shadow_nibbles", shadowScores4Bit(4, false), shadowScores4Bit(2, false), shadowScores4Bit(1, false), shadowScores4Bit(4, true), shadowScores4Bit(2, true), shadowScores4Bit(1, true)),
		{pkg: "kernel", name: "integer", kernels: integerKernels(), choices: integerChoices()},
		private("outer", outer, combine, accumulate(4, false, false), accumulate(1, false, false), accumulate(4, true, false), accumulate(1, true, false), accumulate(4, true, true)),
		private("delta", deltaStep(false), deltaStep(true)),
		{pkg: "kernel", name: "delta_chunk", kernels: deltaChunkKernels(), choices: deltaChunkChoices()},
		private("rows", scaleRows, rowScales, flush),
		private("widen", widen("BFloat16", simd.Machine.LoadBFloat16), widen("Float16", simd.Machine.LoadFloat16)),
		private("scan", scanKernels()...),
	}
	for _, w := range weights {
		suffix := strings.ToLower(w.suffix)
		list = append(list, private("gemm_"+suffix, gemmKernels(w)...), private("decode_"+suffix, decodeKernels(w)...))
	}
	return append(list,
		operation{pkg: "kernel", name: "gemm", choices: []choice{gemmChoice()}},
		operation{pkg: "kernel", name: "decode", choices: decodeChoices()})
}

// files returns every generated file by its path in the repository.
func files() (map[string][]byte, error) {
	out := map[string][]byte{}
	var list []*declarations
	all := map[string]*declared{}
	for _, op := range operations() {
		d := &declarations{operation: op, funcs: map[string]*declared{}}
		if len(op.kernels) > 0 {
			if err := d.assemble(out); err != nil {
				return nil, err
			}
		}
		for name, f := range d.funcs {
			all[name] = f
		}
		list = append(list, d)
	}
	var err error
	write := func(path string, text []byte, e error) {
		out[path] = text
		err = errors.Join(err, e)
	}
	for _, d := range list {
		for _, port := range ports() {
			text, e := d.declare(port, all)
			write(fmt.Sprintf("%s/%s_%s.go", folders[d.pkg], d.name, port), text, e)
		}
	}
	for pkg, folder := range folders {
		text, e := none(pkg, list)
		write(folder+"/kernels_none.go", text, e)
	}
	text, e := coefficientsFile()
	write("internal/kernel/scalar/coefficients.go", text, e)
	text, e = sizesFile()
	write("internal/kernel/sizes.go", text, e)
	assembly, declared := splitFiles()
	write("internal/kernel/split_amx_amd64.s", assembly, nil)
	write("internal/kernel/split_amd64.go", declared, nil)
	return out, err
}

// strays returns the files in the written folders that say they are generated, or
// are assembly, and that are not among those to be.
func strays(root string, list map[string][]byte) (stray []string, err error) {
	for _, folder := range []string{"asm", "internal/kernel", "internal/kernel/scalar"} {
		entries, err := os.ReadDir(filepath.Join(root, folder))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			path := folder + "/" + e.Name()
			if list[path] != nil || e.IsDir() {
				continue
			}
			text, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				return nil, err
			}
			if strings.HasSuffix(path, ".s") || bytes.HasPrefix(text, []byte(generated)) {
				stray = append(stray, path)
			}
		}
	}
	return stray, nil
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
	stray, err := strays(*dir, list)
	if err != nil {
		log.Fatal(err)
	}
	for _, path := range stray {
		if err := os.Remove(filepath.Join(*dir, path)); err != nil {
			log.Fatal(err)
		}
	}
}
