// Package hyena computes long convolutions and the Hyena operator: sequence
// mixing in n log n, after Poli et al., "Hyena Hierarchy: Towards Larger
// Convolutional Language Models" (2023, arXiv 2302.10866).
//
//   - [Conv] convolves every channel with a kernel as long as the sequence, of
//     any length: causal, with a skip term, optionally with an anticausal kernel
//     and a GELU; at once or token by token ([State]).
//   - [Filter] makes such kernels from the weights of an implicit filter, an MLP
//     of the position.
//   - [Operator] is Hyena itself, of any order: projections, short convolution,
//     gates and long convolutions.
//   - [Modes] are filters of poles and residues: convolutions with them ([Modal]) remember
//     a few numbers of the past and not all of it. [Gated] is StripedHyena's operator, [H3] that
//     of H3, [S4D] the layer of a diagonal state space.
//   - [Distill] makes modes of any long filter, and tells how far they are from it.
//   - [Partition] convolves signals block by block, a fixed number of samples late, with
//     kernels that can be replaced while they run; [Decimate] computes every M-th output.
//
// Packages hyena/dna and hyena/striped build models of these.
//
// # Letters
//
//	n, t   tokens in a sequence, and a token's index
//	C, c   channels, and a channel's index
//	D      width of a token (Dim)
//	N, o   order of the operator: N gates, N-1 long convolutions, numbered o
//	N      also the modes of a channel; p, R a mode's pole and residue
//	H, P   heads, and a head's width, of an H3
//	U      tokens of a block of a tile of a long convolution
//	k, m   kernel, and a tap's index (how many tokens back)
//	H      width of a hidden layer of the filter's MLP
//	l_max  longest sequence (MaxLen), of which positions are fractions
//
// Matrices are [tokens, channels], row-major, with a stride.
//
// # Memory
//
// A kernel is transformed when a call of a length first needs it, and its spectrum is
// kept up to SpectraBytes; an Operator's filter likewise. Operators may share a [Cache],
// one budget for all. Prepare does both before a
// call waits for them, Bytes counts what is kept, and ScratchBytes says what a call
// works in.
//
// # States
//
// A [State] is what an operator remembers of a sequence: Step goes on from it, with one token
// or many, and any split of a sequence gives what Forward does. That of a long convolution has
// all inputs that its kernel reaches, and a share of the sums of outputs to come; those of modes
// do not grow. A state can be stored, copied and taken back.
//
// # Accuracy
//
// A Fourier convolution in float32 has an absolute error of about 1e-7 times
// |k| |x| at every token, so results much smaller than the largest of a sequence
// lose relative accuracy. Where a kernel is at most half as long as the sequence, and
// windows are expected to be a quarter faster than one transform of all, u is the part of
// the sequence in a window, and so is the error. Results are the same to the bit for any Workers and any
// SpectraBytes. A prefix of a sequence gives the prefix of the result to that
// error, not to the bit, for its transform has another size. A state's sums are of tiles, each with
// the error of its own block; they do not drift.
//
// # Provenance
//
//	Conv        checked against fftconv and fftconv_ref of hyena-dna and safari
//	Filter      checked against HyenaFilter of hyena-dna
//	Gated       checked against the engine of stripedhyena, prefill and steps
//	H3          checked against fftconv_h3_ref of safari; its shift re-derived from the paper
//	S4D         checked against S4D of state-spaces/s4
//	Distill     re-derived from the papers; Partition and Decimate too: against sums in the tests
//	Operator    checked against HyenaOperator of hyena-dna, orders 2 and 3, both layouts
package hyena
