// Package layers has whole layers of published networks that are no family of their own:
//
//   - [FourierHead], a head that gives a smooth density over an interval in place of bins that
//     know nothing of each other (Fourier Head, ICLR 2025);
//   - [Gated], attention through which grounding tokens steer a network that is trained
//     already (GLIGEN, InteractDiffusion 2023), and [Tokens], the grounding tokens of
//     interactions;
//   - [Strip], the image layer of Strip-MLP (ICCV 2023), without attention.
//
// They are made of the library's exact attention and matrix products, and are for networks
// that have such layers; as primitives for long sequences take the other packages.
//
// # Letters
//
//	n, t   rows: tokens, or the pixels of an image line after line; and an index
//	D, C   width of a token, channels of an image
//	Co     width of a grounding token (ContextDim)
//	N, m   frequencies and bins of a FourierHead
//	S      side of an image of a Strip
//	E      inner width of a Strip's last layer
//
// Matrices are [rows, columns], row-major, with a stride; weights are [out, in].
//
// # Determinism
//
// Results are the same to the bit for any Workers, and for a sequence or image alone and in a
// batch.
//
// # Provenance
//
// All are checked against the published code, run in float64, under every tier: Strip with
// running statistics (it does not train), Gated in its forms gatedSA and gatedCA (not
// gatedSA2, which resizes grounding rows to the image). What a method gains is its paper's
// claim, which nothing here measures.
package layers
