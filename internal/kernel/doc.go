// Package kernel has the kernels that single operators are made of, in assembly for
// AVX2, AVX-512 and NEON and in portable Go: what a stranger would not call, because
// the layouts are private to an operator or depend on the tier.
//
//	attention          AttentionTile: scores, online softmax and weighted values of a tile
//	                   AttentionTile.Nearest: the largest score only
//	decoding           DecodeTile over Strided keys and values in the type they are stored in
//	long convolution   Butterflies: the stages of Fourier transforms of many sequences
//	scans              SelectiveScan (Mamba), OuterStep, Combine, Accumulate and PackBC (SSD)
//	                   ScaleRows, RowScales, Flush, Prefetch, Ahead, KeepAbove
//	delta rules        DeltaSteps token by token; DeltaRows, DeltaWrite, DeltaFall, DeltaKeys by
//	                   chunks
//	matrices           Matrix with its panels, Gemm, GemmAdd, GemmT, GemmTAdd, Gemv; PackIn for
//	                   products in parts of bfloat16, on a matrix unit where there is one
//	rotary positions   CosSin, RotateInterleaved with a table laid out for vectors
//	softmax in parts   ExpSum
//
// Package asm is built on it and shows Matrix and Gemm to the world. The portable
// bodies of elementary functions that both packages share are in the package scalar
// below this one, and so are the coefficients that the assembly has too. Sizes that
// assembly and Go must agree on are in sizes.go. asm/_gen writes both, every .s file and
// the declarations: for an operation x, x_amd64.go and x_arm64.go beside
// x_avx512_amd64.s and so on, split_amx_amd64.s for the matrix unit, and kernels_none.go for
// ports without kernels.
//
// As in asm, functions panic when shapes do not fit: operators check before they call.
// A tile's layout depends on its tier, which it captures when it is made.
//
// Letters: m, k, n are the sizes of a product [m, k] [k, n]; dim is the width of a head;
// t counts tokens, i and j rows and columns. Strides are in elements.
package kernel
