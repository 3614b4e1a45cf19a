// Package asm has the vector and matrix operations that the rest of the module is
// built on, over float32, in assembly for AVX2, AVX-512 and NEON and in portable Go.
//
// The functions can be used by themselves. They work on slices and on blas32.General,
// allocate nothing, start no goroutines and are safe for concurrent use. A destination
// may be the same slice as an input, element for element; it must not overlap one
// otherwise. Like gonum's kernels, and unlike the packages above, asm panics when
// lengths do not fit. All error bounds are in units in the last place (ULP) of the
// float32 result.
//
//   - Two vectors: [Add], [Mul], [Maximum], [Scale], [Axpy].
//   - Vectors to one number: [Dot], [SquaredDistance], [Cosine], [Sum], [Max].
//   - Each element: [Exp], [Sin], [Sigmoid], [SiLU], [GELU], [GELUTanh], [Softplus],
//     [ELUPlusOne], [Softcap].
//   - A row: [Softmax], [LayerNorm], [RMSNorm].
//   - Matrix products: [NewMatrix] or [NewMatrixT] packs the right operand, in a
//     [Format]; [Gemm], [GemmAdd] and [Gemv] multiply by it. [NewMatrixIn] and
//     [NewMatrixTIn] pack it for products in another [Precision], on a matrix unit.
//   - Sequences: [DepthwiseConv], a short causal convolution.
//   - Rotary positions: [RotateHalf], [RotateInterleaved].
//   - Stored numbers: [Float16Bits], [Float16Of], [BFloat16Bits], [BFloat16Of],
//     [QuantizeInt8].
//   - The processor: [Active], [Precision.Unit].
//
// Letters: dst is the result, n a length; in products a is [m, k], b [k, n] and dst
// [m, n]; t counts tokens and c channels; headDim is the width of an attention head.
//
// # Tiers
//
// Each function has up to four bodies: generic (portable Go, the specification),
// avx2 (AVX2, FMA, F16C), avx512 (AVX-512 F, BW, DQ, VL) and neon. The best one
// the processor can run is chosen when the program starts. The environment
// variable SUBQUAD_ISA=generic|neon|avx2|avx512 lowers the choice, the build tag
// purego leaves the assembly out, and [Active] tells what is in use.
//
// Within a tier results are the same to the bit on every machine. Between tiers
// they differ by rounding: sums are taken in another order and products are
// fused. Elementary functions use the same polynomials everywhere; the error
// each states holds in all tiers. Results too small for a normal float32 are
// flushed to zero by the functions that exponentiate, because subnormal
// arithmetic is slow.
//
// Matrix units are apart from the tiers. They have no float32, so that they are used for
// nothing but products in a [Precision] that the caller asked for, whose bits are the same
// with them and without.
//
// NaN propagates through every function, Max included.
package asm

//go:generate sh -c "cd _gen && GOWORK=off go run ."

import "github.com/subquad/subquad/internal/isa"

// Active returns the name of the tier in use: generic, neon, avx2 or avx512. What products in
// a Precision run on is told by Precision.Unit.
func Active() string { return isa.Active().String() }
