// Package dna runs HyenaDNA models: language models of the genome at the
// resolution of single bases, after Nguyen et al., "HyenaDNA: Long-Range Genomic
// Sequence Modeling at Single Nucleotide Resolution" (2023, arXiv 2306.15794).
//
//   - [Open] reads a checkpoint from a safetensors file or from one of PyTorch
//     (weights.ckpt), under any of the names that published ones have, with the
//     config.json beside it.
//   - [Model] gives hidden states, logits of the next base, log-likelihoods,
//     pooled embeddings and class scores; token by token, too, after a [State], and it
//     generates.
//   - [Tokenizer] turns text into tokens as HyenaDNA's tokenizers do.
//   - [Model.ScoreVariants] tells which changes of a sequence are unlikely, [Model.EmbedRegions]
//     makes vectors of stretches, [Model.LogLikelihood] reads sequences of any length.
//   - [Genome] reads any stretch of a FASTA file by its index; [VariantReader] and
//     [RegionReader] read VCF and BED.
//   - [Reader] reads FASTA, plain or gzip, record by record; [ReverseComplement] and
//     [ReverseComplementRNA] turn a strand around.
//
// # Letters
//
//	n, t   tokens in a call, and a token's index
//	r      residual stream, [n, D]
//	D      width of a token (Dim)
//	V      rows of the embedding: the vocabulary, filled up to a multiple of 8
//	l_max  longest sequence (MaxLen), special tokens included
//
// # The model
//
// With r the embeddings [n, D], each of the blocks computes
//
//	r = r + Hyena(LayerNorm(r))
//	r = r + W2 gelu(W1 LayerNorm(r))        (the tanh form of GELU)
//
// and the hidden states are LayerNorm(r). Logits are hidden states times the
// embedding or, where the checkpoint has one, lm_head. There is no attention mask:
// padding is read like any base and changes what follows it, so sequences of
// different lengths are run one by one ([Model.RunBatch] does), not padded.
//
// # Accuracy
//
// Hidden states and logits of a float32 model agree with the official code in
// float64 to about 1e-4, which is what the official float32 code does too.
// Results are the same to the bit for any Workers, and alone or in a batch.
//
// # Provenance
//
//	Model       checked against HyenaDNAModel of hyena-dna (standalone) and
//	            HyenaDNAForCausalLM of the Hugging Face port
//	weights.ckpt: checked against a file of the same layout, with random weights;
//	            the published ones could not be had
//	Tokenizer   checked against CharacterTokenizer of hyena-dna
//	MultiMolecule's names and vocabulary: from its published conversion; no
//	            checkpoint of it has been run
package dna
