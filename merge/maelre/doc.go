// Package maelre has an encoder for classification that merges tokens from block to
// block, approximates attention while tokens are many and attends exactly when they are
// few.
//
// [New] makes an [Encoder] of weights, [Open] and [Read] of a safetensors file.
// [Encoder.Forward] encodes one sequence; [Encoder.Run] takes packed batches, padding and
// sizes, and lets a caller observe every block.
//
// It is a reconstruction of MAELRE (Parag and Elgammal 2025, arXiv 2507.19409) from the
// paper's abstract and a caption; see [Encoder].
//
// # Letters
//
//	n, t    tokens of a sequence, and a token's index
//	D       width of a token
//	H       heads (Heads), each D/H wide
//	s       size of a token: how many of the first tokens it stands for
//
// Matrices are [tokens, columns], row-major, with a stride.
//
// # Provenance
//
// Checked against a reference of the reconstruction, written for these tests: there is no
// official code to compare with.
package maelre
