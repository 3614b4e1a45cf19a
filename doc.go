// Package subquad is a library of efficient long-context primitives in Go,
// without cgo. This package has only what all of its packages share, errors and the
// options of opening files; import the packages below it:
//
//   - asm: vector arithmetic, matrix multiplication with packed weights,
//     elementary functions, norms, short convolutions and rotations over float32,
//     in assembly for AVX2, AVX-512 and NEON and in portable Go.
//   - rope: rotary positions, exact to a hundred million tokens, every scaling
//     scheme, config.json files, several axes, and biases of attention logits.
//   - attention: exact softmax attention of whole sequences, with every common
//     mask and feature, partial results and their merge; key/value caches and
//     decoding; how far an approximation is from it.
//   - attention/mla: multi-head latent attention, with its weights and its cache.
//   - attention/cca: Core-Context-Aware attention: groups of the far past are pooled.
//   - attention/transformer: language models with attention, hybrids with recurrent
//     layers among them, from published checkpoints: logits, generation, states.
//   - attention/landmark: Landmark attention, whose states read only the blocks that a
//     query chooses; meta-tokens.
//   - attention/kvcache: long pasts: what to keep, what to look at, as policies over
//     states.
//   - attention/approx: attention of linear cost: linear, Based, Performer, efficient,
//     cross-covariance, Linformer, Nyström and multiresolution attention.
//   - attention/sparse: exact attention to chosen blocks of keys: block-sparse patterns,
//     MoBA, NSA.
//   - attention/layers: layers of published networks that are no family of their own:
//     Fourier head, gated attention with grounding tokens, Strip-MLP.
//   - hyena: long convolutions of any length, at once and token by token; implicit and
//     modal filters, and the operators of Hyena, StripedHyena, H3 and S4D.
//   - hyena/dna: HyenaDNA models: tokenizer, FASTA, checkpoints, embeddings,
//     logits and likelihoods.
//   - hyena/striped: StripedHyena models, Evo among them: gated convolutions and
//     attention in one stack.
//   - ssm: state-space models: selective scan, SSD, short convolution, Mamba and
//     Mamba-2 blocks, with states that can be stored, forked and rolled back.
//   - ssm/delta: gated linear recurrences whose state is a matrix: linear attention,
//     DeltaNet, Gated DeltaNet, KDA, RWKV-7, and their blocks
//   - ssm/longmamba: contexts longer than those of the training, by calibrated
//     filters and by dropping tokens.
//   - ssm/mamba: Mamba language models: checkpoints, logits, generation.
//   - ssm/rwkv: RWKV-7 language models: the same, and their own tokens.
//   - text: tokenizers of published checkpoints, and the chat templates by which
//     conversations become tokens.
//   - merge: token merging by plans that can be undone and composed: bipartite, local,
//     causal, by energy; schedules, and whether merging pays.
//   - merge/catanet: attention among tokens of like content, and the blocks around it.
//   - merge/maelre: an encoder for classification that merges from block to block.
//
// Matrices are blas32.General of gonum: a row for each token, heads or channels
// side by side in the columns. Operators are made by New from a Config, are
// immutable and safe for concurrent use, and return errors; only asm panics.
package subquad
