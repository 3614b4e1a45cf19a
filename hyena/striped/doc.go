// Package striped runs StripedHyena models: language models whose layers are gated
// convolutions with modal filters and, here and there, attention, after Poli et al. 2023,
// "StripedHyena: Moving Beyond Transformers with Hybrid Signal Processing Models", and Evo,
// of DNA (Nguyen et al. 2024, "Sequence modeling and design from molecular to genome scale
// with Evo", Science 386).
//
//   - [Open] reads a checkpoint from safetensors or PyTorch files, under the names of
//     stripedhyena or of its Hugging Face port, with the config.json beside it.
//   - [Model] gives hidden states, logits, log-likelihoods and pooled embeddings, goes on from
//     a [State], and generates.
//
// # Letters
//
//	n, t   tokens in a call, and a token's index
//	r      residual stream, [n, D]
//	D      width of a token (Dim)
//	N      modes of a channel's filter (state_size)
//	H      heads
//	I      width of an MLP's hidden layer (inner_mlp_size)
//	V      rows of the embedding: the vocabulary; Evo's are the bytes, and some more
//
// # The model
//
// With r the embeddings [n, D], each block computes
//
//	r = r + F(norm(r))
//	r = r + L3 (act(L1 norm(r)) L2 norm(r))
//
// where F is attention with rotary positions, or hyena.Gated between two linear layers, and
// norm(x) is x / (|x|/sqrt(D) + eps) times a scale: eps is added to the root, and not under it.
// Logits are the last norm of r times the embedding or, with tie_embeddings false, the
// checkpoint's unembed.
//
// A state has keys and values of the attention layers, and of all others a few numbers for
// each channel, which do not grow: N complex ones and the last few inputs.
//
// # Provenance
//
//	Model   re-derived from the code of stripedhyena, against a float64 reference of this
//	        package's tests with random weights; no published checkpoint has been run
//	Gated   checked against stripedhyena's engine (package hyena)
package striped
